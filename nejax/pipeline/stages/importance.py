"""The stage `importance`: which earlier tokens the examples of every feature need."""

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple, get_args

import numpy as np

from nejax.errors import SettingError, UserError, literal
from nejax.neuron.importance import token_importance
from nejax.pipeline.passes.ablation import Cost, Peaks, activations_without, mean_less_padding
from nejax.pipeline.passes.histogram import sample_sequences
from nejax.pipeline.passes.select import Chosen
from nejax.pipeline.run.directory import digest_of, pack_text, stop_on_full_disk
from nejax.pipeline.run.settings import Ablation
from nejax.pipeline.stages.features import FEATURES
from nejax.pipeline.stages.inputs import INPUTS
from nejax.pipeline.stages.run import Run
from nejax.pipeline.stages.stage import Facts, Stage

PEAKS = 4096
"""About so many examples are done between looks at whether a checkpoint is due."""

N_COMPARED = 256
"""Examples of which all ways to take a token away are compared."""


class Importance(NamedTuple):
    """Activations of the most central examples of every feature without each of the tokens before the peak."""

    example: np.ndarray
    """[n] int64, ascending: numbers `(layer * d_mlp + neuron) * examples + rank` of the examples of the inputs."""
    without: np.ndarray
    """[n, window + 1] float32: the activation that is left at the peak without the token there, the one before it, and
    so on; NaN where there is none. See `token_importance`."""


def padding_token(run: Run) -> int:
    """The id of the token that stands for one that is ablated: the one set, else the model's padding or BOS.

    Raises:
        UserError: there is no such token.
    """
    tokenizer, wanted = run.loaded.tokenizer, run.settings.importance.padding_token
    if wanted is None:
        wanted = str(tokenizer.bos_token if tokenizer.pad_token is None else tokenizer.pad_token)
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    if wanted in vocabulary:
        return vocabulary[wanted]
    ids = np.asarray(tokenizer(wanted, add_special_tokens=False)["input_ids"], np.int64)
    if len(ids) != 1:
        expected = f"one of the {len(vocabulary):,} tokens of {run.settings.model.name}; this would be {len(ids)}"
        raise SettingError("padding_token", repr(wanted), literal(expected))
    return int(ids[0])


def most_central(label: np.ndarray, cohesion: np.ndarray, n: int) -> np.ndarray:
    """Which examples are among the `n` of their feature with the highest mean similarity to the others.

    Args:
        label: [n_neurons, n_examples] int, the feature of each example; -1 where there is none.
        cohesion: [n_neurons, n_examples]; NaN for an example alone in its feature.
        n: at least 1.

    Returns:
        [n_neurons, n_examples] bool. Of equally central ones, the stronger.
    """
    order = np.lexsort((np.nan_to_num(-cohesion), label), axis=1)
    in_order = np.take_along_axis(label, order, axis=1)
    column = np.arange(label.shape[1])
    is_first = np.diff(in_order, axis=1, prepend=-2) != 0
    rank = column - np.maximum.accumulate(np.where(is_first, column, 0), axis=1)
    chosen = np.zeros(label.shape, bool)
    np.put_along_axis(chosen, order, (rank < n) & (in_order >= 0), axis=1)
    return chosen


def _importance(run: Run) -> tuple[Importance, Facts]:
    s, chosen = run.settings.importance, INPUTS.of(run).chosen
    central = [most_central(found.label, found.cohesion, s.n_examples) for found in FEATURES.of(run)]
    example = np.flatnonzero(np.stack(central))
    by_sequence = example[np.argsort(chosen.sequence.reshape(-1)[example], kind="stable")]
    work = _Work(run, chosen)
    what = {"example": by_sequence, "how": pack_text([s.window, s.by, work.padding])}
    checkpoints = run.checkpoints("importance", digest_of(what))
    done, saved = checkpoints.latest() or (0, {})
    without = np.full((len(example), s.window + 1), np.nan, np.float32)
    without[:done] = saved.get("without", without[:0])
    cost = Cost(*saved.get("cost", np.zeros(3, np.int64)).tolist())
    with (
        run.bar("importance", lambda: len(example), "examples") as advance,
        run.products(),
        stop_on_full_disk(run.directory.path),
    ):
        advance(done)
        for first, last in _pieces(chosen.sequence.reshape(-1)[by_sequence], done):
            without[first:last], more = work(by_sequence[first:last], s.by)
            cost = Cost(*(a + b for a, b in zip(cost, more, strict=True)))
            if checkpoints.due():
                checkpoints.save(last, {"without": without[:last], "cost": np.array(cost)})
            advance(last - first)
        agreement = _agreement(work, by_sequence, without, s.by, run.settings.seed)
    in_order = np.argsort(by_sequence)
    activation = chosen.activation.reshape(-1)[example]
    undefined = np.isnan(np.asarray(token_importance(activation, without[in_order]))[:, 0])
    places = np.stack([places.reshape(-1)[example] for places in chosen[:2]])
    facts = {
        "examples": len(example),
        "places": len(np.unique(places, axis=1).T),
        "padding": work.padding,
        **cost._asdict(),
        "without_own_effect": int(undefined.sum()),
        "compared": min(N_COMPARED, len(example)),
        "agreement": agreement,
    }
    return Importance(example, without[in_order]), facts


