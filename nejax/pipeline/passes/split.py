"""Split every neuron of a layer into its features, see `nejax.neuron.split`."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int, UInt32

from nejax.errors import UserError
from nejax.neuron._kernels.one_kernel import layer_program, loops_are_kernels
from nejax.neuron.split import Split, calibrated_height, split
from nejax.pipeline.run.constants import CHUNK_MIB
from nejax.pipeline.run.devices import AXIS, fetch, fill_up, mesh_of_all, place, up_to_devices
from nejax.pipeline.run.settings import Clustering


def check_reference(reference: np.ndarray | Array) -> None:
    """Refuse a corpus that leaves nothing to calibrate cut heights by.

    Raises:
        UserError: fewer than two inputs have no distance.
    """
    if len(reference) < 2:
        raise UserError(
            f"the cut height cannot be calibrated: the corpus has {len(reference)} positions that can be a peak, "
            "expected at least 2; use a longer corpus, or give --height"
        )


class LayerClusterer:
    """Splits all neurons of a layer, a chunk at a time, spread over all devices; one compilation serves all layers.

    Args:
        n_inputs: most distinct inputs any layer has: shorter ones are padded to it.
        n_examples: examples a neuron.
        d_model: width of the inputs.
        clustering: the method, and its settings. A height of None is calibrated for each neuron.
        seed: for methods that start at random.
        chunk_mib: bound on the memory, in MiB, that the neurons of one chunk take on all devices together, beside the
            layer's inputs and weights. Does not change the result.

    Raises:
        UserError: a setting is out of range.
    """

    def __init__(
        self,
        *,
        n_inputs: int,
        n_examples: int,
        d_model: int,
        clustering: Clustering,
        seed: int = 0,
        chunk_mib: int = CHUNK_MIB,
    ):
        clustering.check(n_examples)
        if chunk_mib < 1:
            raise UserError(f"--chunk_mib={chunk_mib}: expected at least 1")
        self.n_inputs, self.key = n_inputs, jax.random.key(seed)
        mesh = mesh_of_all()
        # Accelerators hold the matrices of a whole chunk at once; a CPU those of a few neurons, and their results.
        per_neuron = 4 * n_examples * (3 * d_model + 4 * n_examples)
        side_by_side = max(1, chunk_mib * 2**20 // per_neuron // mesh.size)
        self.chunk = min(1024, side_by_side) * mesh.size
        everywhere, spread = PartitionSpec(), PartitionSpec(AXIS)
        self._split = jax.jit(
            jax.shard_map(
                partial(_split_neurons, clustering=clustering),
                mesh=mesh,
                in_specs=(*[everywhere] * 3, *[spread] * 3),
                out_specs=spread,
            )
        )

    def __call__(
        self, inputs: np.ndarray, input_of: np.ndarray, reference: np.ndarray, w_in: np.ndarray | Array, layer: int = 0
    ) -> tuple[Split, np.ndarray]:
        """Split a layer.

        Args:
            inputs: [n_distinct, d_model] float32.
            input_of: [n_neurons, n_examples] int32, rows of `inputs`; -1 where empty.
            reference: [n_reference, d_model] float32.
            w_in: [d_model, n_neurons].
            layer: which one: neurons of different layers start at random differently.

        Returns:
            What was found, as NumPy arrays with a leading neuron axis (`directions` left empty: [n_neurons, 0, 0]),
            and the directions of the features there are: [n_features, d_model] float32, neuron by neuron.
        """
        n_neurons = len(input_of)
        w = np.asarray(w_in).astype(np.float32).T
        of_layer = jax.random.key_data(jax.random.fold_in(self.key, layer))
        for_all = place((fill_up(inputs, self.n_inputs), reference, of_layer))
        n_chunks = -(-n_neurons // self.chunk)
        # chunks of about one size need the fewest rows to fill the last one up
        size = up_to_devices(-(-n_neurons // n_chunks))
        parts, directions = [], []
        for start in range(0, n_neurons, size):
            stop = min(start + size, n_neurons)
            number = np.minimum(np.arange(start, start + size, dtype=np.int32), n_neurons - 1)
            of_neurons = fill_up(input_of[start:stop], size, -1), fill_up(w[start:stop], size), number
            found = fetch(self._split(*for_all, *place(of_neurons, AXIS)))
            found = jax.tree.map(lambda leaf: leaf[: stop - start], found)  # noqa: B023
            directions.append(found.directions[found.central >= 0])
            parts.append(found._replace(directions=found.directions[:, :0, :0]))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts), np.concatenate(directions)


@layer_program
def _split_neurons(
    inputs: Float[Array, "n_inputs d_model"],
    reference: Float[Array, "n_reference d_model"],
    of_layer: UInt32[Array, " key"],
    rows: Int[Array, "chunk n_examples"],
    w: Float[Array, "chunk d_model"],
    number: Int[Array, " chunk"],
    *,
    clustering: Clustering,
) -> Split:
    """Split some neurons, each with its own rows of the inputs, its own weights, and its own random key."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.wrap_key_data(of_layer), number)

    def of_neuron(neuron: tuple[Array, Array, Array]) -> Split:
        rows, w, key = neuron
        height = clustering.height
        if clustering.has_height and height is None:
            check_reference(reference)
            height = calibrated_height(reference, w)
        return split(inputs[jnp.maximum(rows, 0)], w, height, mask=rows >= 0, key=key, **clustering.options())

    # A CPU core keeps the matrices of one neuron in its cache; accelerators want all side by side.
    return lax.map(of_neuron, (rows, w, keys), batch_size=None if loops_are_kernels() else len(rows))
