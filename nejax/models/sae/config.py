"""The `cfg.json` of a sparse autoencoder: SAELens' of version 6 and before, and sparsify's."""

import json
import math
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, get_args

from nejax.errors import UserError
from nejax.models.families.config_keys import warn
from nejax.models.formats.files import read_json
from nejax.models.sae.architectures import ARCHITECTURES, SAE, Normalization
from nejax.models.sae.keys import MODEL_HARMLESS, ONE_VALUE_ONLY, SAE_LENS_HARMLESS, SPARSIFY_HARMLESS, why_not_read

_SAE_LENS_VERSION = "6.20.0"
"""SAELens recognises a configuration of its version 6 by this, and leaves its fields unchanged."""

_CENTRED_REPOSITORIES = (
    "jbloom/GPT2-Small-SAEs-Reformatted",
    "jbloom/GPT2-Small-Feature-Splitting-Experiment-Layer-8",
    "tommmcgrath/gpt2-small-mlp-out-saes",
)
"""Their SAEs read a model with centred writing weights; SAELens keeps this in its own list, not in their files."""

_MODEL_NAMES = {"gpt2-small": "gpt2"}
"""Names in TransformerLens -> names that `load_model` takes."""

_REQUIRED = object()


class SAEConfig(NamedTuple):
    """What an SAE is made with, and what it reads. None: the file does not say."""

    architecture: str
    """One of `nejax.models.sae.architectures.ARCHITECTURES`."""
    d_in: int
    """Width of the inputs."""
    d_sae: int
    """Number of latents."""
    arguments: dict[str, Any]
    """The other arguments of its class."""
    scale: float | None = 1.0
    """What inputs are multiplied by before anything else; None: by `sqrt(d_in) / mean |x|`, of its training data."""
    model_name: str | None = None
    """The model whose values it reads, by a name that `nejax.models.loading.load_model` takes."""
    hook_name: str | None = None
    """Where in the model, as written."""
    centred: bool = False
    """Whether inputs are to have a mean of 0 over `d_in`."""
    context_size: int | None = None
    """Tokens a sequence in its training."""
    prepend_bos: bool | None = None
    """Whether each of these began with the BOS token."""


