"""SAEs of the installed SAELens load here, and those saved here load there: the same latents and reconstructions."""

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from nejax.models.sae.architectures import ARCHITECTURES, SAE
from nejax.models.sae.files import load_sae, save_sae
from nejax.models.sae.hook_points import Site
from nejax.models.sae.keys import ONE_VALUE_ONLY, SAE_LENS_HARMLESS, why_not_read

if TYPE_CHECKING:
    import sae_lens
    import torch
else:  # imported when a test needs them, not by whoever only collects the tests
    sae_lens = torch = None

pytestmark = pytest.mark.slow  # the imports take seconds


@pytest.fixture(scope="module", autouse=True)
def imports():
    global sae_lens, torch
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sae_lens = pytest.importorskip("sae_lens")


D_IN, D_SAE, K = 24, 64, 5
NORMALIZATIONS = ["none", "layer_norm", "constant_norm_rescale"]
CASES = [
    *[(architecture, {}) for architecture in ARCHITECTURES],
    ("topk", {"rescale_acts_by_decoder_norm": True}),
]
OPTIONS = [
    {"normalize_activations": normalize, "apply_b_dec_to_input": subtract}
    for normalize in NORMALIZATIONS
    for subtract in (True, False)
]
# What is done to the input is the same code for all: all six ways for one, three for the others.
EVERY = [("standard", {}, options) for options in OPTIONS]
EVERY += [(*case, options) for case in CASES[1:] for options in (OPTIONS[0], OPTIONS[3], OPTIONS[5])]


def theirs(architecture: str, **options: Any) -> Any:
    """An SAE of SAELens, all parameters random and none 0. Pre-activations have a deviation near 1."""
    from sae_lens.registry import get_sae_class

    make, configure = get_sae_class(architecture)
    if architecture == "topk":
        options = {"k": K} | options
    sae = make(configure(d_in=D_IN, d_sae=D_SAE, **options))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, values in sae.named_parameters():
            scale = 0.2 if name in ("W_enc", "W_dec") else 0.3
            values.copy_(scale * torch.randn(values.shape))
        # Rows of the decoder of different lengths, so that it matters which is multiplied by which.
        sae.W_dec *= torch.linspace(0.5, 2, D_SAE)[:, None]
    return sae


def inputs() -> np.ndarray:
    """Some of them short: what is added to a deviation matters there."""
    rng = np.random.default_rng(1)
    return (rng.normal(0.3, 1, (50, D_IN)) * np.geomspace(0.05, 5, 50)[:, None]).astype(np.float32)


def assert_same(ours: SAE, other: Any) -> None:
    x = jnp.asarray(inputs())
    with torch.no_grad():
        latents = other.encode(torch.tensor(inputs()))
        decoded = other.decode(latents).numpy()
    fires = (latents > 0).float().mean()
    assert 0.01 < fires < 0.9, fires
    np.testing.assert_array_equal(np.asarray(ours.encode(x)) > 0, latents.numpy() > 0)
    np.testing.assert_allclose(ours.encode(x), latents.numpy(), rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(ours(x), decoded, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("architecture", "own", "options"), EVERY)
def test_an_sae_of_sae_lens_and_back(
    architecture: str, own: dict, options: dict, tmp_path: Path, capsys: pytest.CaptureFixture
):
    other = theirs(architecture, **own, **options)
    about = {"hook_name": "blocks.3.hook_resid_pre", "model_name": "gpt2-medium", "context_size": 64}
    for name, value in about.items():
        other.cfg.metadata[name] = value
    other.cfg.metadata.prepend_bos = False
    other.cfg.metadata.model_from_pretrained_kwargs = {"center_writing_weights": True}
    other.save_model(tmp_path / "theirs")
    capsys.readouterr()
    loaded = load_sae(tmp_path / "theirs")
    assert "warning: " not in capsys.readouterr().err
    assert type(loaded.sae) is ARCHITECTURES[architecture]
    assert (loaded.site, loaded.model_name, loaded.centred) == (Site(3, "resid_pre"), "gpt2-medium", True)
    assert (loaded.context_size, loaded.prepend_bos, loaded.scale_by_mean_norm) == (64, False, False)
    assert_same(loaded.sae, other)

    save_sae(tmp_path / "ours", loaded.sae, centred=True, prepend_bos=False, **about)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it wants a model with centred weights
        again = sae_lens.SAE.load_from_disk(tmp_path / "ours")
    settings, expected = again.cfg.to_dict(), other.cfg.to_dict()
    metadata, expected_metadata = settings.pop("metadata"), expected.pop("metadata")
    assert settings == expected and type(again) is type(other)
    for name in [*about, "prepend_bos", "model_from_pretrained_kwargs"]:
        assert metadata[name] == expected_metadata[name]
    for name, values in other.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], values, rtol=0, atol=0)


