import jax
import jaxtyping
import numpy as np
import pytest

from nejax.errors import UserError
from nejax.neuron.clustering.average_linkage import average_linkage
from nejax.neuron.clustering.connected_components import connected_components
from nejax.neuron.clustering.kernel_kmeans import kmeans_from_distances
from nejax.neuron.clustering.quality import adjusted_rand_index, silhouette
from nejax.neuron.clustering.spectral import affinity, spectral
from nejax.neuron.clusters import central_examples, cohesion
from nejax.neuron.polysemanticity import polysemanticity


@pytest.fixture
def no_shape_checks():
    """What a user meets who does not run jaxtyping's checks."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


KEY = jax.random.key(0)
FUNCTIONS = {
    "mask": (
        average_linkage,
        lambda distances, mask: connected_components(distances, 0.1, mask),
        lambda distances, mask: kmeans_from_distances(distances, 2, key=KEY, mask=mask),
        lambda distances, mask: spectral(distances, 2, key=KEY, mask=mask),
        affinity,
    ),
    "labels": (polysemanticity, cohesion, central_examples, silhouette),
}
CASES = [(name, function) for name, functions in FUNCTIONS.items() for function in functions]


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 3), (0, 0), (3, 1), (3,)])
@pytest.mark.parametrize(("name", "function"), CASES)
def test_distances_that_are_not_square_are_refused(no_shape_checks, name, function, shape):
    rows = np.ones(shape[0], bool if name == "mask" else np.int32)
    with pytest.raises(UserError, match=r"distances have shape .*expected \[n, n\]"):
        function(np.zeros(shape, np.float32), rows)


@pytest.mark.parametrize("shape", [(3,), (1,), (4, 4), ()])
@pytest.mark.parametrize(("name", "function"), CASES)
def test_a_mask_or_labels_of_another_length_are_refused(no_shape_checks, name, function, shape):
    rows = np.ones(shape, bool if name == "mask" else np.int32)
    with pytest.raises(UserError, match=rf"{name} ha(s|ve) shape .*expected \[n\]"):
        function(np.zeros((4, 4), np.float32), rows)


def test_labelings_of_other_rows_are_refused(no_shape_checks):
    with pytest.raises(UserError, match=r"b has shape \(4,\); expected \[n\] with n = 3, as in a"):
        adjusted_rand_index(np.zeros(3, np.int32), np.zeros(4, np.int32))
