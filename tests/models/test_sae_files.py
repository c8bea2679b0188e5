"""SAEs in files: both formats against tensors and formulas written by hand, and what is damaged."""

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from sae_folders import D_IN, D_SAE, HOOK, K, inputs, random_tensors, write_sae, write_sparsify
from safetensors.numpy import load_file

from nejax.errors import UserError
from nejax.models.sae.architectures import ARCHITECTURES, SAE, fold_scale
from nejax.models.sae.files import LoadedSAE, load_sae, save_sae
from nejax.models.sae.hook_points import Site


def refusal(name: str | Path, **options) -> str:
    """The one line with which an SAE is refused."""
    with pytest.raises(UserError) as caught:
        load_sae(name, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- SAELens


def test_what_is_loaded(tmp_path: Path):
    loaded = load_sae(write_sae(tmp_path / "sae"))
    assert isinstance(loaded, LoadedSAE) and type(loaded.sae) is SAE
    assert (loaded.hook_name, loaded.site, loaded.input_weights) == (HOOK, Site(2, "resid_pre"), None)
    assert (loaded.model_name, loaded.context_size, loaded.prepend_bos) == ("gpt2", None, True)
    assert not loaded.centred and not loaded.scale_by_mean_norm and loaded.name == str(tmp_path / "sae")
    for name, values in random_tensors().items():
        np.testing.assert_array_equal(getattr(loaded.sae, name)[...], values)
    w = {name: values.astype("f8") for name, values in random_tensors().items()}
    latents = np.maximum((inputs() - w["b_dec"]) @ w["W_enc"] + w["b_enc"], 0)
    np.testing.assert_allclose(loaded.sae.encode(jnp.asarray(inputs())), latents, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["f8", "f2", ml_dtypes.bfloat16])
def test_other_types_are_read_as_float32(dtype: Any, tmp_path: Path):
    tensors = {name: values.astype(dtype) for name, values in random_tensors().items()}
    loaded = load_sae(write_sae(tmp_path, tensors=tensors)).sae
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(loaded))} == {jnp.dtype("float32")}
    np.testing.assert_array_equal(loaded.W_enc[...], tensors["W_enc"].astype("f4"))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_saved_and_loaded(architecture: str, tmp_path: Path):
    options = {"k": K, "rescale_acts_by_decoder_norm": True} if architecture == "topk" else {}
    normalize = {"normalize": "layer_norm", "apply_b_dec_to_input": False}
    sae = ARCHITECTURES[architecture](D_IN, D_SAE, rngs=nnx.Rngs(3), **options, **normalize)
    folder = tmp_path / "new" / "sae"
    about = {"model_name": "gpt2", "hook_name": "blocks.1.ln2.hook_normalized"}
    save_sae(folder, sae, context_size=64, prepend_bos=False, centred=True, **about)
    loaded = load_sae(folder)
    assert (loaded.model_name, loaded.hook_name) == tuple(about.values())
    assert (loaded.site, loaded.input_weights) == (Site(1, "mlp_input"), "folded")
    assert (loaded.context_size, loaded.prepend_bos, loaded.centred) == (64, False, True)
    graph, state = nnx.split(sae)
    assert type(loaded.sae) is type(sae) and nnx.split(loaded.sae)[0] == graph
    jax.tree.map(np.testing.assert_array_equal, nnx.state(loaded.sae), state)
    modes = {path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert len(modes) == 1


def test_an_sae_that_is_not_finite_is_not_saved(tmp_path: Path):
    sae = SAE(D_IN, D_SAE, rngs=nnx.Rngs(0))
    sae.b_dec = nnx.Param(jnp.full(D_IN, jnp.nan))
    with pytest.raises(UserError, match="cannot be saved: not finite: b_dec; save one from before"):
        save_sae(tmp_path / "sae", sae, model_name="gpt2", hook_name=HOOK)
    assert not (tmp_path / "sae").exists()


def test_centred_inputs(tmp_path: Path):
    def centred(**settings: Any) -> bool:
        return load_sae(write_sae(tmp_path, settings)).centred

    assert not centred()
    assert centred(model_from_pretrained_kwargs={"center_writing_weights": True})
    assert centred(metadata={"hook_name": HOOK, "model_from_pretrained_kwargs": {"center_writing_weights": True}})
    old = {"metadata": None, "hook_point": HOOK, "model_name": "gpt2-small"}
    assert centred(**old)
    assert not centred(**old, model_from_pretrained_kwargs={"center_writing_weights": False})
    assert not centred(metadata=None, hook_name=HOOK, model_from_pretrained_kwargs={})


def test_a_scale_that_the_file_knows_is_folded_in(tmp_path: Path):
    plain = load_sae(write_sae(tmp_path / "plain")).sae
    for settings in ({"normalize_activations": "expected_average_only_in"}, {"normalize_activations": True}):
        folder = write_sae(tmp_path / "scaled", settings)
        (folder / "activation_scaler.json").unlink(missing_ok=True)
        unknown = load_sae(folder)
        assert unknown.scale_by_mean_norm
        jax.tree.map(np.testing.assert_array_equal, nnx.state(unknown.sae), nnx.state(plain))
        (folder / "activation_scaler.json").write_text('{"scaling_factor": 0.25, "has_whitening": false}')
        known = load_sae(folder)
        assert not known.scale_by_mean_norm and known.fingerprint != unknown.fingerprint
        jax.tree.map(np.testing.assert_array_equal, nnx.state(known.sae), nnx.state(fold_scale(plain, 0.25)))
        x = jnp.asarray(inputs())
        np.testing.assert_allclose(known.sae.encode(x), plain.encode(0.25 * x), rtol=1e-5, atol=1e-6)


def test_a_hook_that_cannot_be_read_is_left_to_the_reader(tmp_path: Path):
    for hook in ("blocks.2.hook_attn_out", "hidden", None):
        loaded = load_sae(write_sae(tmp_path, {"metadata": {"hook_name": hook}}))
        assert (loaded.hook_name, loaded.site, loaded.input_weights) == (hook, None, None)


def test_the_fingerprint_is_that_of_the_files(tmp_path: Path):
    first = load_sae(write_sae(tmp_path / "a")).fingerprint
    assert re.fullmatch("[0-9a-f]{32}", first)
    assert load_sae(write_sae(tmp_path / "b")).fingerprint == first
    assert load_sae(write_sae(tmp_path / "c", tensors=random_tensors(1))).fingerprint != first
    assert load_sae(write_sae(tmp_path / "d", {"apply_b_dec_to_input": False})).fingerprint != first


# --- sparsify


def sparsify_by_hand(x: np.ndarray, d_sae: int) -> tuple[np.ndarray, np.ndarray]:
    """Latents and reconstruction as `sparse_coder.py` of sparsify has them, in float64."""
    w = {name: values.astype("f8") for name, values in random_tensors(d_sae=d_sae).items()}
    pre = np.maximum((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"], 0)
    latents = np.zeros_like(pre)
    for row, values in enumerate(pre):
        largest = np.argsort(-values, kind="stable")[:K]
        latents[row, largest] = values[largest]
    return latents, latents @ w["W_dec"] + w["b_dec"]


@pytest.mark.parametrize(
    ("settings", "d_sae"),
    [({}, D_SAE), ({"num_latents": 0, "expansion_factor": 3}, 3 * D_IN), ({"multi_topk": True}, D_SAE)],
)
def test_an_sae_of_sparsify(settings: dict, d_sae: int, tmp_path: Path):
    loaded = load_sae(write_sparsify(tmp_path / "h.3.mlp", settings, d_sae=d_sae))
    latents, decoded = sparsify_by_hand(inputs(), d_sae)
    assert (latents > 0).sum(axis=1).max() == K
    np.testing.assert_allclose(loaded.sae.encode(jnp.asarray(inputs())), latents, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(loaded.sae(jnp.asarray(inputs())), decoded, rtol=1e-5, atol=1e-6)
    assert (loaded.hook_name, loaded.site, loaded.input_weights) == ("h.3.mlp", Site(3, "mlp_output"), None)
    assert (loaded.model_name, loaded.context_size, loaded.prepend_bos) == (None, None, False)
    assert not loaded.centred and not loaded.scale_by_mean_norm


def test_the_run_of_sparsify_names_the_model(tmp_path: Path):
    for folder in (tmp_path / "layers.5", tmp_path / "layers.5" / "seed1"):
        loaded = load_sae(write_sparsify(folder))
        assert (loaded.hook_name, loaded.site, loaded.model_name) == ("layers.5", Site(5, "resid_post"), None)
    (tmp_path / "config.json").write_text('{"model": "openai-community/gpt2", "ctx_len": 2048}')
    for folder in (tmp_path / "layers.5", tmp_path / "layers.5" / "seed1"):
        loaded = load_sae(folder)
        assert (loaded.model_name, loaded.context_size) == ("openai-community/gpt2", 2048)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"transcode": True}, "transcode true; expected false: only autoencoders can be read"),
        ({"skip_connection": True}, "skip_connection true; expected false: only autoencoders"),
        ({"signed": True}, "signed true; expected false"),
        ({"activation": "groupmax"}, 'activation "groupmax"; expected topk'),
        ({"k": D_SAE + 1}, "k 41; expected at most 40"),
    ],
)
def test_what_sparsify_has_more_is_refused(settings: dict, message: str, tmp_path: Path):
    assert message in refusal(write_sparsify(tmp_path / "h.3.mlp", settings))


