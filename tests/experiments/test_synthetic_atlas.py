"""Atlases without a model: they hold together as those of real runs do, whatever the text."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.python_text import python_installation
from benchmarks.synthetic_atlas import Sizes, synthetic_atlas
from nejax.atlas.atlas import Atlas, open_atlas
from nejax.pipeline.corpus.documents import Document

pytestmark = pytest.mark.slow

SIZES = Sizes(n_layers=2, d_mlp=24, d_model=16, n_examples=12, n_sequences=60, seq_len=32, vocab_size=400)
LONG = "x" * 10_000
HOSTILE = ["<script>alert(1)</script>", "\u202eright to left\u202c", "\x01\x1b[31m\x7f", "👩‍👩‍👧", LONG]


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    plain = "In a hole in the ground there lived a number. "
    return [
        Document(f"document {i}", plain * 2 + f" {text} and {i} " * (20 if text != LONG else 4))
        for i, text in enumerate(HOSTILE)
    ]


def made(folder: Path, documents: list[Document] | None, sizes: Sizes = SIZES) -> Atlas:
    return open_atlas(synthetic_atlas(folder, sizes, documents, HOSTILE[:2] + [LONG], quiet=True))


@pytest.fixture(scope="module")
def atlas(documents: list[Document], tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    return made(tmp_path_factory.mktemp("synthetic"), documents)


def test_its_text_is_the_text_given(atlas, documents):
    assert (atlas.n_layers, atlas.d_mlp, atlas.d_model) == SIZES[:3]
    texts = dict(documents)
    for sequence in range(atlas.n_sequences):  # half a character may stand at an end
        assert atlas.text(sequence).strip("\ufffd") in texts[atlas.document(sequence)]
    pieces = {piece for sequence in range(atlas.n_sequences) for piece in atlas.pieces(sequence)}
    assert {HOSTILE[0], HOSTILE[1], LONG} <= pieces


def test_neurons_and_examples_fit_together(atlas):
    for layer in range(atlas.n_layers):
        for index in range(atlas.d_mlp):
            neuron = atlas.neuron(layer, index)
            assert 1 < neuron.n_examples <= SIZES.n_examples and 1 <= neuron.n_features <= neuron.n_examples
            activations = [example.activation for example in neuron.examples]
            assert activations == sorted(activations, reverse=True) and activations[-1] > 0
            assert neuron.max_activation == pytest.approx(activations[0])
            assert len({(e.sequence, e.position) for e in neuron.examples}) == neuron.n_examples
            for example in neuron.examples:
                assert 0 < example.position < len(atlas.tokens(example.sequence))
                assert np.isfinite(example.activations).all()
                assert example.activations[example.peak] == pytest.approx(example.activation, rel=1e-3)  # float16
            assert sum(feature.n_examples for feature in neuron.features) == neuron.n_examples
            assert neuron.mean_distance > 0 and neuron.n_merges == neuron.n_examples - 1
            np.testing.assert_array_equal(neuron.cut(neuron.height), [e.feature for e in neuron.examples])


def test_histograms_count_all_sampled_tokens_and_similar_features_are_of_others(atlas):
    counts, similar = (np.load(atlas.path / f"{name}.npy") for name in ("histogram", "similar"))
    assert (counts.sum(axis=1) == counts[0].sum()).all() and counts[0].sum() > 100
    neuron_of = atlas.features_table()["neuron_id"]
    there = similar >= 0
    assert similar.shape == (len(neuron_of), 20) and there.any() and not there.all()
    assert (neuron_of[similar] != neuron_of[:, None])[there].all()


def test_it_is_the_same_each_time_and_is_reused(atlas, documents, tmp_path):
    again = made(tmp_path / "run", documents)
    for file in atlas.path.rglob("*.*"):
        assert (again.path / file.relative_to(atlas.path)).read_bytes() == file.read_bytes(), file.name
    written = (again.path / "atlas.sqlite").stat().st_mtime_ns
    made(tmp_path / "run", documents)
    assert (again.path / "atlas.sqlite").stat().st_mtime_ns == written
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["stages"]["atlas"]["neurons"] == 48


def test_its_own_text_is_of_the_size_asked_for():
    found = python_installation(100_000)
    length = sum(len(text) for _, text in found)
    assert length >= 100_000 and length - len(found[-1].text) < 100_000
