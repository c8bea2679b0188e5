"""Sparse autoencoders in files: those of SAELens, read and written, and those of sparsify, read.

SAELens: `cfg.json` and `sae_weights.safetensors`, tensors under the names of `nejax.models.sae.architectures`.
sparsify: `cfg.json` and `sae.safetensors`. A folder here, or one inside a repository on the Hugging Face Hub.
"""

import glob
import json
import re
import shutil
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from nejax.errors import UserError, refuse_undecodable
from nejax.models.families.transformer import TransformerConfig
from nejax.models.formats.files import fingerprint_of, listed
from nejax.models.formats.hub import download
from nejax.models.formats.weights import leaves_of
from nejax.models.sae.architectures import ARCHITECTURES, SAE, fold_scale
from nejax.models.sae.config import SAEConfig, read_sae_lens, read_sparsify, sae_lens_settings
from nejax.models.sae.hook_points import Site, needed_input_weights, parse_site

_SAE_LENS, _SPARSIFY = "sae_weights.safetensors", "sae.safetensors"
_CONFIG, _SCALER = "cfg.json", "activation_scaler.json"
_CHOICES = "expected a local folder, or ORGANISATION/NAME/PATH of a folder in a repository on the Hub"
_DTYPES = ("F64", "F32", "F16", "BF16")


class LoadedSAE(NamedTuple):
    """A sparse autoencoder and what belongs to it.

    Example:
        >>> from flax import nnx
        >>> sae = nejax.SAE(d_in=4, d_sae=8, rngs=nnx.Rngs(0))
        >>> nejax.save_sae("my-sae", sae, model_name="gpt2-tiny", hook_name="blocks.0.hook_mlp_out")
        >>> found = nejax.load_sae("my-sae")
        >>> found.model_name, found.hook_name, found.centred
        ('gpt2-tiny', 'blocks.0.hook_mlp_out', False)
    """

    sae: SAE
    """The autoencoder, in float32."""
    hook_name: str | None
    """The name of what it reads, from its file; None if the file does not say."""
    site: Site | None
    """The same; None if it is no site of a model that can be read, and `parse_site(hook_name)` says why."""
    input_weights: Literal["native", "folded"] | None
    """How the model has to be loaded so that the site holds what the SAE expects; None: either."""
    model_name: str | None
    """The model whose values it reads, by a name that `nejax.models.loading.load_model` takes; None if the file does
    not say."""
    centred: bool
    """Whether it expects inputs less their mean over `d_model`: what a site holds in a model with centred writing
    weights (`center_writing_weights` of TransformerLens)."""
    context_size: int | None
    """Tokens a sequence in its training."""
    prepend_bos: bool | None
    """Whether each of these began with the BOS token."""
    scale_by_mean_norm: bool
    """Whether inputs are first to be scaled to a mean length of `sqrt(d_in)` and the file does not say by which factor:
    `fold_scale(sae, sqrt(d_in) / mean |x|)` is then the SAE of the inputs as they are."""
    fingerprint: str
    """32 hexadecimal digits: a digest of its files."""
    name: str
    """The name it was asked for by."""


def load_sae(name: str | Path, *, revision: str | None = None) -> LoadedSAE:
    """Load an SAE of SAELens (standard, topk, jumprelu, gated) or sparsify (topk), with what is known about it.

    Args:
        name: a local folder, else a folder on the Hub, `"jbloom/GPT2-Small-SAEs-Reformatted/blocks.8.hook_resid_pre"`,
            of which only its own files are downloaded, and kept in the Hub's cache.
        revision: branch, tag or commit on the Hub; the main branch if it is None.

    Raises:
        UserError: no such folder, no way to reach it, a configuration that is damaged or not implemented, weights that
            are damaged or not those of the configuration, or not finite (all tensors named).

    Example:
        >>> from flax import nnx
        >>> sae = nejax.SAE(d_in=4, d_sae=8, rngs=nnx.Rngs(0))
        >>> nejax.save_sae("my-sae", sae, model_name="gpt2-tiny", hook_name="blocks.0.hook_mlp_out")
        >>> nejax.load_sae("my-sae").sae.d_sae
        8
    """
    name = str(name)
    folder = _find(name, revision)
    is_sparsify = (folder / _SPARSIFY).is_file() and not (folder / _SAE_LENS).is_file()
    config = read_sparsify(folder) if is_sparsify else read_sae_lens(folder, name)
    weights = folder / (_SPARSIFY if is_sparsify else _SAE_LENS)
    if not weights.is_file():
        raise UserError(f"no weights in {folder}; expected {_SAE_LENS} (SAELens) or {_SPARSIFY} (sparsify)")
    sae = _fill(config, _read_sparsify(weights) if is_sparsify else _read_sae_lens(weights), weights)
    if config.scale not in (None, 1.0):
        sae = fold_scale(sae, config.scale)
    site = _site(config.hook_name)
    return LoadedSAE(
        sae=sae,
        hook_name=config.hook_name,
        site=site,
        input_weights=needed_input_weights(config.hook_name) if site and config.hook_name else None,
        model_name=config.model_name,
        centred=config.centred,
        context_size=config.context_size,
        prepend_bos=config.prepend_bos,
        scale_by_mean_norm=config.scale is None,
        fingerprint=fingerprint_of([folder / _CONFIG, weights, folder / _SCALER]),
        name=name,
    )