def test_a_transcoders_tensor_is_refused(tmp_path: Path):
    folder = write_sparsify(tmp_path / "h.3.mlp", W_skip=np.zeros((D_IN, D_IN), "f4"))
    assert "not expected: W_skip" in refusal(folder)


# --- what is damaged, missing or not implemented


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architecture": "batchtopk"}, 'architecture "batchtopk"; expected standard, topk, jumprelu, gated (save it'),
        ({"architecture": "matryoshka_batchtopk"}, "(save it with save_inference_model of SAELens, which"),
        ({"architecture": "temporal"}, "gated (its latents depend on other tokens, which is not supported)"),
        ({"architecture": "matching_pursuit"}, "(it chooses its latents one after the other, which is not"),
        ({"architecture": "jumprelu_skip_transcoder"}, "(transcoders map one value of a model to another, which is"),
        ({"architecture": "alien"}, 'architecture "alien"; expected standard, topk, jumprelu, gated'),
        ({"architecture": "jumprelu", "activation_fn": "topk"}, '"topk"; expected relu in a jumprelu SAE'),
        (
            {"activation_fn": "relu", "activation_fn_str": "topk"},
            'activation_fn_str "topk"; expected "relu", as activa',
        ),
        ({"hook_point": "blocks.1.hook_resid_pre"}, f'expected "{HOOK}", as hook_name has it'),
        ({"model_name": "pythia"}, 'model_name "pythia"; expected "gpt2-small", as model_name has it'),
        ({"d_out": D_IN}, "d_out 12; expected none: heads and transcoders"),
        (
            {"activation_fn": "topk", "k": 3, "activation_fn_kwargs": {"k": 4}},
            "k 3; expected activation_fn_kwargs.k, which is 4",
        ),
        (
            {"activation_fn": "topk", "activation_fn_kwargs": {"k": 4, "postact_fn": "tanh"}},
            'activation_fn_kwargs.postact_fn "tanh"; expected none',
        ),
        (
            {"metadata": {"hook_name": "blocks.2.mlp.hook_in", "model_from_pretrained_kwargs": {"fold_ln": True}}},
            "fold_ln true; expected false, or a hook that it leaves alone, not blocks.2.mlp.hook_in",
        ),
        ({"architecture": 3}, "architecture 3; expected str"),
        ({"architecture": "topk"}, "has no k; get the file again, or add it"),
        ({"architecture": "topk", "k": 41}, "k 41; expected at most 40"),
        ({"architecture": "topk", "k": 0}, "k 0; expected a positive number"),
        ({"d_in": None}, "has no d_in; get"),
        ({"d_sae": None}, "has no d_sae; get"),
        ({"d_sae": "many"}, 'd_sae "many"; expected int'),
        ({"d_in": True}, "d_in true; expected int"),
        ({"d_in": -3}, "d_in -3; expected a positive number"),
        ({"apply_b_dec_to_input": "yes"}, 'apply_b_dec_to_input "yes"; expected bool'),
        ({"activation_fn_str": "tanh-relu"}, 'activation_fn "tanh-relu"; expected relu or topk'),
        ({"activation_fn_str": "topk", "activation_fn_kwargs": {"k": "5"}}, 'activation_fn_kwargs.k "5"; expected int'),
        ({"normalize_activations": "covariance_whitening"}, '"covariance_whitening"; expected none, layer_norm, '),
        ({"normalize_activations": 1}, "normalize_activations 1; expected str or bool"),
        ({"reshape_activations": "hook_z"}, 'reshape_activations "hook_z" of blocks.2.hook_resid_pre; expected none'),
        (
            {"metadata": None, "hook_point": "blocks.2.attn.hook_z"},
            "of blocks.2.attn.hook_z; expected none, and a hook",
        ),
        ({"hook_point_head_index": 3}, "hook_point_head_index 3; expected none: heads"),
        ({"metadata": {"hook_name_out": HOOK}}, "expected none: heads and transcoders cannot be read"),
        ({"metadata": [1]}, "metadata [1]; expected dict"),
    ],
)
def test_configurations_that_cannot_be_read(settings: dict, message: str, tmp_path: Path):
    line = refusal(write_sae(tmp_path, settings))
    assert message in line and line.startswith(str(tmp_path / "cfg.json"))


