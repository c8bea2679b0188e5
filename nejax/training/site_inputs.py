"""The values of a model at one site, over a corpus: in the order of the text, or in random order to train on."""

import functools
from collections.abc import Generator, Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from nejax.errors import UserError
from nejax.models.families.transformer import Transformer
from nejax.models.sae.hook_points import Site
from nejax.pipeline.corpus.sequences import SequenceShards
from nejax.pipeline.corpus.windows import Sequences
from nejax.pipeline.passes.peaks import PeakRule
from nejax.pipeline.run.devices import fetch, mesh_or_all, place, up_to_devices
from nejax.pipeline.run.spread import in_chunks


class SiteReader:
    """Reads a model at one site, at every position but padding, special tokens and the first.

    The layers after the site are not run.

    Args:
        model: the whole of it.
        site: where.
        rule: at which tokens it reads.
        centred: subtract from each value its mean over `d_model`.
        batch_size: sequences a pass, on all devices together; filled up to a multiple of their number.
        mesh: the devices, see `nejax.pipeline.run.devices.mesh_of`; all of them, if None.
    """

    def __init__(
        self,
        model: Transformer,
        site: Site,
        *,
        rule: PeakRule,
        centred: bool = False,
        batch_size: int = 16,
        mesh: Mesh | None = None,
    ):
        self.site, self.centred, self.d = site, centred, model.config.d_model
        self.positions = rule.allowed_in
        self._mesh = mesh_or_all(mesh)
        self._batch_size = up_to_devices(batch_size, self._mesh)
        self._graph, state = nnx.split(model.first_layers(site.layer + 1))
        self._state = place(state, self._mesh)

    def __call__(self, sequences: Sequences) -> Float[np.ndarray, "n_inputs d_model"]:
        """What is at the site, float32, sequence after sequence.

        Raises:
            UserError: a value is not finite.
        """
        read, found = self.positions(sequences), []
        for rows, (batch,) in in_chunks([sequences.tokens.astype(np.int32)], self._batch_size, self._mesh):
            values = fetch(_values(self._state, batch, graph=self._graph, name=self.site.name))
            found.append(values[: rows.stop - rows.start][read[rows]])
        inputs = np.concatenate(found) if found else np.zeros((0, self.d), np.float32)
        if not np.isfinite(inputs).all():
            raise UserError(
                f"not all values are finite at {self.site.name} of layer {self.site.layer}",
                "check the model's weights, or use {precision}=float32",
            )
        return inputs - inputs.mean(axis=1, keepdims=True) if self.centred else inputs


@functools.partial(jax.jit, static_argnames=("graph", "name"))
def _values(
    state: nnx.State, tokens: Int[Array, "batch seq"], *, graph: nnx.GraphDef, name: str
) -> Float[Array, "batch seq d_model"]:
    """The named value of the last layer."""
    _, values = nnx.merge(graph, state)(tokens, reader=lambda view: getattr(view, name))
    return values[-1].astype(jnp.float32)


def first_inputs(
    read: SiteReader, pieces: Iterable[Sequences], n: int
) -> tuple[Float[np.ndarray, "n_inputs d_model"], Sequences]:
    """The first inputs of a corpus, in the order of its text, and the sequences they are from.

    Args:
        read: at what site.
        pieces: the corpus's sequences, in order; no more of them are taken than needed.
        n: so many inputs, or a few more, to the end of a sequence; all there are, if there are fewer.

    Raises:
        UserError: there is none.
    """
    inputs: list[np.ndarray] = []
    used: list[Sequences] = []
    n_found = 0
    for piece in pieces:
        ends = n_found + np.cumsum(read.positions(piece).sum(axis=1))
        some = Sequences(*(field[: int(np.searchsorted(ends, n)) + 1] for field in piece))
        inputs.append(read(some))
        used.append(some)
        n_found += len(inputs[-1])
        if n_found >= n:
            break
    if not n_found:
        raise UserError("the corpus has no position to read: only special tokens and first positions; use another")
    return np.concatenate(inputs), Sequences(*map(np.concatenate, zip(*used, strict=True)))