def _pieces(sequence: np.ndarray, start: int) -> Iterator[tuple[int, int]]:
    """Cut examples in order of sequence into runs of about `PEAKS`, none within a sequence."""
    while start < len(sequence):
        last = min(start + PEAKS, len(sequence)) - 1
        stop = int(np.searchsorted(sequence, sequence[last], side="right"))
        yield start, stop
        start = stop


class _Work:
    """Takes tokens away from some of a run's examples."""

    def __init__(self, run: Run, chosen: Chosen):
        self._run, self._chosen = run, chosen
        self.padding = padding_token(run)
        self._mean_shift: np.ndarray | None = None

    def activation(self, example: np.ndarray) -> np.ndarray:
        """At their peaks."""
        return self._chosen.activation.reshape(-1)[example]

    def __call__(self, example: np.ndarray, ablation: Ablation) -> tuple[np.ndarray, Cost]:
        """See `activations_without`.

        Raises:
            UserError: an activation is not finite.
        """
        run, s, chosen = self._run, self._run.settings.importance, self._chosen
        n_layers, d_mlp, n_examples = chosen.sequence.shape
        layer, neuron = np.divmod(example // n_examples, d_mlp)
        sequence, position = (places.reshape(-1)[example] for places in chosen[:2])
        known, row = np.unique(sequence, return_inverse=True)
        peaks = Peaks(layer, neuron, row, position)
        without, cost = activations_without(
            run.loaded.model,
            peaks,
            run.sequences.take(known).tokens,
            n_layers=n_layers,
            window=s.window,
            ablation=ablation,
            padding=self.padding,
            mean_shift=self._shift() if ablation == "mean" else None,
            batch_size=run.batch_size,
            mesh=run.mesh,
        )
        finite = np.isfinite(without) | (position[:, None] - np.arange(without.shape[1]) < 1)
        if not finite.all():
            layers = ", ".join(map(str, np.unique(layer[~finite.all(axis=1)])))
            raise UserError(
                f"activations that are not finite (NaN or infinite) in layer(s) {layers} without a token",
                "check the model's weights, or use {precision}=float32",
            )
        return without, cost

    def _shift(self) -> np.ndarray:
        """The mean input, over the tokens that can be a peak in a sample of the corpus."""
        if self._mean_shift is None:
            run = self._run
            sample = run.sequences.take(sample_sequences(run.sizes[1], run.settings.corpus.seq_len, run.settings.seed))
            real = run.peak_rule.allowed_in(sample)
            self._mean_shift = mean_less_padding(run.loaded.model, sample.tokens, real, self.padding)
        return self._mean_shift


def _agreement(
    work: _Work,
    example: np.ndarray,
    without: np.ndarray,
    own: Ablation,
    seed: int,
) -> dict[str, dict[str, float | None]]:
    """How well all ways to take a token away agree, over a sample of the examples.

    For each pair: the correlation of the importances of the tokens before the peak, over all examples, and the share
    of examples in which the same one is the most important. None where that is not defined.
    """
    drawn = np.sort(np.random.default_rng(seed).choice(len(example), min(N_COMPARED, len(example)), replace=False))
    found = {}
    for ablation in get_args(Ablation):
        left = without[drawn] if ablation == own else work(example[drawn], ablation)[0]
        found[ablation] = np.asarray(token_importance(work.activation(example[drawn]), left))[:, 1:]
    return {f"{a}, {b}": agreement_of(found[a], found[b]) for a, b in combinations(found, 2)}


def agreement_of(a: np.ndarray, b: np.ndarray) -> dict[str, float | None]:
    """How well two sets of importances agree.

    Args:
        a: [n_examples, n_tokens]; NaN where there is none.
        b: likewise.

    Returns:
        Their `correlation` over all that both have, and the share of examples in which the `same_token` is the most
        important, of those where both have one above 0. None where that is not defined.
    """
    both = ~np.isnan(a) & ~np.isnan(b)
    spreads = both.any() and a[both].std() > 0 and b[both].std() > 0
    correlation = float(np.corrcoef(a[both], b[both])[0, 1]) if spreads else None
    a, b = (np.where(both, x, -1) for x in (a, b))
    some = (a.max(axis=1, initial=-1) > 0) & (b.max(axis=1, initial=-1) > 0)
    same = float((a[some].argmax(axis=1) == b[some].argmax(axis=1)).mean()) if some.any() else None
    return {
        name: None if x is None else round(x, 4) for name, x in (("correlation", correlation), ("same_token", same))
    }


IMPORTANCE = Stage(
    name="importance",
    needs=(FEATURES,),
    is_wanted=lambda settings: settings.importance.wanted,
    refuse=padding_token,
    result=Importance,
    work=_importance,
)
