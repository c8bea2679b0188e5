"""`nejax.collect`: the pass over tokens that are there as an array."""

import jax
import numpy as np
import pytest
from tiny_gpt2 import N_SEQUENCES, RULE, SEQ_LEN, SPECIAL, VOCAB

import nejax
from nejax.errors import UserError
from nejax.pipeline.passes import arrays
from nejax.pipeline.passes.collect import collect


def test_it_is_the_pass_of_a_run(model, sequences, tmp_path, monkeypatch):
    """Whatever holds the tokens, and however many are taken out of it at a time."""
    expected = collect(model, lambda start: [sequences], keep=6, rule=RULE, batch_size=7)
    on_disk = np.memmap(tmp_path / "tokens", np.int64, "w+", shape=sequences.tokens.shape)
    on_disk[...] = sequences.tokens
    for tokens, piece in ((sequences.tokens, 4096), (jax.numpy.asarray(sequences.tokens), 10), (on_disk, 9)):
        monkeypatch.setattr(arrays, "PIECE", piece)
        found = nejax.collect(model, tokens, sequences.length, keep=6, special=SPECIAL.tolist(), batch_size=7)
        assert jax.tree.all(jax.tree.map(np.array_equal, found, expected))


def test_without_lengths_all_is_real(model, sequences):
    whole = np.full(N_SEQUENCES, SEQ_LEN, np.int32)
    options = {"keep": 6, "special": SPECIAL.tolist(), "batch_size": 7}
    found = nejax.collect(model, sequences.tokens, **options)
    expected = nejax.collect(model, sequences.tokens, whole, **options)
    assert jax.tree.all(jax.tree.map(np.array_equal, found, expected))
    can_peak = ~np.isin(sequences.tokens[:, 1:], SPECIAL)
    assert (found.moments.count == can_peak.sum()).all()


WRONG = {
    r"tokens have shape \(48,\) and type int32; expected integers \[n_sequences": {"tokens": np.zeros(48, "i4")},
    r"tokens have shape \(0, 48\)": {"tokens": np.zeros((0, 48), "i4")},
    "type float32; expected integers": {"tokens": np.zeros((2, 48), "f4")},
    "tokens have 49 a sequence; the model has 48 positions": {"tokens": np.zeros((2, 49), "i4")},
    f"tokens are 0 to {VOCAB}; expected ids from 0, below {VOCAB}": {"tokens": np.array([[0, VOCAB]])},
    f"tokens are -1 to 3; expected ids from 0, below {VOCAB}": {"tokens": np.array([[-1, 3]])},
    r"length has shape \(3,\) and type int64; expected integers \[2\]": {"length": np.array([1, 1, 1])},
    "length is 0 to 2; expected 1 to 4": {"length": np.array([0, 2])},
    "length is 1 to 5; expected 1 to 4": {"length": np.array([1, 5])},
    "keep=0: expected at least 1": {"keep": 0},
    "batch_size=0: expected at least 1": {"batch_size": 0},
}


@pytest.mark.parametrize("said", WRONG)
def test_what_cannot_be_read_is_refused(said, model):
    arguments = {"tokens": np.ones((2, 4), "i4"), "length": None} | WRONG[said]
    tokens, length = arguments.pop("tokens"), arguments.pop("length")
    with pytest.raises(UserError, match=said):
        arrays.collect.__wrapped__(model, tokens, length, **arguments)


def test_it_runs_on_the_devices_that_are_given(model, sequences):
    with pytest.raises(UserError, match="a mesh with the axes"):
        nejax.collect(model, sequences.tokens, keep=6, mesh=jax.make_mesh((1,), ("rows",)))
