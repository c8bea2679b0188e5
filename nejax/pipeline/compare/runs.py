"""Compare two finished runs: every difference is found, counted, and explained or not.

Runs that differ in batch size, number of devices or machine differ only by rounding. Their stores then agree to a
tolerance, and where their examples or features differ, two values that decide it are within the tolerance: a
*near-tie*. Anything else is *unexplained*. For runs of different precision, only their agreement is measured.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nejax.errors import SettingError, UserError
from nejax.neuron.streaming.top_examples import TopExamples
from nejax.pipeline.compare.agreement import agreement
from nejax.pipeline.compare.near_ties import Dendrogram, Kept, is_near_split, kept_differences, swapped_pairs
from nejax.pipeline.corpus.windows import Sequences
from nejax.pipeline.passes.select import Chosen, choose_examples
from nejax.pipeline.run.constants import TOLERANCE
from nejax.pipeline.run.folders import refusal_of_run
from nejax.pipeline.run.results import to_store
from nejax.pipeline.run.settings import ExampleSettings, Settings, decided_late
from nejax.pipeline.stages.collect import COLLECT
from nejax.pipeline.stages.features import FEATURES, Features
from nejax.pipeline.stages.inputs import INPUTS
from nejax.pipeline.stages.run import Run
from nejax.pipeline.stages.tokens import TOKENS

COMPARED = (TOKENS, COLLECT, INPUTS, FEATURES)
"""Stages whose results are compared."""

MAY_DIFFER = {"model", "corpus", "text_field", "split", "max_sequences", "precision"} | {
    name for name, stage in decided_late().items() if stage not in {compared.name for compared in COMPARED}
}
"""Settings that may differ: fingerprints show whether model and tokens are the same, the precision decides how the runs
are compared, and what only later stages read decides neither examples nor features."""


MAY_JUMP = ("fired", "merges", "silhouette")
"""Values that need not be near to each other after a near-tie."""


class Layer(NamedTuple):
    """The results of a run for one layer, as NumPy arrays with a leading axis `d_mlp`."""

    kept: TopExamples
    """[d_mlp, K]"""
    n_fired: np.ndarray
    count: np.ndarray
    mean: np.ndarray
    m2: np.ndarray
    chosen: Chosen
    """[d_mlp, n_examples]"""
    window: np.ndarray
    """[d_mlp, n_examples, window] activations around the peaks of the chosen, see `Revisited`."""
    features: Features

    @property
    def mean_square(self) -> np.ndarray:
        """[d_mlp] of the activation."""
        n = np.maximum(self.count, 1)
        return self.m2 / n + self.mean**2

    @property
    def scale(self) -> np.ndarray:
        """[d_mlp] what rounding is measured by: the neuron's highest activation, or the root of its mean square.

        The greater of the two, since the highest activation of a neuron that barely fires is mostly rounding.
        """
        return np.maximum(np.maximum(self.kept.activation[:, 0], 0), np.sqrt(self.mean_square))

    def threshold(self, settings: ExampleSettings) -> np.ndarray:
        """[d_mlp] float32: an example counts if its activation is above it."""
        fraction = settings.min_fraction if settings.selection == "fraction" else 0.0
        return fraction * np.maximum(self.kept.activation[:, 0], 0)


class Values(NamedTuple):
    """The largest difference of what two runs store of a layer's neurons; of those that fire in either run."""

    activation: float
    """Of the K best, rank by rank, relative to the neuron's scale: its highest activation, or root mean square."""
    fired: float
    """Of the share of tokens at which the neuron fires."""
    mean: float
    """Of the activation's mean, relative to the scale."""
    variance: float
    """Of the activation's variance, relative to the scale's square."""
    height: float
    """Of the distance at which the dendrogram is cut."""
    merges: float
    """Of the heights of the dendrogram's merges, rank by rank; of neurons with the same examples."""
    max_distance: float
    """Of neurons with the same examples, as is the next."""
    mean_distance: float
    intra_cluster_distance: float
    """Of neurons with the same examples and features, as are the next."""
    inter_cluster_distance: float
    silhouette: float


class Exceptions(NamedTuple):
    """Where two runs are not the same."""

    neurons: int
    """That have any."""
    near_ties: int
    unexplained: int


class Overlap(NamedTuple):
    """How far two runs agree on each neuron that has examples in either of them; NaN where nothing is comparable."""

    jaccard: np.ndarray
    """[d_mlp] of the examples that either run chose, the share that both did."""
    rand_index: np.ndarray
    """[d_mlp] adjusted Rand index of the features over the examples in common; NaN for fewer than two."""
    n_features: np.ndarray
    """[d_mlp] features in the second run less those in the first."""
    mean_distance: np.ndarray
    """[d_mlp] the second run's less the first's; NaN unless both have one."""


