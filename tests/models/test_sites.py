"""Hooks' names and the sites they mean."""

from typing import get_args

import pytest

from nejax.errors import UserError
from nejax.models.reading import LayerView
from nejax.models.sae.hook_points import Site, SiteName, find_site, hook_name, needed_input_weights, parse_site


def test_sites_are_values_of_a_layer():
    assert set(get_args(SiteName)) <= set(LayerView._fields)


@pytest.mark.parametrize(
    ("text", "layer", "name"),
    [
        ("blocks.8.hook_resid_pre", 8, "resid_pre"),
        ("blocks.0.hook_resid_mid", 0, "resid_mid"),
        ("blocks.11.hook_resid_post", 11, "resid_post"),
        ("blocks.3.hook_mlp_out", 3, "mlp_output"),
        ("blocks.3.hook_mlp_in", 3, "resid_mid"),
        ("blocks.3.ln2.hook_normalized", 3, "mlp_input"),
        ("blocks.3.mlp.hook_in", 3, "mlp_input"),
        ("h.5.mlp", 5, "mlp_output"),
        ("layers.5.mlp", 5, "mlp_output"),
        ("layers.10", 10, "resid_post"),
        ("transformer.h.2", 2, "resid_post"),
        ("transformer.h.2.mlp", 2, "mlp_output"),
        ("gpt_neox.layers.4", 4, "resid_post"),
        ("model.layers.4.mlp", 4, "mlp_output"),
    ],
)
def test_a_hook_means_a_site(text: str, layer: int, name: SiteName):
    assert parse_site(text) == parse_site(text, 12) == Site(layer, name)


@pytest.mark.parametrize("name", get_args(SiteName))
@pytest.mark.parametrize("input_weights", ["native", "folded"])
def test_the_name_of_a_site_is_read_back(name: SiteName, input_weights: str):
    hook = hook_name(Site(7, name), input_weights=input_weights)
    assert parse_site(hook) == Site(7, name)
    assert needed_input_weights(hook) == (input_weights if name == "mlp_input" else None)


def test_names_of_transformer_lens():
    names = [hook_name(Site(2, name)) for name in ("resid_pre", "resid_mid", "resid_post", "mlp_output")]
    assert names == [
        f"blocks.2.{hook}" for hook in ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_mlp_out")
    ]
    assert hook_name(Site(2, "mlp_input"), input_weights="folded") == "blocks.2.ln2.hook_normalized"


@pytest.mark.parametrize("text", ["blocks.1.attn.hook_z", "blocks.1.hook_attn_out", "layers.1.self_attn", "h.1.attn"])
def test_attention_is_refused(text: str):
    with pytest.raises(UserError, match=r"is inside attention, where nothing can be read; expected a hook of"):
        parse_site(text)


@pytest.mark.parametrize(
    "text",
    ["", "resid_pre", "hook_resid_pre", "blocks.x.hook_resid_pre", "blocks.-1.hook_resid_pre", "blocks.1.mlp.hook_post"]
    + ["blocks.1.ln1.hook_normalized", "hook_embed", "h.1.mlp.c_fc", "blocks.1.hook_resid_pre\n", "h.1\n"],
)
def test_unknown_hooks_are_refused(text: str):
    with pytest.raises(UserError, match="is no place in a model that can be read; expected a hook of"):
        parse_site(text)


def test_layers_that_the_model_does_not_have_are_refused():
    for text in ("blocks.12.hook_resid_pre", "h.12.mlp"):
        with pytest.raises(UserError, match="there is no layer 12; the model has 12 layers, 0 to 11"):
            parse_site(text, 12)


def test_a_name_beside_a_layer():
    assert find_site("mlp_input", 5, 12) == Site(5, "mlp_input")
    assert find_site("mlp_input", None, 12) == Site(2, "mlp_input")
    assert find_site("resid_post", None, 1) == Site(0, "resid_post")
    assert find_site("blocks.8.hook_resid_pre", None, 12) == find_site("blocks.8.hook_resid_pre", 8, 12)
    for layer in (-1, 12):
        with pytest.raises(UserError, match=f"there is no layer {layer}; the model has 12"):
            find_site("mlp_input", layer, 12)
    with pytest.raises(UserError, match="is in layer 8, not 3; leave one of the two out"):
        find_site("blocks.8.hook_resid_pre", 3, 12)
    with pytest.raises(UserError, match="beside a layer, one of resid_pre, "):
        find_site("nonsense", 3, 12)
