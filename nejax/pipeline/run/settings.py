"""The settings of a run, and which values of them are refused.

Nothing heavy is imported: scripts name them in their help.
"""

import dataclasses
from typing import Any, Literal, get_args

from nejax.errors import UserError, refuse_undecodable
from nejax.models.choices import EmbedBy
from nejax.neuron.defaults import MAX_CLUSTERS, METHOD_SETTINGS, MIN_SILHOUETTE, N_NEIGHBORS, N_RESTARTS, Method

Selection = Literal["fraction", "top", "quantiles"]

Ablation = Literal["padding", "deletion", "mean", "gradient"]
"""What stands for a token that is ablated, see `nejax.pipeline.stages.importance`."""

SimilarBy = Literal["central", "mean"]
"""Which inputs of two features are compared: those of their central examples, or the means over their examples."""

DECIDED_LATE = {
    "similar": "similar",
    "min_similarity": "similar",
    "similar_by": "similar",
    "similar_recall": "similar",
    "similar_examples": "similar",
    "importance": "importance",
    "importance_examples": "importance",
    "importance_window": "importance",
    "importance_by": "importance",
    "padding_token": "importance",
    "census": "census",
    "census_sequences": "census",
}
"""Settings that one of the last stages alone reads: while it is not done they may change."""


@dataclasses.dataclass(frozen=True)
class Clustering:
    """A method and its settings; those of other methods stay as they are here."""

    method: Method = "average"
    height: float | None = None
    """Where the dendrogram is cut, or how far neighbours in the graph are apart; None: calibrated."""
    n_clusters: int | None = None
    """For all neurons (fewer where a neuron has fewer examples); None: chosen for each."""
    max_clusters: int = MAX_CLUSTERS
    """The most that are chosen."""
    n_restarts: int = N_RESTARTS
    """Starts of k-means."""
    min_silhouette: float = MIN_SILHOUETTE
    """The mean silhouette that several clusters must exceed; otherwise there is one."""
    n_neighbors: int = N_NEIGHBORS
    """The neighbour whose distance is an example's own scale in the affinity."""

    @property
    def has_height(self) -> bool:
        """Whether clusters end at a distance."""
        return "height" in METHOD_SETTINGS[self.method]

    def options(self) -> dict[str, Any]:
        """All but the height, by the names that `nejax.neuron.split.split` gives them."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "height"}

    def check(self, n_examples: int) -> None:
        """Refuse settings out of range, and those of another method.

        Args:
            n_examples: examples a neuron.

        Raises:
            UserError: names the setting, its value, and what was expected.
        """
        for field in dataclasses.fields(self)[1:]:
            value = getattr(self, field.name)
            if value != field.default and field.name not in METHOD_SETTINGS[self.method]:
                heeding = " or ".join(method for method, own in METHOD_SETTINGS.items() if field.name in own)
                raise UserError(
                    f"--{field.name}={value:g} is not used by --clustering={self.method}: "
                    f"leave it out, or take --clustering={heeding}"
                )
        if self.height is not None and not 0 < self.height <= 2:
            raise UserError(
                f"--height={self.height:g}: expected a number in (0, 2], the range of cosine distances; "
                "leave it out to have it calibrated"
            )
        if self.n_clusters is not None and not 1 <= self.n_clusters <= n_examples:
            raise UserError(f"--n_clusters={self.n_clusters}: expected 1 to --examples={n_examples}")
        for name in ("max_clusters", "n_restarts", "n_neighbors"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name}={getattr(self, name)}: expected at least 1")
        if not -1 <= self.min_silhouette <= 1:
            raise UserError(f"--min_silhouette={self.min_silhouette:g}: expected a number from -1 to 1")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that decides what an atlas holds. `README.md` explains each under the flag of the same name."""

    model: str = "gpt2-tiny"
    input_weights: str = "native"
    embed_by: EmbedBy = "gate_and_up"
    sae: str | None = None
    precision: str = "float32"
    corpus: str = "python-docs"
    text_field: str = "text"
    split: str = "train"
    max_sequences: int | None = 4096
    seq_len: int = 128
    first_position: int = 1
    keep: int = 128
    examples: int = 64
    selection: Selection = "fraction"
    min_fraction: float = 0.4
    max_repeats: int = 2
    clustering: Method = Clustering.method
    height: float | None = Clustering.height
    n_clusters: int | None = Clustering.n_clusters
    max_clusters: int = Clustering.max_clusters
    n_restarts: int = Clustering.n_restarts
    min_silhouette: float = Clustering.min_silhouette
    n_neighbors: int = Clustering.n_neighbors
    similar: int = 20
    min_similarity: float = 0.7
    similar_by: SimilarBy = "central"
    similar_recall: float = 1.0
    similar_examples: int = 1
    importance: bool = False
    importance_examples: int = 5
    importance_window: int = 20
    importance_by: Ablation = "padding"
    padding_token: str | None = None
    census: bool = False
    census_sequences: int | None = None
    seed: int = 0

    def how_to_cluster(self) -> Clustering:
        """The method of clustering with its settings."""
        return Clustering(self.clustering, *(getattr(self, f.name) for f in dataclasses.fields(Clustering)[1:]))

    def check(self) -> None:
        """Refuse values out of range before any work.

        Raises:
            UserError: names the flag, its value, and what was expected.
        """
        for field in dataclasses.fields(self):
            refuse_undecodable(f"--{field.name}=", getattr(self, field.name))
        choices = {
            "input_weights": ("native", "folded"),
            "embed_by": get_args(EmbedBy),
            "precision": ("float32", "bfloat16", "float16"),
            "selection": get_args(Selection),
            "clustering": get_args(Method),
            "similar_by": get_args(SimilarBy),
            "importance_by": get_args(Ablation),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise UserError(f"--{name}={getattr(self, name)}: expected one of {', '.join(known)}")
        at_least = {
            "seq_len": 3,
            "keep": 1,
            "examples": 2,
            "max_repeats": 1,
            "max_sequences": 1,
            "first_position": 0,
            "similar": 0,
            "similar_examples": 1,
            "importance_examples": 1,
            "importance_window": 1,
            "census_sequences": 1,
            "seed": 0,
        }
        for name, low in at_least.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise UserError(f"--{name}={value}: expected at least {low}")
        if not 0 <= self.min_fraction < 1:
            raise UserError(f"--min_fraction={self.min_fraction:g}: expected a fraction from 0 up to, not including, 1")
        if not -1 <= self.min_similarity < 1:
            raise UserError(
                f"--min_similarity={self.min_similarity:g}: expected a cosine from -1 up to, not including, 1"
            )
        if not 0 < self.similar_recall <= 1:
            raise UserError(f"--similar_recall={self.similar_recall:g}: expected a share above 0, at most 1 (exact)")
        if self.keep < self.examples:
            raise UserError(
                f"--keep={self.keep} is less than --examples={self.examples}: examples are chosen from those kept"
            )
        if self.first_position >= self.seq_len:
            raise UserError(f"--first_position={self.first_position}: expected less than --seq_len={self.seq_len}")
        self.how_to_cluster().check(self.examples)