def sae_files(name: str) -> dict[str, Path]:
    """The files that an SAE may be read from, by their names; not all need be there.

    Args:
        name: as for `load_sae`.

    Raises:
        UserError: no such folder, or no way to reach it.
    """
    folder = _find(name, None)
    of_sparsify = {"../config.json": folder.parent / "config.json"} if (folder / _SPARSIFY).is_file() else {}
    return {file: folder / file for file in (_CONFIG, _SAE_LENS, _SPARSIFY, _SCALER)} | of_sparsify


def site_in_model(found: LoadedSAE, hook_name: str | None, model_name: str, config: TransformerConfig) -> Site:
    """The site that an SAE reads, in a model that it fits.

    Args:
        found: the SAE.
        hook_name: what it reads; None: what its file says.
        model_name: for the message.
        config: the model's shape.

    Raises:
        UserError: neither the file nor the caller says what it reads, there is no such place in the model, or it has
            another width.
    """
    hook_name = hook_name or found.hook_name
    if hook_name is None:
        raise UserError(f"{found.name} does not say what it reads; expected a hook_name in its {_CONFIG}")
    site = parse_site(hook_name, config.n_layers)
    if found.sae.d_in != config.d_model:
        raise UserError(f"{found.name} reads {found.sae.d_in} numbers, and {model_name} has d_model={config.d_model}")
    return site


def save_sae(
    folder: Path | str,
    sae: SAE,
    *,
    model_name: str,
    hook_name: str,
    centred: bool = False,
    context_size: int | None = None,
    prepend_bos: bool = True,
) -> None:
    """Write an SAE as a folder that `load_sae` and SAELens 6 load.

    Args:
        folder: made if it is not there; files of the same names are replaced.
        sae: the autoencoder.
        model_name: the model whose values it reads.
        hook_name: where, as `nejax.models.sae.hook_points.hook_name` gives it.
        centred: whether it expects inputs less their mean.
        context_size: tokens a sequence in its training.
        prepend_bos: whether each of these began with the BOS token.

    Raises:
        UserError: parameters that are not finite; nothing has been written then.

    Example:
        >>> from flax import nnx
        >>> sae = nejax.SAE(d_in=4, d_sae=8, rngs=nnx.Rngs(0))
        >>> nejax.save_sae("my-sae", sae, model_name="gpt2-tiny", hook_name="blocks.0.hook_mlp_out")
        >>> bool((nejax.load_sae("my-sae").sae.W_enc[...] == sae.W_enc[...]).all())
        True
    """
    folder, tensors = (
        Path(folder),
        {name: np.asarray(leaf.get_value()) for name, leaf in leaves_of(nnx.state(sae)).items()},
    )
    if not_finite := [name for name, values in tensors.items() if not np.isfinite(values).all()]:
        raise UserError(
            f"the SAE cannot be saved: not finite: {', '.join(not_finite)}; save one from before its training diverged"
        )
    settings = sae_lens_settings(
        sae,
        model_name=model_name,
        model_class_name="HookedTransformer",
        model_from_pretrained_kwargs={"center_writing_weights": True} if centred else {},
        hook_name=hook_name,
        hook_head_index=None,
        context_size=context_size,
        prepend_bos=prepend_bos,
    )
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: values.astype(np.float32) for name, values in tensors.items()}, folder / _SAE_LENS)
    (folder / _CONFIG).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    # safetensors makes files that only their owner can read.
    shutil.copymode(folder / _CONFIG, folder / _SAE_LENS)


