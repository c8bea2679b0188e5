"""The measures of neurons that the explorer shows, colours by and sorts by."""

from typing import NamedTuple


class Column(NamedTuple):
    """One measure of the table `neurons`."""

    name: str
    """Of the table's column."""
    title: str
    help: str
    """What it says, in one sentence."""
    integer: bool = False
    unit: str = ""
    """"%": a share from 0 to 1, shown times a hundred."""


COLUMNS = (
    Column("n_examples", "Examples", "How many examples were embedded and clustered; 0: the neuron is dead.", True),
    Column("n_features", "Features", "How many clusters its examples fall into.", True),
    Column(
        "repeats_left_out",
        "Near-duplicates",
        "How many near-duplicates were left out: strong enough, but their tokens up to the peak are those of others.",
        True,
    ),
    Column("max_activation", "Max activation", "The highest activation in the corpus."),
    Column("firing_rate", "Firing rate", "Share of the corpus's tokens at which the activation is above 0.", unit="%"),
    Column("mean", "Mean", "Mean activation over the corpus."),
    Column("variance", "Variance", "Variance of the activation over the corpus."),
    Column("skewness", "Skewness", "Skewness of the activation over the corpus: above 0, the long tail is at the top."),
    Column("kurtosis", "Kurtosis", "Kurtosis of the activation over the corpus: 3 for a normal distribution."),
    Column("max_distance", "Max distance", "The largest cosine distance between two of its neuron embeddings."),
    Column(
        "mean_distance",
        "Mean distance",
        "Mean cosine distance between its neuron embeddings: how polysemantic the neuron is.",
    ),
    Column(
        "intra_cluster_distance", "Distance within", "Mean distance over the pairs of examples of the same feature."
    ),
    Column("inter_cluster_distance", "Distance between", "Mean distance over the pairs of different features."),
    Column("silhouette", "Silhouette", "Mean silhouette of its examples: near 1, the features are far apart."),
    Column("height", "Cut height", "The cosine distance at which its dendrogram was cut into features."),
    Column(
        "coordinates_share",
        "Map's share",
        "Share of the embeddings' variance that the two dimensions of the map show.",
        unit="%",
    ),
)
"""Those of every atlas, in the order in which they are offered."""

CENSUS_COLUMNS = (
    Column(
        "corpus_mean_distance",
        "Mean distance everywhere",
        "Mean cosine distance between the embeddings of all tokens of the census at which it fires, not of its "
        "examples alone.",
    ),
    Column(
        "coverage",
        "Coverage",
        "Share of its activation in the census that is at tokens which one of its features explains.",
        unit="%",
    ),
)
"""Those that only an atlas with a census has."""


def columns_of(*, has_census: bool) -> tuple[Column, ...]:
    """The measures of an atlas, in the order in which they are offered."""
    return COLUMNS + CENSUS_COLUMNS if has_census else COLUMNS