def test_fields_that_are_not_known_are_named(tmp_path: Path, capsys: pytest.CaptureFixture):
    about = {"hook_name": HOOK, "model_from_pretrained_kwargs": {"checkpoint_index": 3, "fold_ln": False}, "alien": "a"}
    folder = write_sae(tmp_path / "sae", {"k": 5, "alien": 1, "seed": 42, "hook_eval": None, "metadata": about})
    load_sae(folder)
    warning = capsys.readouterr().err
    assert warning.count("\n") == 1 and f"{folder / 'cfg.json'} has keys that nejax does not know" in warning
    for part in ("k 5", "alien 1", "metadata.alien 'a'", "model_from_pretrained_kwargs.checkpoint_index 3"):
        assert part in warning
    assert "seed" not in warning and "fold_ln" not in warning
    load_sae(write_sparsify(tmp_path / "h.3.mlp", {"rotated": True}))
    assert "rotated True" in capsys.readouterr().err
    load_sae(write_sparsify(tmp_path / "h.3.mlp"))
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "cannot be read as JSON ("),
        ("{", "cannot be read as JSON ("),
        ("\x00", "cannot be read as JSON ("),
        ("[" * 100_000, "cannot be read as JSON ("),
        ("[1]", "holds a JSON list, expected an object"),
    ],
)
def test_a_configuration_that_is_no_json_object(content: str, message: str, tmp_path: Path):
    folder = write_sae(tmp_path)
    (folder / "cfg.json").write_text(content)
    assert message in refusal(folder)


