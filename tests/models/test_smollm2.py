"""SmolLM2 as the package index has it, against transformers' reading of the same file: every layer, in float64."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from torch_llama import assert_same_tensors, model_of_transformers, torch_llama_values

from nejax.errors import UserError
from nejax.models.formats.gguf_files import open_gguf, smollm2_file
from nejax.models.loading import load_model

pytestmark = pytest.mark.slow

TEXT = """PEP 8 was written in 2001. “How many years ago?” asked Jean Valjean.

    def __init__(self, value=1234):
        return **bold** + value
"""


@jax.jit
def run(model, tokens):
    return model(tokens, reader=lambda view: view)


@pytest.fixture(scope="module")
def file() -> Path:
    pytest.importorskip("gguf")
    try:
        return smollm2_file()
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def reference(file: Path) -> Any:
    """As transformers reads it, which takes half a minute."""
    return model_of_transformers(file, "float64")


def test_its_tensors_and_settings_are_those_of_transformers(file: Path, reference):
    found = open_gguf(file)
    assert len(assert_same_tensors(found, reference)) == 272
    assert found.settings == {
        "model_type": "llama",
        "vocab_size": 49152,
        "max_position_embeddings": 8192,
        "hidden_size": 576,
        "num_hidden_layers": 30,
        "intermediate_size": 1536,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "rms_norm_eps": 1e-5,
        "rope_theta": 100000.0,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
    }


def test_every_value_of_every_layer_is_that_of_transformers(reference):
    """Measured: 6.5e-6 at worst, in the activations, as the largest difference over the largest of its kind in a layer.

    Logits differ by 2.5e-6 of the largest.
    """
    loaded = load_model("smollm2")
    tokens = np.array([[1, *loaded.tokenizer(TEXT)["input_ids"]]])
    expected = torch_llama_values(reference, tokens)
    logits, view = run(loaded.model, jnp.asarray(tokens))
    worst = {}
    for name, value in (view._asdict() | {"logits": logits[None]}).items():
        if name != "layer":
            wanted = expected[name] if name != "logits" else expected[name][None]
            axes = tuple(range(1, wanted.ndim))
            difference = np.abs(np.asarray(value, np.float64) - wanted).max(axis=axes)
            worst[name] = float((difference / np.abs(wanted).max(axis=axes)).max())
    assert max(worst.values()) < 1e-5, worst
