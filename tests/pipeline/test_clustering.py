"""Settings of a clustering: what is refused, and how it is said."""

import pytest

from nejax.errors import SettingError
from nejax.pipeline.run.settings import Clustering

NO_USE = "=.*: expected nothing, as clustering={} does not use it; leave it out, or take clustering={}$"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        *(({"height": height}, r"height=.*: expected a cosine distance in \(0, 2\]") for height in (0.0, -1.0, 2.1)),
        *(({"height": float(height)}, r"height=.*\(0, 2\]") for height in ("nan", "inf", "-0.0")),
        ({"method": "kmeans", "height": 0.3}, "height" + NO_USE.format("kmeans", "average or components")),
        ({"n_clusters": 3}, "n_clusters" + NO_USE.format("average", "kmeans or spectral")),
        (
            {"method": "components", "max_clusters": 3},
            "max_clusters" + NO_USE.format("components", "kmeans or spectral"),
        ),
        ({"method": "spectral", "min_silhouette": 0.5}, "min_silhouette" + NO_USE.format("spectral", "kmeans")),
        ({"method": "kmeans", "n_neighbors": 3}, "n_neighbors" + NO_USE.format("kmeans", "spectral")),
        ({"method": "kmeans", "n_clusters": 0}, "n_clusters=0: expected at least 1"),
        ({"method": "kmeans", "max_clusters": 0}, "max_clusters=0: expected at least 1"),
        ({"method": "kmeans", "n_restarts": 0}, "n_restarts=0: expected at least 1"),
        ({"method": "spectral", "n_neighbors": 0}, "n_neighbors=0: expected at least 1"),
        ({"method": "kmeans", "min_silhouette": 1.5}, r"min_silhouette=1.5: expected a number in \[-1, 1\]"),
        ({"method": "kmeans", "min_silhouette": float("nan")}, r"min_silhouette=nan: expected a number in \[-1, 1\]"),
    ],
    ids=str,
)
def test_refused(settings, message):
    with pytest.raises(SettingError, match=f"^{message}"):
        Clustering(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        *({"height": height} for height in (None, 1e-6, 0.05, 2.0)),
        {"method": "components", "height": 1.0},
        {"method": "kmeans", "n_clusters": 10},
        {"method": "kmeans", "max_clusters": 50, "n_restarts": 1, "min_silhouette": -1.0},
        {"method": "spectral", "n_clusters": 1, "n_neighbors": 50, "n_restarts": 2},
    ],
    ids=str,
)
def test_not_refused(settings):
    Clustering(**settings).check(10)


def test_more_clusters_than_examples_are_refused():
    with pytest.raises(SettingError, match=r"^n_clusters=11: expected 1 to examples=10$"):
        Clustering("spectral", n_clusters=11).check(10)
