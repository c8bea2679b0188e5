"""The pictures are there and show something; what they look like was looked at."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from nejax.atlas import plots
from nejax.atlas.atlas import Atlas
from nejax.atlas.plots import BLUE, plot_measures


def share_of(image: np.ndarray, color: str) -> float:
    return float((np.abs(image[..., :3] - to_rgb(color)).max(axis=-1) < 0.01).mean())


def test_measures_are_drawn(atlas, tmp_path):
    files = plot_measures(atlas, tmp_path / "new" / "plots")
    assert [file.name for file in files] == ["neurons.png", "features.png"]
    for file in files:
        image = imread(file)
        assert image.shape[0] > 400 and image.shape[1] > 1200
        assert 0.5 < share_of(image, "white") < 0.98
        assert share_of(image, BLUE) > 0.001


def test_bars_are_the_quantiles_of_the_living_neurons(atlas):
    table = atlas.neurons_table()
    figure = plots._neurons(atlas)
    axes = {axes.get_title(): axes for axes in figure.axes}["Mean distance of examples"]
    drawn = [line.get_ydata() for line in axes.lines]
    # Two layers have living neurons; each is a line, a bar and a dot.
    assert [len(axes.lines) for axes in figure.axes] == [6] * 8
    assert figure.get_suptitle().startswith("127 neurons (65 dead ones left out) of model on corpus")
    for i, layer in enumerate((0, 2)):
        here = (table["layer"] == layer) & (table["n_examples"] > 0)
        quantiles = np.quantile(table["mean_distance"][here], [0.05, 0.95, 0.25, 0.75, 0.5])
        np.testing.assert_allclose(np.concatenate(drawn[3 * i : 3 * i + 3]), quantiles)
    limits = [axes.get_ylim() for axes in figure.axes]
    assert limits[4:] == [limits[4]] * 4  # distances are on one scale


@pytest.mark.parametrize("height", [0.3, np.nan])
def test_atlases_with_little_to_draw(atlas, tmp_path, monkeypatch, height):
    table = atlas.neurons_table()
    table["height"][:] = height
    monkeypatch.setattr(Atlas, "neurons_table", lambda self: table)
    assert all(file.stat().st_size > 10_000 for file in plot_measures(atlas, tmp_path))