def read_sae_lens(folder: Path, name: str = "") -> SAEConfig:
    """The configuration in a folder of SAELens. Fields of versions before 6 are taken under their old names.

    Args:
        folder: with `cfg.json`, and, of a training's checkpoint, `activation_scaler.json`.
        name: by which a user asked for it: for some repositories, more is known than their files say.

    Fields that are not known are named on standard error, see `nejax.models.sae.keys`.

    Raises:
        UserError: a field that is missing or has an impossible value, fields that contradict each other, or something
            that is not implemented.
    """
    settings = _Settings(folder / "cfg.json")
    about = settings.part("metadata")  # version 6 keeps there what is not about the SAE itself
    architecture = settings.get("architecture", str, "standard")
    activation = _agreed([(settings, "activation_fn"), (settings, "activation_fn_str")]) or "relu"
    arguments: dict[str, Any] = {"apply_b_dec_to_input": settings.get("apply_b_dec_to_input", bool, True)}
    if architecture not in ARCHITECTURES:
        settings.refuse("architecture", architecture, ", ".join(ARCHITECTURES), why_not_read(architecture))
    options = settings.part("activation_fn_kwargs")
    if architecture == "standard" and activation == "topk":
        architecture = "topk"
    elif activation != "relu" and (architecture, activation) != ("topk", "topk"):
        expected = "relu or topk" if architecture in ("standard", "topk") else f"relu in a {architecture} SAE"
        settings.refuse("activation_fn", activation, expected)
    if architecture == "topk":
        arguments["k"] = options.count("k", None) or settings.count("k")
        if settings.count("k", arguments["k"]) != arguments["k"]:
            settings.refuse("k", settings.count("k"), f"activation_fn_kwargs.k, which is {arguments['k']}")
        for field, value in options.unknown({"k"}).items():
            options.refuse(field, value, "none")
        arguments["rescale_acts_by_decoder_norm"] = settings.get("rescale_acts_by_decoder_norm", bool, False)

    normalize = settings.get("normalize_activations", (str, bool), "none")
    normalize = {True: "expected_average_only_in", False: "none"}.get(normalize, normalize)
    scale: float | None = 1.0
    if normalize == "expected_average_only_in":
        normalize, scale = "none", _activation_scale(folder)
    elif normalize not in get_args(Normalization):
        expected = ", ".join([*get_args(Normalization), "expected_average_only_in"])
        settings.refuse("normalize_activations", normalize, expected)
    arguments["normalize"] = normalize

    hook = _agreed([(about, "hook_name"), (settings, "hook_name"), (settings, "hook_point")])
    for field in ONE_VALUE_ONLY:
        if (value := about.get(field, object, settings.get(field, object, None))) is not None:
            settings.refuse(field, value, "none: heads and transcoders cannot be read")
    reshape = settings.get("reshape_activations", str, "none")
    if reshape != "none" or (hook or "").endswith("hook_z"):
        settings.refuse("reshape_activations", reshape, "none, and a hook outside attention", found=f"of {hook}")

    model_name = _agreed([(about, "model_name"), (settings, "model_name")])
    d_in, d_sae = settings.count("d_in"), settings.count("d_sae")
    config = SAEConfig(architecture, d_in, d_sae, arguments, scale)
    config = _checked(settings, config)._replace(
        model_name=_MODEL_NAMES.get(model_name, model_name),
        hook_name=hook,
        centred=_is_centred(settings, about, name, hook),
        context_size=about.count("context_size", settings.count("context_size", None)),
        prepend_bos=about.get("prepend_bos", bool, settings.get("prepend_bos", bool, True)),
    )
    unknown = settings.unknown(SAE_LENS_HARMLESS) | about.unknown(SAE_LENS_HARMLESS) | options.unknown({"k"})
    for part in (settings, about):
        unknown |= part.part("model_from_pretrained_kwargs").unknown({*MODEL_HARMLESS, "center_writing_weights"})
    warn(unknown, (), folder / "cfg.json")
    return config


def read_sparsify(folder: Path) -> SAEConfig:
    """The configuration in a folder of sparsify, whose name says what the SAE reads.

    The loss `multi_topk` makes no difference to a trained SAE.

    Raises:
        UserError: see `read_sae_lens`. Transcoders are refused: they map one value to another.
    """
    settings = _Settings(folder / "cfg.json")
    for field, expected in {"transcode": False, "skip_connection": False, "signed": False}.items():
        if settings.get(field, bool, expected) is not expected:
            settings.refuse(field, True, "false: only autoencoders can be read")
    if (activation := settings.get("activation", str, "topk")) != "topk":
        settings.refuse("activation", activation, "topk")
    d_in = settings.count("d_in")
    d_sae = settings.get("num_latents", int, 0) or d_in * settings.count("expansion_factor")
    config = _checked(settings, SAEConfig("topk", d_in, d_sae, {"k": settings.count("k")}))

    warn(settings.unknown(SPARSIFY_HARMLESS), (), folder / "cfg.json")
    # A run is a folder of hookpoints beside a config.json; with several seeds, each hookpoint has one folder for each.
    folder = folder.resolve()
    folder = folder.parent if re.fullmatch(r"seed\d+", folder.name) else folder
    run = folder.parent / "config.json"
    run_settings = _Settings(run) if run.is_file() else None
    return config._replace(
        hook_name=folder.name,
        model_name=run_settings and run_settings.get("model", str, None),
        context_size=run_settings and run_settings.count("ctx_len", None),
        prepend_bos=False,
    )


def sae_lens_settings(sae: SAE, **about: Any) -> dict[str, Any]:
    """The `cfg.json` of SAELens 6 for an SAE, with what is given as metadata."""
    own = {name: getattr(sae, name) for name in ("k", "rescale_acts_by_decoder_norm") if hasattr(sae, name)}
    return {
        "architecture": sae.architecture,
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": sae.apply_b_dec_to_input,
        "normalize_activations": sae.normalize,
        "reshape_activations": "none",
        "metadata": about | {"sae_lens_version": _SAE_LENS_VERSION, "sae_lens_training_version": None},
    } | own


