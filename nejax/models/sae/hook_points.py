"""Sites of a model that hold vectors of width `d_model`, and their names in other tools."""

import re
from typing import Literal, NamedTuple, get_args

from nejax.errors import UserError

SiteName = Literal["resid_pre", "resid_mid", "resid_post", "mlp_input", "mlp_output"]
"""The values of `nejax.models.reading.LayerView` of width `d_model`."""


class Site(NamedTuple):
    """One value of one layer."""

    layer: int
    """From 0."""
    name: SiteName
    """Its name in `nejax.models.reading.LayerView`."""


# TransformerLens' hooks. `ln2.hook_normalized` is the stream before LayerNorm's scale and shift: the MLP's input when
# these are folded into W_in. `mlp.hook_in` is the MLP's input with the model's own weights.
_FOLDED = "ln2.hook_normalized"
_HOOKS: dict[str, SiteName] = {
    "hook_resid_pre": "resid_pre",
    "hook_resid_mid": "resid_mid",
    "hook_mlp_in": "resid_mid",
    "hook_resid_post": "resid_post",
    "hook_mlp_out": "mlp_output",
    "mlp.hook_in": "mlp_input",
    _FOLDED: "mlp_input",
}

# sparsify's hookpoints are modules, and an SAE reads what they put out.
_HOOKPOINT = re.compile(r"(?:(?:transformer|model|gpt_neox)\.)?(?:h|layers)\.(\d+)(\.mlp)?")
_EXPECTED = (
    f"expected a hook of TransformerLens, blocks.LAYER. and one of {', '.join(_HOOKS)}, "
    f"a hookpoint of sparsify, h.LAYER or h.LAYER.mlp, or, beside a layer, one of {', '.join(get_args(SiteName))}"
)


def parse_site(text: str, n_layers: int | None = None) -> Site:
    """The site that a hook's name means.

    Args:
        text: a hook of TransformerLens, `"blocks.8.hook_resid_pre"`, or a hookpoint of sparsify, `"h.8.mlp"` or
            `"layers.8"`.
        n_layers: of the model, where it is known: the layer must be one of them.

    Raises:
        UserError: an unknown name, a value whose width is not `d_model`, or a layer that the model does not have.
    """
    hook = re.fullmatch(r"blocks\.(\d+)\.(.+)", text)
    if module := _HOOKPOINT.fullmatch(text):
        site = Site(int(module[1]), "mlp_output" if module[2] else "resid_post")
    elif hook and hook[2] in _HOOKS:
        site = Site(int(hook[1]), _HOOKS[hook[2]])
    elif re.search(r"attn|attention|hook_(z|q|k|v|result|pattern)\b", text):
        raise UserError(f"{text!r} is inside attention, where nothing can be read; {_EXPECTED}")
    else:
        raise UserError(f"{text!r} is no place in a model that can be read; {_EXPECTED}")
    return site if n_layers is None else _checked(site, n_layers)


def find_site(text: str, layer: int | None, n_layers: int) -> Site:
    """The site that a user asks for: a hook's name as `parse_site` reads it, or a `SiteName` with a layer beside it.

    Args:
        text: the hook or the name.
        layer: None: the one in the hook's name, else layer 2, or the last of a model with fewer.
        n_layers: of the model.

    Raises:
        UserError: see `parse_site`; or a layer other than the one in the hook's name.
    """
    for name in get_args(SiteName):
        if text == name:
            return _checked(Site(min(2, n_layers - 1) if layer is None else layer, name), n_layers)
    site = parse_site(text, n_layers)
    if layer not in (None, site.layer):
        raise UserError(f"{text!r} is in layer {site.layer}, not {layer}; leave one of the two out")
    return site


def hook_name(site: Site, *, input_weights: str = "native") -> str:
    """What TransformerLens calls a site; `parse_site` reads it back.

    Args:
        site: the site.
        input_weights: as the model was loaded (`nejax.models.loading.load_model`). The input of an MLP with folded
            weights is another value, and another hook.
    """
    if site.name == "mlp_input" and input_weights == "folded":
        return f"blocks.{site.layer}.{_FOLDED}"
    return f"blocks.{site.layer}.{next(hook for hook, name in _HOOKS.items() if name == site.name)}"


def needed_input_weights(text: str) -> Literal["native", "folded"] | None:
    """How the model has to be loaded so that a hook's name is right; None where it makes no difference."""
    if parse_site(text).name != "mlp_input":
        return None
    return "folded" if text.endswith(_FOLDED) else "native"


def _checked(site: Site, n_layers: int) -> Site:
    if not 0 <= site.layer < n_layers:
        raise UserError(f"there is no layer {site.layer}; the model has {n_layers} layers, 0 to {n_layers - 1}")
    return site
