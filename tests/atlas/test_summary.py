"""The summary names what there is, and ranks by what it says."""

import re
from pathlib import Path

import pandas as pd
import pytest
from small_run import D_MLP

from nejax.atlas.atlas import Atlas
from nejax.atlas.summary import _numbers, summarize


@pytest.fixture(scope="module")
def summary(atlas: Atlas) -> str:
    return summarize(atlas)


def test_what_it_was_made_of(summary, atlas, settings, run):
    assert f"{settings.model.name} (native input weights, float32): 3 layers of 64 neurons" in summary
    counts = run.directory.manifest["stages"]["tokens"]
    assert f"{settings.corpus.source}: {counts['tokens']:,} tokens in {counts['sequences']} sequences" in summary
    assert "192, 65 of them dead" in summary
    left = atlas.neurons_table()["repeats_left_out"]
    most = settings.examples.max_repeats
    assert (
        f"  left out  {left.sum():,} near-duplicates, in {(left > 0).sum()} neurons: at most {most} may have" in summary
    )
    assert "calibrated for each neuron" in summary
    assert f"nejax.open_atlas({str(atlas.path)!r})" in summary
    for name in ("atlas.sqlite", "directions.npy", "tokenizer"):
        assert name in summary


def test_how_it_is_explored(summary, atlas, tmp_path, monkeypatch):
    assert f"  python experiments/explore.py --atlas={atlas.path}\n" in summary and "make explore" not in summary
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "demo").symlink_to(atlas.path.parent)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(atlas, "path", Path("runs/demo/atlas"))
    assert "\n  make explore\n" in summarize(atlas)


def test_what_the_corpus_left_out_is_a_line_each(atlas, monkeypatch):
    facts = atlas.manifest["stages"]["tokens"]
    n = facts["documents_read"]
    for name, value in {"skipped": {}, "duplicate_sequences": 0, "short_windows": 0}.items():
        monkeypatch.setitem(facts, name, value)
    plain = summarize(atlas)
    assert "left out, " not in plain and "WARNING" not in plain
    monkeypatch.setitem(facts, "skipped", {"undecodable": n, "broken link": 1, "empty": 0})
    monkeypatch.setitem(facts, "duplicate_sequences", 1)
    lines = summarize(atlas).splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("  corpus "))
    assert lines[first].endswith(f" from {n} documents")
    assert [line.removeprefix(" " * 12) for line in lines[first + 1 : first + 5]] == [
        f"WARNING: {(n + 1) / (2 * n + 1):.0%} of the corpus's documents could not be used",
        f"left out, undecodable: {n}",
        "left out, broken link: 1",
        "left out, sequence that repeats another: 1",
    ]
    assert lines[first + 5].startswith("  neurons ")


def test_layers(summary, atlas):
    frame = pd.DataFrame(atlas.neurons_table())
    lines = [line.split() for line in summary.splitlines() if re.match(r" +\d+ +\d+ +", line)]
    assert [int(line[0]) for line in lines] == [0, 1, 2]
    assert [int(line[1]) for line in lines] == [1, D_MLP, 0]
    assert lines[1][2:] == ["-"] * 7
    columns = [
        "n_examples",
        "n_features",
        "mean_distance",
        "intra_cluster_distance",
        "inter_cluster_distance",
        "height",
    ]
    for layer in (0, 2):
        alive = frame[(frame["layer"] == layer) & (frame["n_examples"] > 0)]
        for text, name in zip(lines[layer][2:8], columns, strict=True):
            assert float(text) == pytest.approx(alive[name].median(), abs=0.0051 if "." in text else 0.51), name


def test_most_and_least_polysemantic(summary, atlas):
    frame = pd.DataFrame(atlas.neurons_table())
    features = pd.DataFrame(atlas.features_table())
    large = features[features["n_examples"] >= 3].groupby("neuron_id").size()
    frame["n_large"] = frame["id"].map(large).fillna(0)
    enough = frame[frame["n_examples"] >= 6]  # half of the 12 examples of this run
    most = enough[enough["n_large"] >= 2].nlargest(5, "mean_distance")
    least = enough.nsmallest(5, "mean_distance")
    assert "of the neurons with 6 examples or more\nand two features of 3 or more" in summary
    named = re.findall(r"layer (\d+), neuron (\d+): mean distance (\S+), ", summary)
    expected = [
        (str(row["layer"]), str(row["neuron"]), f"{row['mean_distance']:.2f}")
        for part in (most, least)
        for _, row in part.astype(object).iterrows()
    ]
    assert named == expected


def test_text_of_two_features_with_the_peaks_below_each_other(summary, atlas):
    _, most, _ = re.split(r"\n(?=Most|Least)", summary)
    layer, index = map(int, re.findall(r"layer (\d+), neuron (\d+)", most)[0])
    lines = most.splitlines()
    start = next(i for i, line in enumerate(lines) if f"layer {layer}, neuron {index}:" in line) + 1
    block = lines[start : lines.index("", start)]
    for feature in atlas.neuron(layer, index).features[:2]:
        first = next(i for i, line in enumerate(block) if f"feature {feature.index} ({feature.n_examples}) " in line)
        assert f"[[{feature.central.around_peak()[1]}]]" in block[first]
    assert len(block) >= 5
    assert len({line.index("[[") for line in block}) == 1


def test_it_fits_a_terminal(summary, atlas, settings):
    for line in summary.splitlines():
        assert len(line) <= 100 or any(
            name in line for name in (settings.model.name, settings.corpus.source, str(atlas.path))
        )


def test_an_atlas_of_dead_neurons_and_fixed_heights(atlas, monkeypatch):
    table = atlas.neurons_table()
    table["n_examples"][:] = 1
    monkeypatch.setattr(Atlas, "neurons_table", lambda self: table)
    monkeypatch.setitem(atlas.manifest["settings"], "height", 0.3)
    summary = summarize(atlas)
    assert summary.count("\n\n  none") == 2
    assert ", as set" in summary
    assert "192, none of them dead" in summary


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"clustering": "kmeans"}, "spherical k-means: their number chosen by silhouette, at most 20"),
        ({"clustering": "spectral", "n_clusters": 5}, "spectral clustering: 5"),
        ({"clustering": "components", "height": 0.3}, "connected components cut at a cosine distance of"),
    ],
)
def test_how_it_was_clustered(changed, line, atlas, monkeypatch):
    for name, value in changed.items():
        monkeypatch.setitem(atlas.manifest["settings"], name, value)
    summary = summarize(atlas)
    assert f"  clusters  {line}" in summary and "  quality   silhouette " in summary


def test_how_far_from_float32():
    exact = {"mlp_input_difference": 0.0, "mlp_input": 4.0, "activation_difference": 0.0, "activation": 2.0}
    assert "equal to float32's to the last bit" in _numbers([exact, exact])
    half = exact | {"mlp_input_difference": 0.08, "activation_difference": 0.01}
    assert _numbers([exact, half]).startswith("within 2e-02 (MLP inputs) and 5e-03 (activations) of float32's")