class _Settings:
    """An object of a JSON file, read field by field: null counts as missing, another type is refused."""

    def __init__(self, path: Path, values: dict[str, Any] | None = None, prefix: str = ""):
        self._path, self._prefix = path, prefix
        if values is None and not path.is_file():
            raise UserError(f"no {path.name} in {path.parent}; expected the folder of an SAE of SAELens or sparsify")
        self._values = read_json(path) if values is None else values
        self._read: set[str] = set()

    def __contains__(self, field: str) -> bool:
        return self._values.get(field) is not None

    def unknown(self, harmless: Collection[str]) -> dict[str, Any]:
        """The fields that have a value, were not read, and are not on the list."""
        known = {*self._read, *harmless}
        return {
            self._prefix + field: self._values[field] for field in self._values if field in self and field not in known
        }

    def get(self, field: str, kind: Any, default: Any = _REQUIRED) -> Any:
        self._read.add(field)
        value = self._values.get(field)
        if value is None:
            if default is _REQUIRED:
                raise UserError(f"{self._path} has no {self._prefix}{field}; get the file again, or add it")
            return default
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            self.refuse(field, value, getattr(kind, "__name__", "str or bool"))
        return value

    def count(self, field: str, default: Any = _REQUIRED) -> Any:
        value = self.get(field, int, default)
        if value is not default and value < 1:
            self.refuse(field, value, "a positive number")
        return value

    def part(self, field: str) -> "_Settings":
        return _Settings(self._path, self.get(field, dict, {}), f"{field}.")

    def refuse(self, field: str, value: Any, expected: str, remedy: str = "", *, found: str = "") -> NoReturn:
        value = json.dumps(value, ensure_ascii=False)
        value = value if len(value) < 100 else value[:97] + "..."
        line = f"{self._path} has {self._prefix}{field} {value}{found and ' ' + found}; expected {expected}"
        raise UserError(line + (remedy and f" ({remedy})"))


def _checked(settings: _Settings, config: SAEConfig) -> SAEConfig:
    if (k := config.arguments.get("k", 1)) > config.d_sae:
        settings.refuse("k", k, f"at most {config.d_sae}, the number of latents")
    return config


def _agreed(places: Sequence[tuple[_Settings, str]]) -> Any:
    """A text that may be given in several places, which have to agree. None: it is given in none."""
    found = [(part, field, text) for part, field in places if (text := part.get(field, str, None))]
    for part, field, text in found[1:]:
        if text != found[0][2]:
            part.refuse(field, text, f"{json.dumps(found[0][2])}, as {found[0][1]} has it")
    return found[0][2] if found else None


def _is_centred(settings: _Settings, about: _Settings, name: str, hook: str | None) -> bool:
    for place in (about, settings):
        if "model_from_pretrained_kwargs" in place:
            kwargs = place.part("model_from_pretrained_kwargs")
            if kwargs.get("fold_ln", bool, False) and (hook or "").endswith("mlp.hook_in"):
                kwargs.refuse("fold_ln", True, f"false, or a hook that it leaves alone, not {hook}")
            if "center_writing_weights" in kwargs:
                return kwargs.get("center_writing_weights", bool)
    # Versions that wrote `hook_point` loaded models in TransformerLens' own way, which centres.
    return name.startswith(_CENTRED_REPOSITORIES) or "hook_point" in settings


def _activation_scale(folder: Path) -> float | None:
    """What `expected_average_only_in` multiplies by; SAELens keeps it beside an SAE until it is folded into it."""
    if not (path := folder / "activation_scaler.json").is_file():
        return None
    settings = _Settings(path)
    factor = settings.get("scaling_factor", (int, float), None)
    if factor is not None and not 0 < factor < math.inf:
        settings.refuse("scaling_factor", factor, "a positive number")
    return factor