def _find(name: str, revision: str | None) -> Path:
    """The folder that holds an SAE's files, downloaded if need be."""
    refuse_undecodable("SAE ", name)
    path = Path(name).expanduser()
    if name and path.is_dir():
        if revision:
            raise UserError(f"{name} is local and has no revision {revision!r}; leave the revision out")
        return path
    if path.is_file():
        raise UserError(f"{name} is a file; expected the folder that holds {_CONFIG} and the weights")
    match = re.fullmatch(r"(\w[\w.-]*/\w[\w.-]*)((?:/\w[^/*?]*)*)/?", name)
    if not match:
        raise UserError(f"there is no folder {name!r}; {_CHOICES}")
    repo_id, inside = match[1], match[2].strip("/")
    below = f"{glob.escape(inside)}/" if inside else ""
    patterns = [below + file for file in (_CONFIG, _SAE_LENS, _SPARSIFY, _SCALER)]
    if inside:
        patterns.append(f"{glob.escape(str(Path(inside).parent))}/config.json".removeprefix("./"))
    needed = str(Path(inside) / _CONFIG)
    snapshot = download(
        repo_id, revision, patterns, kind="SAE", choices=_CHOICES, instead="a local folder", needed=needed
    )
    if not (snapshot / needed).is_file():
        raise UserError(f"there is no {needed} in the repository {repo_id} on the Hub; {_CHOICES}")
    return snapshot / inside


def _read_sae_lens(file: Path) -> dict[str, np.ndarray]:
    tensors = _read_tensors(file)
    if "log_threshold" in tensors:  # so in early versions
        tensors["threshold"] = np.exp(tensors.pop("log_threshold"))
    # Written for a while whether or not it was used: it multiplied activations once an SAE was finetuned.
    if "scaling_factor" in tensors and not np.allclose(tensors.pop("scaling_factor"), 1, rtol=1e-5, atol=0):
        raise UserError(f"{file} has a scaling_factor other than 1; finetuned SAEs of that kind cannot be read")
    return tensors


def _read_sparsify(file: Path) -> dict[str, np.ndarray]:
    tensors = _read_tensors(file)
    if "encoder.weight" in tensors:
        tensors["W_enc"] = tensors.pop("encoder.weight").T
    if "encoder.bias" in tensors:
        tensors["b_enc"] = tensors.pop("encoder.bias")
    return tensors


def _read_tensors(file: Path) -> dict[str, np.ndarray]:
    """What a file holds, as float32."""
    tensors = {}
    try:
        with safe_open(file, framework="np") as opened:
            names = opened.keys()
            for name in names:
                if (dtype := opened.get_slice(name).get_dtype()) not in _DTYPES:
                    raise UserError(f"{file} has {name} of type {dtype}; expected one of {', '.join(_DTYPES)}")
                with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite and is refused
                    tensors[name] = opened.get_tensor(name).astype(np.float32)
    except (SafetensorError, OSError) as error:
        raise UserError(f"damaged or truncated weights: {file} ({error}); get the file again") from error
    return tensors


def _fill(config: SAEConfig, tensors: dict[str, np.ndarray], file: Path) -> SAE:
    """The SAE of a configuration with the tensors of a file."""
    make = ARCHITECTURES[config.architecture]
    sae = nnx.eval_shape(lambda: make(config.d_in, config.d_sae, rngs=nnx.Rngs(0), **config.arguments))
    leaves = leaves_of(nnx.state(sae))
    problems = {
        "missing": sorted(leaves.keys() - tensors.keys()),
        "not expected": sorted(tensors.keys() - leaves.keys()),
        "wrong shape": [
            f"{name} {list(tensors[name].shape)} (expected {list(leaf.shape)})"
            for name, leaf in leaves.items()
            if name in tensors and tensors[name].shape != leaf.shape
        ],
        "not finite": [name for name in leaves if name in tensors and not np.isfinite(tensors[name]).all()],
    }
    if any(problems.values()):
        found = "; ".join(f"{kind}: {listed(names)}" for kind, names in problems.items() if names)
        raise UserError(
            f"{file} does not hold the weights of the {config.architecture} SAE in its {_CONFIG}: {found}; "
            "get the SAE's files again"
        )
    for name, leaf in leaves.items():
        leaf.set_value(jax.device_put(jnp.asarray(tensors[name], leaf.dtype)))
    return sae


def _site(hook_name: str | None) -> Site | None:
    try:
        return parse_site(hook_name or "")
    except UserError:
        return None
