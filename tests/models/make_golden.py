"""Make the files in `golden/` with PyTorch: tiny random GPT-2 models, and what each of their layers computes.

The tests that load them stand in for those that run PyTorch where it is not installed. To make them again:

    python tests/models/make_golden.py
"""

from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parent / "golden"
SIZES = {"vocab_size": 30, "n_positions": 10}
CONFIGS = {
    "gelu_new": SIZES | {"n_embd": 12, "n_layer": 2, "n_head": 3, "n_inner": None},
    "gelu": SIZES | {"n_embd": 8, "n_layer": 3, "n_head": 2, "n_inner": 20, "layer_norm_epsilon": 0.1},
    "relu": SIZES | {"n_embd": 8, "n_layer": 1, "n_head": 1, "n_inner": 5, "layer_norm_epsilon": 0.01},
    "silu": SIZES | {"n_embd": 16, "n_layer": 2, "n_head": 8, "n_inner": 24, "layer_norm_epsilon": 1e-12},
}
"""Settings of the tiny models, by their activation function."""


def random_torch_model(seed: int, *, deviation: float = 0.3, **settings):
    """transformers' GPT-2 with these settings; every parameter is random, and large enough to matter."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    config = GPT2Config(bos_token_id=0, eos_token_id=0, attn_implementation="eager", **settings)
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 3 * deviation if "wte" in name else deviation
            parameter.normal_(1.0 if ".ln_" in name and name.endswith("weight") else 0.0, scale)
    return model


def torch_values(model, tokens: np.ndarray) -> dict[str, np.ndarray]:
    """What a PyTorch GPT-2 computes from tokens: the values of a `LayerView` stacked over layers, and the logits."""
    import torch

    seen: dict[str, list[np.ndarray]] = {}

    def keep(name: str, value) -> None:
        seen.setdefault(name, []).append(value.numpy())

    for block in model.transformer.h:
        block.register_forward_pre_hook(lambda _, inputs: keep("resid_pre", inputs[0]))
        block.ln_2.register_forward_pre_hook(lambda _, inputs: keep("resid_mid", inputs[0]))
        block.mlp.c_fc.register_forward_pre_hook(lambda _, inputs: keep("mlp_input", inputs[0]))
        block.mlp.c_fc.register_forward_hook(lambda _, inputs, output: keep("pre_activation", output))
        block.mlp.c_proj.register_forward_pre_hook(lambda _, inputs: keep("activation", inputs[0]))
        block.mlp.register_forward_hook(lambda _, inputs, output: keep("mlp_output", output))
        block.register_forward_hook(lambda _, inputs, output: keep("resid_post", output))
    with torch.no_grad():
        logits = model(input_ids=torch.tensor(tokens), use_cache=False).logits.numpy()
    return {name: np.stack(values) for name, values in seen.items()} | {"logits": logits}


def main() -> None:
    """Write every golden directory: the model as transformers saves it, and `expected.npz`."""
    for seed, (name, settings) in enumerate(CONFIGS.items()):
        model = random_torch_model(seed, activation_function=name, **settings)
        model.save_pretrained(GOLDEN / name)
        (GOLDEN / name / "generation_config.json").unlink()
        tokens = np.random.default_rng(seed).integers(0, SIZES["vocab_size"], (2, 5))
        values = torch_values(model.double(), tokens)
        np.savez_compressed(GOLDEN / name / "expected.npz", tokens=tokens, **values)


if __name__ == "__main__":
    main()