class LayerComparison(NamedTuple):
    """One layer of two runs."""

    values: Values
    neurons: int
    """That have examples in either run."""
    same_examples: int
    """Of these, those for which both runs chose the same ones."""
    same_features: int
    """Of these, those whose examples both runs divide into the same features."""
    beyond: int | None
    """Neurons of which a value, but for those that `MAY_JUMP`, differs by more than the tolerance: unexplained. This
    field and the next three are None if the precision differs."""
    kept: Exceptions | None
    """Of the K best examples, those that count (fire, and exceed the fraction of the maximum): each that is in one run
    only, or has its peak elsewhere in its sequence, and each pair in another order."""
    chosen: Exceptions | None
    """Of the chosen examples, each (sequence, position) in one run only, and each pair in another order."""
    features: Exceptions | None
    """Of neurons with the same examples, those whose examples are divided otherwise."""
    overlap: Overlap


def open_finished(path: Path | str) -> Run:
    """Open a run whose features are all finished, for reading.

    Raises:
        UserError: it is no run, or not finished.
    """
    path = Path(path).expanduser()
    if not path.is_dir():
        raise UserError(f"{refusal_of_run(path)}; expected the directory of a finished run")
    try:
        settings = Settings.of(**json.loads((path / "manifest.json").read_text())["settings"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a run of this version: its manifest.json cannot be read") from error
    run = Run(path, settings, quiet=True, is_finished=True)
    done = run.directory.manifest["stages"]
    features, inputs = (sum(stage.startswith(name) for stage in done) for name in ("features-", "inputs-"))
    if not {"tokens", "collect", "inputs"} <= done.keys() or features < inputs:
        raise UserError(f"the run {path} is not finished (done: {', '.join(done) or 'nothing'}); finish it first")
    return run


def compare_runs(a: Run, b: Run, *, tolerance: float = TOLERANCE) -> Iterator[LayerComparison]:
    """Compare two finished runs of the same model, tokens and settings, layer by layer.

    Args:
        a: from `open_finished`.
        b: another. Batch size, devices, machine and precision may differ; if the precision does, no differences are
            explained.
        tolerance: how close together a near-tie's values are: activations relative to the neuron's scale (its highest
            activation, or its root mean square if that is greater), cosine distances as they are.

    Raises:
        UserError: the runs cannot be compared, or a store is damaged.
    """
    if not 0 <= tolerance < 1:
        raise SettingError("tolerance", tolerance, "a number in [0, 1)")
    _refuse_different_work(a, b)
    tokens = np.concatenate([piece.tokens for piece in TOKENS.of(a).stream()])
    explain = a.settings.model.precision == b.settings.model.precision
    for one, other in zip(_layers(a), _layers(b), strict=True):
        yield compare_layer(one, other, a.settings, tokens, tolerance=tolerance if explain else None)


def compare_layer(
    a: Layer, b: Layer, settings: Settings, tokens: np.ndarray, *, tolerance: float | None
) -> LayerComparison:
    """Compare one layer of two runs.

    The examples that count are compared first: one is in one run only because the other's value lies below the fraction
    of the maximum or below the weakest of a full buffer, is elsewhere in its sequence because another activation there
    is nearly as high, and has changed places with one that is nearly as strong; or it is unexplained. What is
    chosen follows from these examples by `choose_examples`, which is run again: where it gives what both runs stored,
    and all differences before are near-ties, so are those of the choice, those for the sake of repeats among them.

    Only average linkage stores what explains different features: its dendrogram.

    Args:
        a: of one run.
        b: of the other.
        settings: of both.
        tokens: [n_sequences, seq_len] of both.
        tolerance: see `compare_runs`; None: explain nothing.
    """
    place_a, place_b = _places(a.chosen, tokens.shape), _places(b.chosen, tokens.shape)
    both, in_a, in_b = np.intersect1d(place_a[place_a >= 0], place_b[place_b >= 0], return_indices=True)
    label_a, label_b = a.features.label[place_a >= 0][in_a], b.features.label[place_b >= 0][in_b]
    agreed = agreement(both // tokens.size, label_a, label_b, n_neurons=len(place_a))
    n_a, n_b = (place_a >= 0).sum(axis=1), (place_b >= 0).sum(axis=1)
    there = (n_a > 0) | (n_b > 0)
    same = there & (agreed.n == n_a) & (agreed.n == n_b)
    apart = _value_differences(a, b, same, same & agreed.same)
    beyond = kept = chosen = features = None
    if tolerance is not None:
        far = [difference > tolerance for name, difference in apart.items() if name not in MAY_JUMP]
        beyond = int(np.any(far, axis=0).sum())
        found = _compare_kept(a, b, settings.examples, tolerance)
        kept, chosen = _tally(found), _tally(_compare_chosen(a, b, place_a, place_b, settings.examples, tokens, found))
        divided = np.flatnonzero(same & ~agreed.same)
        explicable = settings.clustering.method == "average"
        features = _tally(
            {
                j: [explicable and is_near_split(_dendrogram(a, place_a, j), _dendrogram(b, place_b, j), tolerance)]
                for j in divided.tolist()
            }
        )
    return LayerComparison(
        values=Values(**{name: float(difference.max(initial=0)) for name, difference in apart.items()}),
        beyond=beyond,
        neurons=int(there.sum()),
        same_examples=int(same.sum()),
        same_features=int((same & agreed.same).sum()),
        kept=kept,
        chosen=chosen,
        features=features,
        overlap=Overlap(
            jaccard=np.where(there, agreed.n / np.maximum(n_a + n_b - agreed.n, 1), np.nan),
            rand_index=agreed.rand_index,
            n_features=np.where(there, b.features.measures.n_clusters - 1.0 * a.features.measures.n_clusters, np.nan),
            mean_distance=np.subtract(b.features.measures.mean_distance, a.features.measures.mean_distance),
        ),
    )


def _refuse_different_work(a: Run, b: Run) -> None:
    """Refuse runs whose results need not agree, with both values of what differs."""

    def work(run: Run) -> dict[str, Any]:
        manifest = run.directory.manifest
        of_settings = {name: v for name, v in manifest["settings"].items() if name not in MAY_DIFFER}
        model, tokens = manifest.get("model", {}), manifest["stages"]["tokens"]
        return {"model": model.get("fingerprint"), "tokens": tokens.get("fingerprint")} | of_settings

    of_a, of_b = work(a), work(b)
    differ = [f"{name} {value} and {of_b.get(name)}" for name, value in of_a.items() if value != of_b.get(name)]
    if differ:
        raise UserError(
            f"{a.directory.path} and {b.directory.path} cannot be compared, they have {'; '.join(differ)}: "
            "expected the same model, tokens and settings"
        )


def _layers(run: Run) -> Iterator[Layer]:
    collected, inputs = COLLECT.of(run), INPUTS.of(run)
    for i, features in enumerate(FEATURES.of(run)):
        yield Layer(
            TopExamples(*(field[i] for field in collected.examples)),
            *(np.asarray(field[i]) for field in (collected.n_fired, *collected.moments[:3])),
            chosen=Chosen(*(field[i] for field in inputs.chosen)),
            window=inputs.window[i],
            features=features,
        )


def _places(chosen: Chosen, of_tokens: tuple[int, ...]) -> np.ndarray:
    """[d_mlp, n_examples] a number for each neuron, sequence and position; -1 where empty."""
    n_sequences, seq_len = of_tokens
    neuron = np.arange(len(chosen.sequence), dtype=np.int64)[:, None]
    place = (neuron * n_sequences + chosen.sequence) * seq_len + chosen.position
    return np.where(chosen.sequence >= 0, place, -1)


def _compare_kept(a: Layer, b: Layer, settings: ExampleSettings, tolerance: float) -> dict[int, list[bool]]:
    """For each neuron with any, its differences, and whether they are near-ties."""
    slack = tolerance * np.maximum(a.scale, b.scale)
    counts_a, counts_b = (run.kept.activation > run.threshold(settings)[:, None] for run in (a, b))
    equal = (a.kept.sequence == b.kept.sequence) & (a.kept.position == b.kept.position) & counts_b
    differ = np.flatnonzero((np.where(counts_a, ~equal, counts_b)).any(axis=1))
    return {j: kept_differences(_kept(a, j, settings), _kept(b, j, settings), float(slack[j])) for j in differ.tolist()}


def _kept(run: Layer, j: int, settings: ExampleSettings) -> Kept:
    """What the run kept of neuron j."""
    activation, sequence, position = (field[j].tolist() for field in run.kept)
    n = sum(s >= 0 for s in sequence)
    position_of = dict(zip(sequence[:n], position[:n], strict=True))
    chosen = zip(run.chosen.sequence[j].tolist(), run.chosen.position[j].tolist(), run.window[j], strict=True)
    return Kept(
        activation=dict(zip(sequence[:n], activation[:n], strict=True)),
        position=position_of,
        window={s: window for s, p, window in chosen if s >= 0 and position_of.get(s) == p},
        threshold=float(run.threshold(settings)[j]),
        weakest=activation[-1] if n == len(sequence) else -np.inf,
    )


def _compare_chosen(
    a: Layer,
    b: Layer,
    place_a: np.ndarray,
    place_b: np.ndarray,
    settings: ExampleSettings,
    tokens: np.ndarray,
    kept: dict[int, list[bool]],
) -> dict[int, list[bool]]:
    """As `_compare_kept`, whose result is `kept`, of the choice."""
    differ = np.flatnonzero((place_a != place_b).any(axis=1))
    if not len(differ):
        return {}
    follows = _choice_follows(a, differ, settings, tokens) & _choice_follows(b, differ, settings, tokens)
    found = {}
    for j, explicable in zip(differ.tolist(), follows.tolist(), strict=True):
        in_a, in_b = ([p for p in place[j].tolist() if p >= 0] for place in (place_a, place_b))
        n = len(set(in_a) ^ set(in_b)) + len(swapped_pairs(in_a, in_b))
        found[j] = [explicable and all(kept.get(j, [False]))] * n
    return found


def _choice_follows(run: Layer, rows: np.ndarray, settings: ExampleSettings, tokens: np.ndarray) -> np.ndarray:
    """For some neurons, whether what was chosen is what follows from what was kept."""
    best = TopExamples(*(field[rows][None] for field in run.kept))
    again, _, _ = choose_examples(
        best,
        [Sequences(tokens, *(np.zeros(len(tokens), np.int32) for _ in Sequences._fields[1:]))],
        selection=settings.selection,
        n_examples=settings.n,
        min_fraction=settings.min_fraction,
        max_repeats=settings.max_repeats,
    )
    pairs = ((again.sequence, run.chosen.sequence), (again.position, run.chosen.position))
    return np.logical_and(*((new[0] == stored[rows]).all(axis=1) for new, stored in pairs))


def _dendrogram(run: Layer, place: np.ndarray, j: int) -> Dendrogram:
    rank = np.argsort(np.argsort(np.where(place[j] >= 0, place[j], np.iinfo(np.int64).max), kind="stable"))
    merges, n_merges, height = (field[j] for field in (run.features.merges, run.features.n_merges, run.features.height))
    return Dendrogram(merges, int(n_merges), float(height), rank, run.features.label[j])


def _value_differences(
    a: Layer, b: Layer, same_examples: np.ndarray, same_features: np.ndarray
) -> dict[str, np.ndarray]:
    """For each of `Values`, the difference in every neuron: [d_mlp], 0 where it is not compared."""
    alive = (a.kept.activation[:, 0] > 0) | (b.kept.activation[:, 0] > 0)
    scale = np.where(alive, np.maximum(a.scale, b.scale), 1)

    def difference(of_a: Any, of_b: Any, where: Any) -> np.ndarray:
        of_a, of_b = np.asarray(of_a, np.float64), np.asarray(of_b, np.float64)
        with np.errstate(invalid="ignore"):
            apart = np.abs(of_a - of_b)
        both = (of_a == of_b) | (np.isnan(of_a) & np.isnan(of_b))
        apart = np.where(both, 0, np.where(np.isnan(apart), np.inf, apart))
        return np.where(where, apart if apart.ndim == 1 else apart.max(axis=1, initial=0), 0)

    def of_features(name: str, where: Any) -> np.ndarray:
        return difference(to_store(a.features)[name], to_store(b.features)[name], where)

    per_token = [np.maximum(run.count, 1) for run in (a, b)]
    return {
        "activation": difference(a.kept.activation, b.kept.activation, alive) / scale,
        "fired": difference(a.n_fired / per_token[0], b.n_fired / per_token[1], alive),
        "mean": difference(a.mean, b.mean, alive) / scale,
        "variance": difference(a.m2 / per_token[0], b.m2 / per_token[1], alive) / scale**2,
        "height": of_features("height", alive),
        "merges": difference(a.features.merges[..., 2], b.features.merges[..., 2], same_examples),
        "max_distance": of_features("max_distance", same_examples),
        "mean_distance": of_features("mean_distance", same_examples),
        "intra_cluster_distance": of_features("intra_cluster_distance", same_features),
        "inter_cluster_distance": of_features("inter_cluster_distance", same_features),
        "silhouette": of_features("silhouette", same_features),
    }


def _tally(found: dict[int, list[bool]]) -> Exceptions:
    near = [is_near for differences in found.values() for is_near in differences]
    return Exceptions(len(found), sum(near), len(near) - sum(near))