def test_the_fields_that_sae_lens_writes_are_all_there(tmp_path: Path):
    for architecture, make in ARCHITECTURES.items():
        sae = make(D_IN, D_SAE, rngs=nnx.Rngs(0), **({"k": K} if architecture == "topk" else {}))
        save_sae(tmp_path / "ours", sae, model_name="gpt2-small", hook_name="blocks.3.hook_resid_pre")
        theirs(architecture).save_model(tmp_path / "theirs")
        ours, other = (json.loads((tmp_path / of / "cfg.json").read_text()) for of in ("ours", "theirs"))
        assert ours.keys() == other.keys()
        assert {name: type(value) for name, value in ours.items()} == {n: type(value) for n, value in other.items()}


def test_every_field_of_sae_lens_is_known():
    """Of what it writes of an SAE, of its training, and of its runs; and no other architecture of it is read."""
    import dataclasses

    from sae_lens.loading.pretrained_sae_loaders import LLM_METADATA_KEYS
    from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY

    configs = [
        registry[name][1] for registry in (SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY) for name in ARCHITECTURES
    ]
    configs += [sae_lens.LanguageModelSAERunnerConfig, sae_lens.LoggingConfig]
    fields = {field.name for config in configs for field in dataclasses.fields(config)} | LLM_METADATA_KEYS
    read = {"d_in", "d_sae", "apply_b_dec_to_input", "normalize_activations", "reshape_activations", "metadata", "k"}
    read |= {"rescale_acts_by_decoder_norm", "model_name", "hook_name", "context_size", "prepend_bos"}
    read |= {"model_from_pretrained_kwargs"}
    assert len(fields) > 80 and fields == (fields & SAE_LENS_HARMLESS) | read | (fields & {*ONE_VALUE_ONLY})
    for architecture in SAE_CLASS_REGISTRY.keys() | SAE_TRAINING_CLASS_REGISTRY.keys():
        assert architecture in ARCHITECTURES or why_not_read(architecture), architecture


@pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu", "gated", "batchtopk", "matryoshka_batchtopk"])
def test_an_sae_that_sae_lens_trained(architecture: str, tmp_path: Path):
    """As its training ends: batchtopk and matryoshka become jumprelu."""
    from sae_lens.registry import get_sae_training_class

    make, configure = get_sae_training_class(architecture)
    options = {"k": K} if "topk" in architecture else {}
    if "matryoshka" in architecture:
        options["matryoshka_widths"] = [16, D_SAE]
    trained = make(configure(d_in=D_IN, d_sae=D_SAE, **options))
    with torch.no_grad():
        for name, values in trained.named_parameters():
            values.add_(0.05 * torch.randn(values.shape, generator=torch.Generator().manual_seed(len(name))))
        if hasattr(trained, "topk_threshold"):
            trained.topk_threshold.fill_(0.2)
        if architecture == "jumprelu":
            trained.threshold.fill_(0.3)
    trained.save_inference_model(tmp_path)
    assert_same(load_sae(tmp_path).sae, sae_lens.SAE.load_from_disk(tmp_path))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_scale_of_a_checkpoint_is_folded_in(architecture: str, tmp_path: Path):
    from sae_lens.training.activation_scaler import ActivationScaler

    other = theirs(architecture, normalize_activations="expected_average_only_in")
    other.save_model(tmp_path)
    assert load_sae(tmp_path).scale_by_mean_norm
    scaler = ActivationScaler(scaling_factor=0.37)
    scaler.save(str(tmp_path / "activation_scaler.json"))
    loaded = load_sae(tmp_path)
    assert not loaded.scale_by_mean_norm
    other.fold_activation_norm_scaling_factor(0.37)
    assert_same(loaded.sae, other)


