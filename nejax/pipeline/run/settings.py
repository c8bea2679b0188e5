"""The settings of a run, in groups; what their values mean, and which are refused, is said once, here.

Nothing heavy is imported: scripts make their flags of it.
"""

import dataclasses
import difflib
import functools
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from nejax.errors import SettingError, UserError, literal
from nejax.models.choices import EmbedBy
from nejax.neuron.defaults import (
    HEIGHT_QUANTILE,
    MAX_CLUSTERS,
    METHOD_SETTINGS,
    MIN_SILHOUETTE,
    N_NEIGHBORS,
    N_RESTARTS,
    Method,
)
from nejax.pipeline.run.constants import CONTEXT, N_REFERENCE
from nejax.setting import Group, Interval, Setting, setting, settings_in

InputWeights = Literal["native", "folded"]

Precision = Literal["float32", "bfloat16", "float16"]

Selection = Literal["fraction", "top", "quantiles"]

SimilarBy = Literal["central", "mean"]
"""Which inputs of two features are compared: those of their central examples, or the means over their examples."""

Ablation = Literal["padding", "deletion", "mean", "gradient"]
"""What stands for a token that is ablated, see `nejax.pipeline.stages.importance`."""


@dataclasses.dataclass(frozen=True)
class ModelSettings(Group):
    """Which neurons there are, and how they are read."""

    SUBJECT: ClassVar[str] = "The model, whose neurons are split"

    name: str = setting(
        "gpt2-tiny",
        "gpt2-tiny (comes with the package), smollm2, gpt2, gpt2-medium, gpt2-large, gpt2-xl, distilgpt2, a Hub id, a "
        "directory in the layout of Hugging Face (safetensors), or a .gguf file. GPT-2s and Llama-style models.",
        name="model",
    )
    input_weights: InputWeights = setting(
        "native",
        "The model's own input weights, or with LayerNorm's scale folded into them and centred, as the paper read "
        "GPT-2: activations are the same, embeddings are not.",
    )
    embed_by: EmbedBy = setting(
        "gate_and_up",
        "Gated neurons have two input vectors: that of the gate alone embeds an example, or both together, see "
        "docs/gated.md.",
    )
    sae: str | None = setting(
        None, "A sparse autoencoder on this model, a folder or a name on the Hub: its latents are the neurons."
    )
    precision: Precision = setting("float32", "Of weights and products. Sums and LayerNorm are float32 always.")


@dataclasses.dataclass(frozen=True)
class CorpusSettings(Group):
    """The text that is read, and how it is cut."""

    SUBJECT: ClassVar[str] = "The corpus"

    source: str = setting(
        "python-docs",
        "python-docs (in every Python installation), a file or folder of .txt, .md, .rst, .jsonl, .parquet, also with "
        ".gz, .xz, .zst; - for standard input; or a Hub dataset NAME or NAME:CONFIG, which is streamed.",
        name="corpus",
    )
    text_field: str = setting("text", "The field that holds the text, where there are fields.")
    split: str = setting("train", "The split of a Hub dataset.")
    max_sequences: int | None = setting(
        4096, "Stop reading after so many sequences. None, or 0 on a command line: read all.", at_least=1
    )
    seq_len: int = setting(128, "Tokens a sequence, the beginning-of-text token included.", at_least=3)


