"""What `split` refuses. What it finds is compared with SciPy and NumPy in `tests/pipeline/test_features.py`."""

import jax
import numpy as np
import pytest

from nejax.errors import UserError
from nejax.neuron.split import calibrated_height, split

X, W = np.eye(4)[[0, 0, 1, 1, 1, 2]], np.ones(4)
KEY = jax.random.key(0)
BAD = {
    "no such method": ({"method": "ward"}, "method is 'ward'; expected one of average, components, kmeans, spectral"),
    "no height": ({}, r"height is missing: method 'average' needs one; .* such as calibrated_height\(reference, w\)"),
    "two heights": ({"height": [0.1, 0.2]}, r"height has shape \(2,\); expected one number"),
    "a height of no use": ({"height": 0.3, "method": "kmeans", "key": KEY}, "height is not used by method 'kmeans'"),
    "a number of no use": ({"height": 0.3, "n_clusters": 2}, "n_clusters is not used by method 'average'"),
    "neighbours of no use": ({"method": "kmeans", "key": KEY, "n_neighbors": 3}, "n_neighbors is not used by"),
    "no key": ({"method": "spectral"}, "key is missing: method 'spectral' starts at random; pass one"),
    "a number for a key": ({"method": "kmeans", "key": 7}, "key is 7; expected a random key"),
    "too many clusters": ({"method": "kmeans", "key": KEY, "n_clusters": 7}, "n_clusters is 7; expected 1 to 6"),
    "no clusters": ({"method": "spectral", "key": KEY, "max_clusters": 0}, "max_clusters is 0; expected at least 1"),
    "no starts": ({"method": "kmeans", "key": KEY, "n_restarts": 0}, "n_restarts is 0; expected at least 1"),
    "a short mask": ({"height": 0.3, "mask": [True]}, r"mask has shape \(1,\); expected \[n\] with n = 6, as in x"),
}


@pytest.mark.parametrize(("options", "said"), BAD.values(), ids=BAD)
def test_what_is_missing_unused_or_out_of_range_is_refused_in_one_line(options, said):
    with pytest.raises(UserError, match=said) as error:
        split(X, W, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("reference", "quantile", "said"),
    [
        (X[:1], 0.05, r"reference has shape \(1, 4\); expected at least 2 rows"),
        (X[:0], 0.05, r"reference has shape \(0, 4\); expected at least 2 rows"),
        (X, 0.0, "quantile is 0.0; expected a number between 0 and 1"),
        (X, 1.5, "quantile is 1.5; expected"),
        (X, float("nan"), "quantile is nan; expected"),
    ],
)
def test_what_no_height_is_calibrated_by(reference, quantile, said):
    with pytest.raises(UserError, match=said):
        calibrated_height(reference, W, quantile)


def test_a_neuron_of_one_line_is_split_by_the_number_that_is_asked_for():
    """More clusters than unmasked examples: as many as these."""
    found = split(X, W, mask=np.arange(6) % 2 == 0, key=KEY, method="kmeans", n_clusters=3)
    assert found.label.tolist() == [1, -1, 0, -1, 0, -1] and np.isnan(found.height)
