"""The picture of the bands: it is there, shows the quantiles of the neurons; what it looks like was looked at."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from nejax.atlas import band_plot
from nejax.atlas.band_plot import MOST_PANELS, plot_bands
from nejax.atlas.plots import BLUE, ORANGE
from nejax.errors import UserError

EDGES = np.array([0, 0.1, 0.25, 0.5, 0.75, 1])


def bands(n_layers: int, d_mlp: int = 30) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distances that fall towards the maximum, some of them missing; counts; distances over the corpus."""
    rng = np.random.default_rng(n_layers)
    counts = rng.integers(2, 100, (n_layers, d_mlp, 5))
    counts[:, :4, 3:] = 1
    distances = np.linspace(0.8, 0.4, 5) * rng.uniform(0.8, 1, (n_layers, d_mlp, 1))
    distances = np.where(counts > 1, distances, np.nan).astype(np.float32)
    return distances, counts, distances[..., 0]


def shares(file) -> list[float]:
    image = imread(file)
    colors = ("white", BLUE, ORANGE)
    return [float((np.abs(image[..., :3] - to_rgb(color)).max(axis=-1) < 0.01).mean()) for color in colors]


@pytest.mark.parametrize("n_layers", [1, 4, *(pytest.param(n, marks=pytest.mark.slow) for n in (12, 48))])
def test_a_picture_is_drawn_for_models_of_any_depth(n_layers, tmp_path):
    distances, counts, corpus = bands(n_layers)
    file = plot_bands(tmp_path / "new" / "bands.png", EDGES, distances, counts, corpus)
    assert file == tmp_path / "new" / "bands.png"
    white, blue, orange = shares(file)
    assert 0.5 < white < 0.97 and blue > 0.0005 and orange > 0.0003
    without = plot_bands(tmp_path / "without.png", EDGES, distances, counts, title="of a model")
    assert shares(without)[2] == 0


@pytest.mark.parametrize("n_layers", [3, 20])
def test_lines_are_the_quantiles_over_the_neurons_that_have_a_distance(n_layers):
    distances, counts, corpus = bands(n_layers)
    distances[0, :, 4] = np.nan
    figure = band_plot._draw(EDGES, distances, counts, corpus, None)
    low, middle, high = np.nanquantile(distances[1:], [0.25, 0.5, 0.75], axis=1)
    together, share, *panels = [axes for axes in figure.axes if axes.get_visible()]
    assert len(together.lines) == n_layers
    for line, wanted in zip(together.lines[1:], middle, strict=True):
        np.testing.assert_allclose(line.get_ydata(), wanted, rtol=1e-6)
    heights = [bar.get_height() for bar in share.patches]
    np.testing.assert_allclose(heights, counts.sum(axis=(0, 1)) / counts.sum())

    panels = [axes for axes in panels if axes.get_title().startswith("layer")]
    shown = [int(axes.get_title().split()[1]) for axes in panels]
    assert len(shown) == min(n_layers, MOST_PANELS) and shown[0] == 0 and shown[-1] == n_layers - 1
    assert len(panels[0].lines[0].get_xdata()) == 4, "a band that no neuron has is left out"
    last = panels[-1]
    np.testing.assert_allclose(last.lines[0].get_ydata(), middle[-1], rtol=1e-6)
    np.testing.assert_allclose(last.lines[1].get_ydata(), np.nanmedian(corpus[-1]), rtol=1e-6)
    outline = last.collections[0].get_paths()[0].vertices
    for band in range(5):
        at_band = outline[outline[:, 0] == band, 1]
        np.testing.assert_allclose([at_band.min(), at_band.max()], [low[-1, band], high[-1, band]], rtol=1e-6)


def test_what_does_not_fit_is_refused(tmp_path):
    distances, counts, corpus = bands(2)
    file = tmp_path / "bands.png"
    with pytest.raises(UserError, match=r"shapes \(2, 30, 5\) and \(2, 30, 4\); expected .* 5 bands between 6 edges"):
        plot_bands(file, EDGES, distances, counts[..., :4])
    with pytest.raises(UserError, match="4 bands between 5 edges"):
        plot_bands(file, EDGES[1:], distances, counts)
    with pytest.raises(UserError, match=r"corpus_distances has shape \(1, 30\); expected \(2, 30\)"):
        plot_bands(file, EDGES, distances, counts, corpus[:1])
    with pytest.raises(UserError, match="no band of any neuron has two tokens"):
        plot_bands(file, EDGES, np.full_like(distances, np.nan), counts)
    assert not file.exists()
