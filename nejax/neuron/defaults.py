"""Methods to split a neuron, their settings, and the defaults of these.

Nothing heavy is imported: scripts name them in their help.
"""

from typing import Any, Literal

Method = Literal["average", "components", "kmeans", "spectral"]
"""How a neuron's examples are clustered, see `nejax.neuron.split.split`."""

METHOD_SETTINGS: dict[str, tuple[str, ...]] = {
    "average": ("height",),
    "components": ("height",),
    "kmeans": ("n_clusters", "max_clusters", "n_restarts", "min_silhouette"),
    "spectral": ("n_clusters", "max_clusters", "n_restarts", "n_neighbors"),
}
"""Which settings a method uses."""

HEIGHT_QUANTILE = 0.05
"""The calibrated height is this quantile of the distances between random inputs seen through the neuron's weights."""

MAX_CLUSTERS = 20
"""The most clusters, where no other bound is given."""

N_RESTARTS = 10
"""How many starts k-means has, of which the best end is kept."""

MIN_SILHOUETTE = 0.25
"""Below this mean silhouette the answer is one cluster.

Kaufman & Rousseeuw (1990, chapter 2) take up to 0.25 for "no substantial structure", and neuron embeddings agree: for
120 neurons of the bundled GPT-2, 64 examples each, the highest silhouette over 2 to 20 clusters, by cosine distances,
was 0.29 to 0.78; with every dimension shuffled among the examples, which leaves no clusters, 0.06 to 0.24. In few
dimensions chance alone gives more: 0.36 to 0.50 by Euclidean distances for 64 points of one Gaussian in two dimensions,
0.19 to 0.27 in five.
"""

N_NEIGHBORS = 7
"""How many nearest examples each one is joined to, where no other number is given.

Fewer give finer clusters. In 100 planted problems (20 to 200 points in 50 to 768 dimensions, 1 to 10 clusters) the
eigengap shows the right number 95 times, with 3 neighbours 96 times, with 15 89 times. With all pairs joined it does so
67 times, with the scales of Zelnik-Manor & Perona as well 56 times, and with chord lengths for distances 27 times. For
200 neurons of the bundled GPT-2, 64 examples each, the median number is 8 (average linkage: 9), with 3 neighbours 15,
with 15 3.5. For Gaussians with the mean and covariance of these embeddings it is 2, and 1 for embeddings with every
dimension shuffled among the examples.
"""

MIN_SUPPORT = 5
"""The fewest examples that make a feature."""

RESOLUTION = 0.25
"""How far apart the directions of two features are at least, as a share of the distance of unrelated inputs.

In planted neurons directions of different features are half as far apart as unrelated inputs if there are two, farther
if there are more, whatever the noise: a neuron whose weights are the sum of two unit features sees both in the examples
of either. With 0.2 more splits that are real are found, and more within what one neuron calls one thing.
"""

SEPARATION = 4.1, 7.0
"""`a` and `b` of `least_separation`."""


def least_separation(fewest: Any) -> Any:
    """The separation that two groups must exceed, `a + b / m` standard deviations, `m` the examples of the smaller one.

    A dendrogram separates noise too: of all partitions it takes one of the most separated, and with few examples on a
    side there are more to choose from.
    """
    return SEPARATION[0] + SEPARATION[1] / fewest
