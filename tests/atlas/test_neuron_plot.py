"""The picture of one neuron."""

import numpy as np
from matplotlib.image import imread
from scipy.cluster.hierarchy import leaves_list

from nejax.atlas.atlas import Atlas
from nejax.atlas.neuron_plot import COLOURS, OTHER, _leaf_order, _named, plot_neuron
from nejax.neuron.clustering.average_linkage import to_scipy


def some_neurons(atlas: Atlas):
    table = atlas.neurons_table()
    ids = np.flatnonzero(table["n_examples"] >= 2)
    return [atlas.neuron(*divmod(int(i), atlas.d_mlp)) for i in ids[:: max(1, len(ids) // 10)]]


def test_leaves_are_in_the_order_in_which_no_branches_cross(atlas: Atlas):
    """SciPy's own order, whose subtrees may be mirrored: every cluster's leaves stand together in both."""
    for neuron in some_neurons(atlas):
        order = _leaf_order(np.asarray(neuron.linkage.merges), neuron.n_merges)
        assert order == leaves_list(to_scipy(neuron.linkage)).tolist()


def test_a_picture_shows_the_features_in_their_colours(atlas: Atlas, tmp_path):
    neuron = max(some_neurons(atlas), key=lambda neuron: neuron.n_features)
    picture = imread(plot_neuron(neuron, tmp_path / "new" / "neuron.png"))[..., :3]
    assert picture.shape[0] > 300 and picture.shape[1] > 800
    for colour in COLOURS[: min(neuron.n_features, len(COLOURS))]:
        rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        assert (np.abs(picture - rgb).max(axis=2) < 0.02).any(), colour
    assert OTHER not in COLOURS


def test_the_smallest_neuron(atlas: Atlas, tmp_path):
    """Two examples, whether or not they are one feature."""
    neuron = min(some_neurons(atlas), key=lambda neuron: neuron.n_examples)
    assert plot_neuron(neuron, tmp_path / "neuron.png").stat().st_size > 5_000


def test_a_single_leaf():
    assert _leaf_order(np.full((3, 4), -1.0), 0) == [0]


def test_peak_tokens_that_read_alike_are_one():
    peaks = [("is", 3), (" are", 2), ("are", 2), (" ", 1), ("\n", 1)]
    assert _named(peaks) == [("are", 4), ("is", 3), ("' '", 1), ("'\\n'", 1)]