@dataclasses.dataclass(frozen=True)
class ExampleSettings(Group):
    """Which examples a neuron has."""

    SUBJECT: ClassVar[str] = "Examples of a neuron"

    n: int = setting(64, "At most so many examples a neuron are embedded and clustered.", name="examples", at_least=2)
    keep: int = setting(128, "Best examples kept of each neuron; its examples are chosen from them.", at_least=1)
    selection: Selection = setting(
        "fraction", "Of those kept: above a fraction of the maximum, the strongest, or evenly over their ranks."
    )
    min_fraction: float = setting(
        0.4, "The fraction of the maximum, for {selection}=fraction.", within=Interval(0, 1, "[)", "a fraction")
    )
    max_repeats: int = setting(2, f"Examples with the same {CONTEXT} tokens up to the peak that may stand.", at_least=1)
    first_position: int = setting(
        1, "The first position that may be a peak; 0 allows that of the beginning-of-text token.", at_least=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep < self.n:
            raise SettingError(
                "keep", self.keep, f"at least {{examples}}={self.n}", "examples are chosen from those kept"
            )


@dataclasses.dataclass(frozen=True)
class Clustering(Group):
    """A method and its settings; those of other methods stay as they are here."""

    SUBJECT: ClassVar[str] = "Features, clusters of examples"
    READ_BY: ClassVar[str | None] = "features"

    method: Method = setting(
        "average",
        "Average linkage cut at a height, connected components of the pairs at most that far apart, spherical k-means, "
        "or spectral clustering.",
        name="clustering",
    )
    height: float | None = setting(
        None,
        "average, components: cut height for all neurons, a cosine distance. Default: each neuron's own, the "
        f"{HEIGHT_QUANTILE:.0%} quantile of the distances between {N_REFERENCE} random inputs through its weights.",
        within=Interval(0, 2, "(]", "a cosine distance"),
        mend="leave it out to have it calibrated",
    )
    n_clusters: int | None = setting(
        None,
        "kmeans, spectral: features of every neuron (fewer where it has fewer examples). Default: each neuron's own, "
        "by silhouette or by eigengap.",
        at_least=1,
    )
    max_clusters: int = setting(MAX_CLUSTERS, "kmeans, spectral: the most that are chosen for a neuron.", at_least=1)
    n_restarts: int = setting(N_RESTARTS, "kmeans, spectral: starts of k-means.", at_least=1)
    min_silhouette: float = setting(
        MIN_SILHOUETTE,
        "kmeans: mean silhouette that several features must exceed; otherwise the neuron has one.",
        within=Interval(-1, 1),
    )
    n_neighbors: int = setting(
        N_NEIGHBORS, "spectral: the neighbour whose distance is an example's own scale in the affinity.", at_least=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for one in settings_in(Clustering)[1:]:
            value = getattr(self, one.field)
            if value != one.default and one.field not in METHOD_SETTINGS[self.method]:
                heeding = " or ".join(method for method, own in METHOD_SETTINGS.items() if one.field in own)
                raise SettingError(
                    one.name,
                    value,
                    f"nothing, as {{clustering}}={self.method} does not use it",
                    f"leave it out, or take {{clustering}}={heeding}",
                )

    @property
    def has_height(self) -> bool:
        """Whether clusters end at a distance."""
        return "height" in METHOD_SETTINGS[self.method]

    def options(self) -> dict[str, Any]:
        """All but the height, by the names that `nejax.neuron.split.split` gives them."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "height"}

    def check(self, n_examples: int) -> None:
        """Refuse more clusters than a neuron has examples.

        Raises:
            SettingError: it asks for them.
        """
        if self.n_clusters is not None and self.n_clusters > n_examples:
            raise SettingError("n_clusters", self.n_clusters, f"1 to {{examples}}={n_examples}")


@dataclasses.dataclass(frozen=True)
class SimilarSettings(Group):
    """The features of other neurons that are listed as similar."""

    SUBJECT: ClassVar[str] = "Similar features"
    READ_BY: ClassVar[str | None] = "similar"

    n: int = setting(
        20, "Most similar features of other neurons, listed for each; 0: none.", name="similar", at_least=0
    )
    threshold: float = setting(
        0.7,
        "The cosine between the inputs of two features that must be exceeded for them to count as similar.",
        name="similar_threshold",
        within=Interval(-1, 1, "[)", "a cosine"),
    )
    by: SimilarBy = setting(
        "central", "Inputs compared: of central examples, or their means over a feature's examples.", name="similar_by"
    )
    recall: float = setting(
        1.0,
        "Below 1: an approximate search, which pays on a TPU.",
        name="similar_recall",
        within=Interval(0, 1, "(]", "a share"),
    )
    least_examples: int = setting(
        1,
        "Only features with so many examples are compared: the work grows with the square of their number.",
        name="similar_examples",
        at_least=1,
    )


@dataclasses.dataclass(frozen=True)
class ImportanceSettings(Group):
    """Which earlier tokens the examples of a feature need."""

    SUBJECT: ClassVar[str] = "Importance of earlier tokens"
    READ_BY: ClassVar[str | None] = "importance"

    wanted: bool = setting(False, "Measure which earlier tokens every feature's examples need.", name="importance")
    n_examples: int = setting(5, "Of each feature, the most central so many.", name="importance_examples", at_least=1)
    window: int = setting(20, "Tokens before the peak that are ablated.", name="importance_window", at_least=1)
    by: Ablation = setting(
        "padding",
        "A token is replaced by padding (as in the paper), left out, replaced by the mean input, or its loss is "
        "estimated by the gradient.",
        name="importance_by",
    )
    padding_token: str | None = setting(None, "Stands for a token. Default: the model's padding or BOS.")


@dataclasses.dataclass(frozen=True)
class CensusSettings(Group):
    """How often features occur in the whole corpus."""

    SUBJECT: ClassVar[str] = "Census of the corpus"
    READ_BY: ClassVar[str | None] = "census"

    wanted: bool = setting(
        False, "Read the corpus again: features' frequency, mean distances by activation.", name="census"
    )
    n_sequences: int | None = setting(
        None, "A random sample of so many sequences. Default: all.", name="census_sequences", at_least=1
    )


@dataclasses.dataclass(frozen=True)
class Settings(Group):
    """Everything that decides what an atlas holds; README.md explains each setting under its name.

    Names are those of the command line, without dashes. The same settings stand in groups, which the stages of a run
    read: `model`, `corpus`, `examples`, `clustering`, `similar`, `importance`, `census`, and `seed`.

    Raises:
        SettingError: a value is out of range, or does not fit another; it is refused when the settings are made.

    Example:
        >>> settings = nejax.Settings.of(model="gpt2", seq_len=256, clustering="kmeans")
        >>> settings.corpus.seq_len, settings.clustering.method, settings.examples.n
        (256, 'kmeans', 64)
        >>> settings.but(n_clusters=8).by_name()["n_clusters"]
        8
    """

    SUBJECT: ClassVar[str] = "The run"

    model: ModelSettings = dataclasses.field(default_factory=ModelSettings)
    corpus: CorpusSettings = dataclasses.field(default_factory=CorpusSettings)
    examples: ExampleSettings = dataclasses.field(default_factory=ExampleSettings)
    clustering: Clustering = dataclasses.field(default_factory=Clustering)
    similar: SimilarSettings = dataclasses.field(default_factory=SimilarSettings)
    importance: ImportanceSettings = dataclasses.field(default_factory=ImportanceSettings)
    census: CensusSettings = dataclasses.field(default_factory=CensusSettings)
    seed: int = setting(0, "Of the random inputs, and of the starts of k-means.", at_least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        first, seq_len = self.examples.first_position, self.corpus.seq_len
        if first >= seq_len:
            raise SettingError("first_position", first, f"less than {{seq_len}}={seq_len}")
        self.clustering.check(self.examples.n)

    @classmethod
    def of(cls, **values: Any) -> "Settings":
        """The defaults but for some settings, by name.

        Raises:
            SettingError: a value cannot be.
            UserError: there is no such setting.
        """
        return cls().but(**values)

    def but(self, **values: Any) -> "Settings":
        """These settings but for some, by name.

        Raises:
            SettingError: a value cannot be.
            UserError: there is no such setting.
        """
        changes: dict[str, dict[str, Any]] = {}
        for name, value in values.items():
            group, one = _place_of(name)
            one.check(value)
            changes.setdefault(group, {})[one.field] = value
        own = changes.pop("", {})
        groups = {group: dataclasses.replace(getattr(self, group), **those) for group, those in changes.items()}
        return dataclasses.replace(self, **groups, **own)

    def by_name(self) -> dict[str, Any]:
        """All settings by name, as a manifest holds them; `Settings.of` takes them back."""
        return {
            name: getattr(getattr(self, group) if group else self, one.field)
            for name, (group, one) in settings_by_name().items()
        }


GROUPS: Mapping[str, type[Group]] = {
    field.name: field.default_factory  # pyright: ignore[reportAssignmentType]
    for field in dataclasses.fields(Settings)
    if "setting" not in field.metadata
}
"""The groups of `Settings`, by the name of their field."""


@functools.cache
def settings_by_name() -> Mapping[str, tuple[str, Setting]]:
    """Of every setting by its name, the group that it is in ("" for none), and what it is."""
    groups = {**GROUPS, "": Settings}
    return {one.name: (group, one) for group, of in groups.items() for one in settings_in(of)}


def _place_of(name: str) -> tuple[str, Setting]:
    known = settings_by_name()
    if name not in known:
        near = difflib.get_close_matches(name, known)
        raise UserError(f"there is no setting {name!r}", f"expected {' or '.join(near)}" if near else "")
    return known[name]


def check_seq_len(seq_len: int, n_positions: int, model: str) -> None:
    """Refuse sequences that are longer than a model can read.

    Raises:
        SettingError: names how many positions it has.
    """
    if seq_len > n_positions:
        raise SettingError("seq_len", seq_len, literal(f"at most {n_positions}, as many positions as {model} has"))


def decided_late() -> dict[str, str]:
    """Of every setting that one stage alone reads: that stage. While it is not done, the setting may change."""
    stages = {name: GROUPS[group].READ_BY for name, (group, _) in settings_by_name().items() if group}
    return {name: stage for name, stage in stages.items() if stage}
