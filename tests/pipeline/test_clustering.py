"""Settings of a clustering: what is refused, and how it is said."""

import pytest

from nejax.errors import UserError
from nejax.pipeline.run.settings import Clustering, Settings


@pytest.mark.parametrize(
    ("clustering", "message"),
    [
        *((Clustering(height=height), r"--height=.*: expected a number in \(0, 2\]") for height in (0.0, -1.0, 2.1)),
        *((Clustering(height=float(height)), r"--height=.*\(0, 2\]") for height in ("nan", "inf", "-0.0")),
        (Clustering("kmeans", height=0.3), "--height=0.3 is not used by --clustering=kmeans: .*average or components"),
        (Clustering(n_clusters=3), "--n_clusters=3 is not used by --clustering=average: .*kmeans or spectral"),
        (Clustering("components", max_clusters=3), "--max_clusters=3 is not used by --clustering=components"),
        (Clustering("spectral", min_silhouette=0.5), "--min_silhouette=0.5 is not used by .*=spectral: .*=kmeans"),
        (Clustering("kmeans", n_neighbors=3), "--n_neighbors=3 is not used by --clustering=kmeans: .*=spectral"),
        (Clustering("kmeans", n_clusters=0), "--n_clusters=0: expected 1 to --examples=10"),
        (Clustering("spectral", n_clusters=11), "--n_clusters=11: expected 1 to --examples=10"),
        (Clustering("kmeans", max_clusters=0), "--max_clusters=0: expected at least 1"),
        (Clustering("kmeans", n_restarts=0), "--n_restarts=0: expected at least 1"),
        (Clustering("spectral", n_neighbors=0), "--n_neighbors=0: expected at least 1"),
        (Clustering("kmeans", min_silhouette=1.5), "--min_silhouette=1.5: expected a number from -1 to 1"),
        (Clustering("kmeans", min_silhouette=float("nan")), "--min_silhouette=nan: expected a number from -1 to 1"),
    ],
    ids=str,
)
def test_refused(clustering, message):
    with pytest.raises(UserError, match=message):
        clustering.check(10)


@pytest.mark.parametrize(
    "clustering",
    [
        *(Clustering(height=height) for height in (None, 1e-6, 0.05, 2.0)),
        Clustering("components", height=1.0),
        Clustering("kmeans", n_clusters=10),
        Clustering("kmeans", max_clusters=50, n_restarts=1, min_silhouette=-1.0),
        Clustering("spectral", n_clusters=1, n_neighbors=50, n_restarts=2),
    ],
    ids=str,
)
def test_not_refused(clustering):
    clustering.check(10)


def test_the_settings_of_a_run_hold_those_of_its_clustering():
    settings = Settings(clustering="spectral", n_clusters=4, n_restarts=3, n_neighbors=5)
    assert settings.how_to_cluster() == Clustering("spectral", n_clusters=4, n_restarts=3, n_neighbors=5)
    assert Settings().how_to_cluster() == Clustering()
    with pytest.raises(UserError, match="--examples=64"):
        Settings(clustering="kmeans", n_clusters=65).check()
