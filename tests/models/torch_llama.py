"""Llama-style models of transformers, tiny and random, and what each of their layers computes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nejax.models.formats.model_files import ModelFiles

SIZES = {
    "vocab_size": 60,
    "max_position_embeddings": 40,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "intermediate_size": 20,
    "rms_norm_eps": 1e-5,
}


def random_torch_llama(seed: int, *, deviation: float = 0.15, kind: str = "Llama", **settings: Any) -> Any:
    """A model with these settings in place of `SIZES`'; every parameter is random, and large enough to matter."""
    import torch
    import transformers

    torch.manual_seed(seed)
    config = getattr(transformers, f"{kind}Config")(**(SIZES | settings), attn_implementation="eager")
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in name else 0.0, 3 * deviation if "embed" in name else deviation)
    return model


def model_of_transformers(file: Path, dtype: str) -> Any:
    """A GGUF file as transformers reads it."""
    pytest.importorskip("torch")
    pytest.importorskip("accelerate")
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=dtype, attn_implementation="eager"
    ).eval()


def assert_same_tensors(found: ModelFiles, model: Any) -> set[str]:
    """Compare every tensor of some files with those of a model of transformers; their names."""
    expected = {name.removeprefix("model."): values.numpy() for name, values in model.state_dict().items()}
    assert found.settings["tie_word_embeddings"] == model.config.tie_word_embeddings
    if model.config.tie_word_embeddings:
        expected.pop("lm_head.weight")
    assert found.tensors.keys() == expected.keys()
    for name, tensor in found.tensors.items():
        np.testing.assert_allclose(tensor.read(), expected[name], rtol=0, atol=1e-6, err_msg=name)
    return set(expected)


def torch_llama_values(model: Any, tokens: np.ndarray) -> dict[str, np.ndarray]:
    """What it computes from tokens: the values of a `LayerView` stacked over layers, and the logits."""
    import torch

    seen: dict[str, list[np.ndarray]] = {}

    def keep(name: str, value: Any) -> None:
        seen.setdefault(name, []).append(value.numpy())

    hooks = []
    for block in model.model.layers:
        norm, mlp = block.post_attention_layernorm, block.mlp
        hooks += [
            block.register_forward_pre_hook(lambda _, inputs: keep("resid_pre", inputs[0])),
            norm.register_forward_pre_hook(lambda _, inputs: keep("resid_mid", inputs[0])),
            mlp.register_forward_pre_hook(lambda _, inputs: keep("mlp_input", inputs[0])),
            mlp.gate_proj.register_forward_hook(lambda _, inputs, output: keep("pre_activation", output)),
            mlp.down_proj.register_forward_pre_hook(lambda _, inputs: keep("activation", inputs[0])),
            mlp.register_forward_hook(lambda _, inputs, output: keep("mlp_output", output)),
            block.register_forward_hook(
                lambda _, inputs, output: keep("resid_post", output if torch.is_tensor(output) else output[0])
            ),
        ]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor(tokens), use_cache=False).logits.numpy()
    for hook in hooks:
        hook.remove()
    return {name: np.stack(values) for name, values in seen.items()} | {"logits": logits}