OLD = {"d_in": D_IN, "d_sae": D_SAE, "dtype": "float32", "model_name": "gpt2-small", "context_size": 128}


@pytest.mark.parametrize(
    ("old", "architecture", "options"),
    [
        (
            {"hook_point": "blocks.8.hook_resid_pre", "hook_point_layer": 8, "hook_point_head_index": None},
            "standard",
            {},
        ),
        ({"hook_point": "blocks.8.hook_resid_pre", "normalize_activations": False}, "standard", {}),
        (
            {"hook_name": "blocks.8.hook_resid_pre", "architecture": "jumprelu", "apply_b_dec_to_input": False},
            "jumprelu",
            {"apply_b_dec_to_input": False},
        ),
        (
            {
                "hook_name": "blocks.8.hook_resid_pre",
                "architecture": "standard",
                "activation_fn_str": "topk",
                "activation_fn_kwargs": {"k": 7},
                "normalize_activations": "layer_norm",
                "finetuning_scaling_factor": False,
                "sae_lens_training_version": "3.20.0",
            },
            "topk",
            {"k": 7, "normalize_activations": "layer_norm"},
        ),
        ({"hook_name": "blocks.8.hook_resid_pre", "architecture": "gated", "activation_fn_str": "relu"}, "gated", {}),
    ],
)
def test_older_configurations(old: dict, architecture: str, options: dict, tmp_path: Path):
    theirs(architecture, **options).save_model(tmp_path)
    (tmp_path / "cfg.json").write_text(json.dumps(OLD | old))
    other = sae_lens.SAE.load_from_disk(tmp_path)
    loaded = load_sae(tmp_path)
    assert (loaded.site, loaded.context_size, loaded.prepend_bos) == (Site(8, "resid_pre"), 128, True)
    assert_same(loaded.sae, other)


def test_thresholds_as_logarithms_and_a_scaling_factor_of_1(tmp_path: Path):
    from safetensors.torch import load_file, save_file

    other = theirs("jumprelu")
    with torch.no_grad():
        other.threshold.abs_()
    other.save_model(tmp_path)
    tensors = load_file(tmp_path / "sae_weights.safetensors")
    tensors["log_threshold"] = tensors.pop("threshold").log()
    save_file(tensors | {"scaling_factor": torch.ones(D_SAE)}, tmp_path / "sae_weights.safetensors")
    assert_same(load_sae(tmp_path).sae, other)


def test_the_normalised_hook_is_the_input_of_folded_weights(tmp_path: Path):
    """`ln2.hook_normalized` comes before LayerNorm's scale and shift, whatever TransformerLens folds."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    config = HookedTransformerConfig(
        n_layers=1, d_model=8, n_ctx=4, d_head=4, d_vocab=11, act_fn="gelu_new", normalization_type="LN", seed=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is gone in version 4
        model = HookedTransformer(config)
    with torch.no_grad():
        model.blocks[0].ln2.w.mul_(3)
        model.blocks[0].ln2.b.add_(1)
    cache = model.run_with_cache(torch.tensor([[1, 2, 3]]))[1]
    normalized = cache["blocks.0.ln2.hook_normalized"]
    np.testing.assert_allclose(normalized.mean(-1).numpy(), 0, atol=1e-6)
    np.testing.assert_allclose(normalized.var(-1, unbiased=False).numpy(), 1, rtol=1e-3)
    pre = normalized * model.blocks[0].ln2.w + model.blocks[0].ln2.b
    expected = pre @ model.blocks[0].mlp.W_in + model.blocks[0].mlp.b_in
    np.testing.assert_allclose(cache["blocks.0.mlp.hook_pre"].detach().numpy(), expected.detach().numpy(), atol=1e-5)
