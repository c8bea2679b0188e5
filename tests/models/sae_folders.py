"""Folders of small SAEs with random parameters, as SAELens and sparsify write them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

D_IN, D_SAE, K = 12, 40, 4
HOOK = "blocks.2.hook_resid_pre"


def random_tensors(seed: int = 0, d_sae: int = D_SAE) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {"W_enc": (D_IN, d_sae), "b_enc": (d_sae,), "W_dec": (d_sae, D_IN), "b_dec": (D_IN,)}
    return {name: rng.normal(0, 0.4, shape).astype("f4") for name, shape in shapes.items()}


def inputs() -> np.ndarray:
    return np.random.default_rng(1).normal(0.2, 1, (30, D_IN)).astype("f4")


def write_sae(folder: Path, settings: dict[str, Any] | None = None, tensors: dict | None = None) -> Path:
    """A folder of SAELens. A setting of None is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {"model_name": "gpt2-small", "hook_name": HOOK, "sae_lens_version": "6.20.0"}
    all_settings = {"architecture": "standard", "d_in": D_IN, "d_sae": D_SAE, "metadata": about} | (settings or {})
    all_settings = {name: value for name, value in all_settings.items() if value is not None}
    (folder / "cfg.json").write_text(json.dumps(all_settings))
    save_file(random_tensors() if tensors is None else tensors, folder / "sae_weights.safetensors")
    return folder


def write_sparsify(folder: Path, settings: dict[str, Any] | None = None, *, d_sae: int = D_SAE, **extra: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tensors = random_tensors(d_sae=d_sae)
    renamed = {"encoder.weight": tensors.pop("W_enc").T.copy(), "encoder.bias": tensors.pop("b_enc")}
    save_file(tensors | renamed | extra, folder / "sae.safetensors")
    defaults = {"activation": "topk", "expansion_factor": 32, "normalize_decoder": True, "num_latents": d_sae, "k": K}
    options = {"multi_topk": False, "skip_connection": False, "transcode": False, "d_in": D_IN}
    (folder / "cfg.json").write_text(json.dumps(defaults | options | (settings or {})))
    return folder
