"""The measures of neurons that the explorer shows, colours by and sorts by."""

from typing import NamedTuple

from nejax.atlas.rows import NeuronRow, columns_of


class Column(NamedTuple):
    """One measure of the table `neurons`."""

    name: str
    """Of the field of `NeuronRow`."""
    title: str
    help: str
    """What it says, in one sentence."""
    integer: bool
    unit: str
    """"%": a share from 0 to 1, shown times a hundred."""


def _column(name: str, title: str, help: str, unit: str = "") -> Column:
    return Column(name, title, help, columns_of(NeuronRow)[name].type is int, unit)


COLUMNS = (
    _column("n_examples", "Examples", "How many examples were embedded and clustered; 0: the neuron is dead."),
    _column("n_features", "Features", "How many clusters its examples fall into."),
    _column(
        "repeats_left_out",
        "Near-duplicates",
        "How many near-duplicates were left out: strong enough, but their tokens up to the peak are those of others.",
    ),
    _column("max_activation", "Max activation", "The highest activation in the corpus."),
    _column("firing_rate", "Firing rate", "Share of the corpus's tokens at which the activation is above 0.", unit="%"),
    _column("mean", "Mean", "Mean activation over the corpus."),
    _column("variance", "Variance", "Variance of the activation over the corpus."),
    _column(
        "skewness", "Skewness", "Skewness of the activation over the corpus: above 0, the long tail is at the top."
    ),
    _column("kurtosis", "Kurtosis", "Kurtosis of the activation over the corpus: 3 for a normal distribution."),
    _column("max_distance", "Max distance", "The largest cosine distance between two of its neuron embeddings."),
    _column(
        "mean_distance",
        "Mean distance",
        "Mean cosine distance between its neuron embeddings: how polysemantic the neuron is.",
    ),
    _column(
        "intra_cluster_distance", "Distance within", "Mean distance over the pairs of examples of the same feature."
    ),
    _column("inter_cluster_distance", "Distance between", "Mean distance over the pairs of different features."),
    _column("silhouette", "Silhouette", "Mean silhouette of its examples: near 1, the features are far apart."),
    _column("height", "Cut height", "The cosine distance at which its dendrogram was cut into features."),
    _column(
        "coordinates_share",
        "Map's share",
        "Share of the embeddings' variance that the two dimensions of the map show.",
        unit="%",
    ),
)
"""Those of every atlas, in the order in which they are offered."""

CENSUS_COLUMNS = (
    _column(
        "corpus_mean_distance",
        "Mean distance everywhere",
        "Mean cosine distance between the embeddings of all tokens of the census at which it fires, not of its "
        "examples alone.",
    ),
    _column(
        "coverage",
        "Coverage",
        "Share of its activation in the census that is at tokens which one of its features explains.",
        unit="%",
    ),
)
"""Those that only an atlas with a census has."""


def offered(*, has_census: bool) -> tuple[Column, ...]:
    """The measures of an atlas, in the order in which they are offered."""
    return COLUMNS + CENSUS_COLUMNS if has_census else COLUMNS