def test_a_scaling_factor_that_is_no_number(tmp_path: Path):
    folder = write_sae(tmp_path, {"normalize_activations": True})
    for content, message in {'"x"': "expected ", "0": "0; expected a positive", "NaN": "NaN; expected a pos"}.items():
        (folder / "activation_scaler.json").write_text(f'{{"scaling_factor": {content}}}')
        assert message in refusal(folder)


def test_a_folder_without_its_parts(tmp_path: Path):
    folder = write_sae(tmp_path / "sae")
    (folder / "sae_weights.safetensors").unlink()
    assert "no weights in" in refusal(folder) and "sae.safetensors (sparsify)" in refusal(folder)
    (folder / "cfg.json").unlink()
    assert refusal(folder).startswith(f"no cfg.json in {folder}; expected the folder of an SAE")


def test_tensors_that_do_not_fit_are_all_named(tmp_path: Path):
    tensors = random_tensors()
    tensors["W_enc"] = tensors["W_enc"].T.copy()
    tensors["b_dec"][3] = np.inf
    del tensors["b_enc"]
    line = refusal(write_sae(tmp_path, tensors=tensors | {"W_skip": tensors["W_dec"]}))
    assert "the weights of the standard SAE" in line
    assert "missing: b_enc; not expected: W_skip; wrong shape: W_enc [40, 12] (expected [12, 40]); " in line
    assert "not finite: b_dec; get the SAE's files again" in line
    assert "missing: b_gate, b_mag, r_mag; not expected: b_enc" in refusal(
        write_sae(tmp_path, {"architecture": "gated"})
    )
    assert "missing: threshold" in refusal(write_sae(tmp_path, {"architecture": "jumprelu"}))


