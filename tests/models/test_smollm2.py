"""SmolLM2 as the package index has it, against transformers' reading of the same file: every layer, in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from torch_llama import torch_llama_values

from nejax.errors import UserError
from nejax.models.gguf_files import smollm2_file
from nejax.models.loading import load_model

pytestmark = pytest.mark.slow

TEXT = """PEP 8 was written in 2001. “How many years ago?” asked Jean Valjean.

    def __init__(self, value=1234):
        return **bold** + value
"""


@partial(jax.jit)
def run(model, tokens):
    return model(tokens, reader=lambda view: view)


def test_every_value_of_every_layer_is_that_of_transformers():
    """Measured: 6.5e-6 at worst, in the activations, as the largest difference over the largest of its kind in a layer.

    Logits differ by 2.5e-6 of the largest.
    """
    pytest.importorskip("torch")
    pytest.importorskip("gguf")
    try:
        file = smollm2_file()
    except UserError as error:
        pytest.skip(str(error))
    import transformers

    loaded = load_model("smollm2")
    tokens = np.array([[1, *loaded.tokenizer(TEXT)["input_ids"]]])
    reference = transformers.AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype="float64", attn_implementation="eager"
    ).eval()
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