class InputStream:
    """A site's inputs in random order, without end. The batch of a step depends on the seed and the step alone.

    Epochs follow one another, each in an order of its own: the corpus's shards in random order, and the sequences of a
    shard in random order. Blocks of sequences are read one after the other; half of a block's inputs, taken at random,
    are shuffled together with half of the next one's, and such a window is cut into batches. So every input comes once
    an epoch, the memory is that of two blocks and a half whatever the corpus, and a stream that starts in the middle
    reads one extra block to be in the same state. Only 12 bytes a sequence grow with the corpus: how many inputs each
    has, and their order.

    Args:
        read: at what site.
        shards: the corpus; what is not cut yet is cut now.
        buffer: the most inputs in a block.
        seed: of all orders.

    Raises:
        UserError: the corpus has no input.
    """

    def __init__(self, read: SiteReader, shards: SequenceShards, *, buffer: int, seed: int):
        self._read, self._shards, self._seed = read, shards, seed
        counts, self._sizes, seq_len = [], [], 1
        for piece in shards.stream():
            counts.append(read.positions(piece).sum(axis=1, dtype=np.int32))
            self._sizes.append(len(counts[-1]))
            seq_len = piece.tokens.shape[1]
        self._n_inputs = np.concatenate(counts)
        if not self._n_inputs.any():
            raise UserError("the corpus has no position to read: only special tokens and first positions; use another")
        self._block = min(max(1, buffer // seq_len), len(self._n_inputs))
        self._order = functools.lru_cache(maxsize=2)(self._order_of_epoch)

    @property
    def n_sequences(self) -> int:
        """In an epoch."""
        return len(self._n_inputs)

    @property
    def n_inputs(self) -> int:
        """In an epoch."""
        return int(self._n_inputs.sum(dtype=np.int64))

    def batches(self, batch_size: int, first: int = 0) -> Generator[Float[np.ndarray, "batch d_model"], None, None]:
        """The batches from number `first` on."""
        window, skip = self._window_of_row(first * batch_size)
        late = self._late_half(window - 1) if window else np.zeros((0, self._read.d), np.float32)
        waiting = np.zeros((0, self._read.d), np.float32)
        while True:
            early, next_late, order = self._halves(window)
            inputs = np.concatenate([late, early])[order.permutation(len(late) + len(early))][skip:]
            inputs, late, window, skip = np.concatenate([waiting, inputs]), next_late, window + 1, 0
            n_whole = len(inputs) // batch_size * batch_size
            yield from np.split(inputs[:n_whole], n_whole // batch_size) if n_whole else ()
            waiting = inputs[n_whole:]

    def sample(self) -> Float[np.ndarray, "n_inputs d_model"]:
        """The inputs of the first block: a random sample of the corpus."""
        return self._read(self._shards.take(self._numbers(0)))

    def _order_of_epoch(self, epoch: int) -> Int[np.ndarray, " n_sequences"]:
        order, starts = np.random.default_rng((self._seed, epoch)), np.cumsum([0, *self._sizes])
        shards = order.permutation(len(self._sizes))
        return np.concatenate([starts[i] + order.permutation(self._sizes[i]) for i in shards]).astype(np.int64)

    def _numbers(self, block: int) -> Int[np.ndarray, " sequences"]:
        """The numbers of a block's sequences; it may straddle two epochs."""
        places = np.arange(block * self._block, (block + 1) * self._block)
        n = len(self._n_inputs)
        first, last = places[0] // n, places[-1] // n
        orders = np.concatenate([self._order(epoch) for epoch in range(first, last + 1)])
        return orders[places - first * n]

    def _window_of_row(self, row: int) -> tuple[int, int]:
        """The window that holds a row of the stream, and the rows of it that come before."""
        late, start = 0, 0
        for block, n in enumerate(self._block_sizes()):
            size = late + n - n // 2
            if start + size > row:
                return block, row - start
            late, start = n // 2, start + size
        raise AssertionError("the stream has no end")

    def _block_sizes(self) -> Iterator[int]:
        block = 0
        while True:
            yield int(self._n_inputs[self._numbers(block)].sum())
            block += 1

    def _halves(self, block: int) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
        """A block's inputs in random order, those for its own window and those for the next; and what is to shuffle."""
        order = np.random.default_rng((self._seed, block, 1))
        inputs = self._read(self._shards.take(self._numbers(block)))
        inputs = inputs[order.permutation(len(inputs))]
        n_early = len(inputs) - len(inputs) // 2
        return inputs[:n_early], inputs[n_early:], order

    def _late_half(self, block: int) -> np.ndarray:
        return self._halves(block)[1]