def test_values_beyond_float32_and_types_that_are_no_weights(tmp_path: Path):
    tensors = random_tensors()
    assert "not finite: b_dec" in refusal(write_sae(tmp_path, tensors=tensors | {"b_dec": np.full(D_IN, 1e300)}))
    line = refusal(write_sae(tmp_path, tensors=tensors | {"b_dec": np.ones(D_IN, "i4")}))
    assert "b_dec of type I32; expected one of F64, F32" in line


def test_truncated_weights(tmp_path: Path):
    file = write_sae(tmp_path) / "sae_weights.safetensors"
    content = file.read_bytes()
    for size in (0, 7, 100, len(content) - 1):
        file.write_bytes(content[:size])
        assert refusal(tmp_path).startswith(f"damaged or truncated weights: {file} (")


def test_a_finetuned_sae_is_refused(tmp_path: Path):
    factor = np.ones(D_SAE, "f4")
    x = jnp.asarray(inputs())
    loaded = load_sae(write_sae(tmp_path, tensors=random_tensors() | {"scaling_factor": factor})).sae
    np.testing.assert_array_equal(loaded(x), load_sae(write_sae(tmp_path)).sae(x))
    factor[5] = 1.1
    assert "scaling_factor other than 1" in refusal(
        write_sae(tmp_path, tensors=random_tensors() | {"scaling_factor": factor})
    )


@pytest.mark.parametrize(
    "name", ["", "no-such-folder", "./nothing/here/at/all", "/nothing", "~/a/b", "a b/c/d", "a/b//c"]
)
def test_paths_that_are_not_there_are_refused(name: str):
    assert refusal(name).startswith(f"there is no folder {name!r}; expected a local folder, or ORGANISATION/NAME/PATH")


def test_a_file_and_a_revision_of_a_folder(tmp_path: Path):
    folder = write_sae(tmp_path)
    assert "is a file; expected the folder" in refusal(folder / "cfg.json")
    assert "is local and has no revision 'main'" in refusal(folder, revision="main")


def test_what_is_saved_is_what_sae_lens_names(tmp_path: Path):
    sae = ARCHITECTURES["gated"](D_IN, D_SAE, rngs=nnx.Rngs(0))
    save_sae(tmp_path, sae, model_name="gpt2", hook_name=HOOK)
    tensors = load_file(tmp_path / "sae_weights.safetensors")
    assert {name: values.shape for name, values in tensors.items()} == {
        "W_enc": (D_IN, D_SAE),
        "W_dec": (D_SAE, D_IN),
        "b_dec": (D_IN,),
        **dict.fromkeys(("b_gate", "b_mag", "r_mag"), (D_SAE,)),
    }
