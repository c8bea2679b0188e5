"""GPT-2 against PyTorch (live, and through the files of make_golden.py), NumPy float64, and itself."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from make_golden import CONFIGS, GOLDEN, random_torch_model, torch_values
from model_files import INNER, LAYERS, POSITIONS, VOCAB, WIDTH, random_tensors, write_model

from nejax.models.families.gpt2 import GPT2, GPT2Config
from nejax.models.formats.weights import load_weights, save_weights
from nejax.models.reading import LayerView, edit_nothing
from nejax.neuron.embeddings import neuron_embeddings

VALUES = LayerView._fields[1:]
TOKENS = jnp.asarray(np.random.default_rng(1).integers(0, VOCAB, (3, 9)))


def read_all(view: LayerView) -> LayerView:
    return view


@functools.partial(jax.jit, static_argnames=("editor", "unroll"))
def run(model: GPT2, tokens: jax.Array, editor=edit_nothing, unroll: int = 1) -> tuple[jax.Array, LayerView]:
    """Logits, and every value of every layer, read in one compiled pass."""
    return model(tokens, reader=read_all, editor=editor, unroll=unroll)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> GPT2:
    return load_weights(write_model(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def plain(model) -> tuple[jax.Array, LayerView]:
    return run(model, TOKENS)


def assert_same_values(model: GPT2, tokens: np.ndarray, expected: dict[str, np.ndarray], tolerance: float) -> None:
    logits, view = run(model, jnp.asarray(tokens))
    values = view._asdict() | {"logits": logits}
    for name in (*VALUES, "logits"):
        np.testing.assert_allclose(values[name], expected[name], rtol=tolerance, atol=tolerance, err_msg=name)


# --- PyTorch is the oracle


@pytest.mark.parametrize("name", CONFIGS)
def test_every_value_of_every_layer_is_that_of_the_golden_files(name: str):
    with np.load(GOLDEN / name / "expected.npz") as expected:
        assert_same_values(load_weights(GOLDEN / name), expected["tokens"], dict(expected), 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"activation_function": "gelu_new", "n_embd": 32, "n_layer": 3, "n_head": 4, "n_inner": 50},
        {"activation_function": "gelu", "n_embd": 24, "n_layer": 2, "n_head": 1, "layer_norm_epsilon": 0.3},
        {"reorder_and_upcast_attn": True, "n_embd": 12, "n_layer": 2, "n_head": 2},
        {"tie_word_embeddings": False, "n_embd": 12, "n_layer": 2, "n_head": 2},
        pytest.param(
            {"activation_function": "relu", "n_embd": 10, "n_layer": 4, "n_head": 5, "layer_norm_epsilon": 1e-8},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"activation_function": "silu", "n_embd": 16, "n_layer": 1, "n_head": 16, "n_inner": 3},
            marks=pytest.mark.slow,
        ),
    ],
    ids=lambda settings: settings.get("activation_function", next(iter(settings))),
)
def test_every_value_of_every_layer_is_pytorchs(settings: dict, tmp_path: Path):
    pytest.importorskip("torch")
    torch_model = random_torch_model(7, deviation=0.15, vocab_size=50, n_positions=40, **settings)
    torch_model.save_pretrained(tmp_path)
    if "reorder_and_upcast_attn" not in settings:  # transformers has this in float32 only
        torch_model.double()
    tokens = np.random.default_rng(7).integers(0, 50, (3, 40))
    assert_same_values(load_weights(tmp_path), tokens, torch_values(torch_model, tokens), 1e-5)


@pytest.mark.slow
def test_full_size_gpt2_small_computes_what_pytorch_computes(tmp_path: Path):
    pytest.importorskip("torch")
    torch_model = random_torch_model(0, deviation=0.02)
    torch_model.save_pretrained(tmp_path)
    tokens = np.random.default_rng(0).integers(0, 50257, (2, 64))
    # Measured against PyTorch in float64: 0.9e-5 at worst, in the logits, from rounding over 12 layers and sums of
    # up to 3072 products; PyTorch's own float32 is as far from its float64 (0.9e-5).
    assert_same_values(load_weights(tmp_path), tokens, torch_values(torch_model.double(), tokens), 2e-5)


@pytest.mark.parametrize(
    ("sizes", "n_parameters"),
    [  # layers, width, heads (Radford et al. 2019, table 2; Sanh et al. 2019); counts as transformers reports them
        ((12, 768, 12), 124_439_808),
        ((24, 1024, 16), 354_823_168),
        ((36, 1280, 20), 774_030_080),
        ((48, 1600, 25), 1_557_611_200),
        ((6, 768, 12), 81_912_576),
    ],
)
def test_published_sizes(sizes: tuple[int, int, int], n_parameters: int):
    n_layers, d_model, n_heads = sizes
    config = GPT2Config(n_layers=n_layers, d_model=d_model, n_heads=n_heads, d_mlp=4 * d_model)
    abstract = nnx.eval_shape(lambda: GPT2(config, rngs=nnx.Rngs(params=0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(abstract))) == n_parameters
    logits, view = nnx.eval_shape(lambda m: m(jnp.zeros((2, 1024), int), reader=read_all), abstract)
    assert logits.shape == (2, 1024, 50257)
    assert view.activation.shape == (n_layers, 2, 1024, 4 * d_model)
    assert view.mlp_input.shape == view.resid_mid.shape == (n_layers, 2, 1024, d_model)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_stays_near_float32(dtype: str):
    """Measured: largest difference, over the largest value of its kind, 0.0089 in bfloat16 and 0.0014 in float16.

    Operands are rounded by up to 2^-9 and 2^-12 of themselves; this adds up over the products of two layers.
    """
    bound = {"bfloat16": 0.015, "float16": 0.0025}[dtype]
    with np.load(GOLDEN / "gelu_new" / "expected.npz") as expected:
        logits, view = run(load_weights(GOLDEN / "gelu_new", dtype=dtype), jnp.asarray(expected["tokens"]))
        for name, value in (view._asdict() | {"logits": logits}).items():
            if name != "layer":
                assert value.dtype == (dtype if name == "mlp_input" else "float32"), name
                scale = np.abs(expected[name]).max()
                np.testing.assert_allclose(value.astype("float32") / scale, expected[name] / scale, atol=bound)


# --- readers


def test_a_reader_sees_what_a_loop_over_the_layers_sees(model: GPT2, plain):
    """The scan, the reader and the stacking, against the same blocks taken apart and run one after the other."""
    run_block = jax.jit(lambda block, residual, layer: block(residual, layer, edit_nothing))
    graph, blocks = nnx.split(model.blocks)
    residual = model.token_embedding(TOKENS) + model.position_embedding(jnp.arange(TOKENS.shape[1]))
    for layer in range(LAYERS):
        block = nnx.merge(graph, jax.tree.map(lambda leaf, layer=layer: leaf[layer], blocks))
        residual, view = run_block(block, residual, jnp.asarray(layer))
        for name in VALUES:
            np.testing.assert_allclose(getattr(plain[1], name)[layer], getattr(view, name), rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(plain[1].layer, np.arange(LAYERS))


def test_a_reader_may_return_any_pytree_of_any_shape(model: GPT2, plain):
    def peaks(view: LayerView) -> dict[str, jax.Array]:
        return {"peak": view.activation.max(axis=(0, 1)), "layer": view.layer}

    logits, readings = model(TOKENS, reader=peaks)
    np.testing.assert_allclose(readings["peak"], plain[1].activation.max(axis=(1, 2)), rtol=1e-5)
    np.testing.assert_array_equal(readings["layer"], np.arange(LAYERS))
    np.testing.assert_allclose(logits, plain[0], rtol=1e-5, atol=1e-5)


def test_without_a_reader_there_are_no_readings(model: GPT2, plain):
    logits, readings = model(TOKENS)
    assert readings is None
    np.testing.assert_allclose(logits, plain[0], rtol=1e-5, atol=1e-5)


def test_embedding_entries_and_bias_sum_to_the_pre_activation(model: GPT2, plain):
    w_in, b_in = model.input_weights(), model.input_bias()
    assert w_in.shape == (LAYERS, WIDTH, INNER) and b_in.shape == (LAYERS, INNER)
    for layer, neuron in [(0, 0), (0, 13), (1, INNER - 1)]:
        x = plain[1].mlp_input[layer].reshape(-1, WIDTH)
        embeddings = neuron_embeddings(x, w_in[layer, :, neuron])
        np.testing.assert_allclose(
            np.asarray(embeddings, np.float64).sum(axis=1) + b_in[layer, neuron],
            plain[1].pre_activation[layer].reshape(-1, INNER)[:, neuron],
            rtol=1e-5,
            atol=1e-6,
        )


@pytest.mark.parametrize("n", range(1, LAYERS + 1))
def test_the_first_layers_alone_compute_what_they_compute_in_the_whole(n: int, model: GPT2, plain):
    shorter = model.first_layers(n)
    assert shorter.config == model.config._replace(n_layers=n) and model.config.n_layers == LAYERS
    view = run(shorter, TOKENS)[1]
    for name in VALUES:
        np.testing.assert_allclose(getattr(view, name), getattr(plain[1], name)[:n], rtol=1e-6, atol=1e-6)


def test_a_number_of_first_layers_that_makes_no_sense(model: GPT2):
    for n in (0, LAYERS + 1):
        with pytest.raises(ValueError, match=f"first {n} layers"):
            model.first_layers(n)


# --- editors


def test_an_editor_that_returns_what_it_gets_changes_nothing(model: GPT2, plain):
    logits, view = run(model, TOKENS, lambda name, value, layer: value * 1)
    np.testing.assert_array_equal(logits, plain[0])
    jax.tree.map(np.testing.assert_array_equal, view, plain[1])


def test_an_editor_is_called_with_every_value_of_a_view(model: GPT2):
    seen = {}

    def editor(name: str, value: jax.Array, layer: jax.Array) -> jax.Array:
        seen[name] = value.shape
        return value

    _, view = model(TOKENS, reader=read_all, editor=editor)
    assert seen == {name: getattr(view, name).shape[1:] for name in VALUES}


def test_the_model_goes_on_with_what_the_editor_returns(model: GPT2, plain):
    """Reversing one value in layer 1: readers see it reversed, and all that comes before it is unchanged."""

    @jax.jit
    def run_reversing(model: GPT2, chosen: jax.Array) -> tuple[jax.Array, LayerView]:
        def reverse(name: str, value: jax.Array, layer: jax.Array) -> jax.Array:
            return jnp.where((layer == 1) & (chosen == VALUES.index(name)), value[..., ::-1], value)

        return model(TOKENS, reader=read_all, editor=reverse)

    for chosen, name in enumerate(VALUES):
        logits, view = run_reversing(model, jnp.asarray(chosen))
        for i, other in enumerate(VALUES):
            before, after = getattr(plain[1], other), getattr(view, other)
            np.testing.assert_allclose(after[0], before[0], rtol=1e-6, atol=1e-6)
            if i < chosen:
                np.testing.assert_allclose(after[1], before[1], rtol=1e-6, atol=1e-6)
        reversed_ = getattr(plain[1], name)[1, ..., ::-1]
        np.testing.assert_allclose(getattr(view, name)[1], reversed_, rtol=1e-6, atol=1e-6)
        assert np.abs(logits - plain[0]).max() > 0.1, name


def silence(layer: int, neuron: int, where: np.ndarray):
    """The editor that sets one neuron to zero at the chosen tokens."""

    def editor(name: str, value: jax.Array, at: jax.Array) -> jax.Array:
        if name != "activation":
            return value
        return jnp.where((at == layer) & where[:, :, None] & (jnp.arange(INNER) == neuron), 0.0, value)

    return editor


def test_silencing_a_neuron_takes_its_row_of_w_out_away_on_the_chosen_tokens(model: GPT2, plain):
    layer, neuron = LAYERS - 1, 5
    where = np.zeros(TOKENS.shape, bool)
    where[0, 3] = where[2, 0] = where[2, 8] = True
    logits, view = run(model, TOKENS, silence(layer, neuron, where))

    tensors = {name: value.astype(np.float64) for name, value in random_tensors().items()}
    w_out = tensors[f"h.{layer}.mlp.c_proj.weight"][neuron]
    contribution = np.asarray(plain[1].activation[layer, :, :, neuron], np.float64)[:, :, None] * w_out
    expected = plain[1].mlp_output[layer] - where[:, :, None] * contribution
    np.testing.assert_allclose(view.mlp_output[layer], expected, rtol=1e-5, atol=1e-6)

    residual = np.asarray(plain[1].resid_mid[layer], np.float64) + expected
    centred = residual - residual.mean(-1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    expected_logits = (normed * tensors["ln_f.weight"] + tensors["ln_f.bias"]) @ tensors["wte.weight"].T
    np.testing.assert_allclose(logits, expected_logits, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(logits[~where], plain[0][~where], rtol=1e-6, atol=1e-6)
    assert np.abs(logits - plain[0])[where].max(axis=-1).min() > 0.01


def test_silencing_a_neuron_everywhere_is_a_model_without_its_row_of_w_out(model: GPT2):
    layer, neuron = 0, 7
    without = nnx.merge(*nnx.split(model))
    kernel = without.blocks.mlp_out.kernel[...]
    without.blocks.mlp_out.kernel = nnx.Param(kernel.at[layer, neuron].set(0.0))
    everywhere = np.ones(TOKENS.shape, bool)
    edited, _ = run(model, TOKENS, silence(layer, neuron, everywhere))
    np.testing.assert_allclose(edited, run(without, TOKENS)[0], rtol=1e-6, atol=1e-6)


# --- native and folded input weights


def test_folding_changes_no_activation(model: GPT2, plain):
    logits, view = run(model.folded(), TOKENS)
    np.testing.assert_allclose(logits, plain[0], rtol=1e-5, atol=1e-5)
    for name in set(VALUES) - {"mlp_input"}:
        np.testing.assert_allclose(getattr(view, name), getattr(plain[1], name), rtol=1e-5, atol=1e-5, err_msg=name)
    # The MLP now reads the bare normalised residual stream, which has mean 0 and (up to epsilon) variance 1.
    np.testing.assert_allclose(view.mlp_input.mean(axis=-1), 0, atol=1e-6)
    np.testing.assert_allclose(view.mlp_input.var(axis=-1), 1, rtol=1e-4)
    assert not np.allclose(view.mlp_input, plain[1].mlp_input, atol=0.1)


def test_folded_weights_are_those_derived_in_float64(model: GPT2):
    folded = model.folded()
    for layer in range(LAYERS):
        tensors = {name: value.astype(np.float64) for name, value in random_tensors().items()}
        scale, shift = tensors[f"h.{layer}.ln_2.weight"], tensors[f"h.{layer}.ln_2.bias"]
        kernel, bias = tensors[f"h.{layer}.mlp.c_fc.weight"], tensors[f"h.{layer}.mlp.c_fc.bias"]
        # A vector without mean meets the same product when any multiple of the ones vector is added to a column.
        centring = np.eye(WIDTH) - np.ones((WIDTH, WIDTH)) / WIDTH
        expected = centring @ np.diag(scale) @ kernel
        np.testing.assert_allclose(folded.input_weights()[layer], expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(folded.input_bias()[layer], bias + kernel.T @ shift, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(folded.input_weights().sum(axis=1), 0, atol=1e-6)


def test_folding_leaves_the_given_model_and_shares_the_rest(model: GPT2):
    tensors = random_tensors()
    folded = model.folded()
    np.testing.assert_array_equal(model.input_weights()[1], tensors["h.1.mlp.c_fc.weight"])
    np.testing.assert_array_equal(model.blocks.mlp_norm.scale[...][1], tensors["h.1.ln_2.weight"])
    assert folded.token_embedding.embedding[...] is model.token_embedding.embedding[...]
    assert folded.blocks.mlp_out.kernel[...] is model.blocks.mlp_out.kernel[...]


# --- one pass, however it is run


def test_jit_is_eager(model: GPT2, plain):
    logits, view = model(TOKENS, reader=read_all)
    np.testing.assert_allclose(logits, plain[0], rtol=1e-5, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), view, plain[1])


def test_one_compilation_a_shape(model: GPT2):
    n_traces = 0

    @jax.jit
    def activations(model: GPT2, tokens: jax.Array):
        nonlocal n_traces
        n_traces += 1
        return model(tokens, reader=lambda view: view.activation)[1]

    activations(model, TOKENS)
    activations(model, TOKENS + 1)
    activations(jax.tree.map(lambda leaf: leaf + 1, model), TOKENS)
    assert n_traces == 1
    activations(model, TOKENS[:2])
    assert n_traces == 2


def test_unrolling_the_layers_changes_nothing(model: GPT2, plain):
    logits, view = run(model, TOKENS, unroll=LAYERS)
    np.testing.assert_allclose(logits, plain[0], rtol=1e-6, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), view, plain[1])


def test_what_comes_later_never_reaches_what_comes_earlier(model: GPT2, plain):
    """Padding on the right, and other tokens there: the positions before are as in the short sequence."""
    n = 5
    short, short_view = run(model, TOKENS[:, :n])
    other = TOKENS.at[:, n:].set((TOKENS[:, n:] + 17) % VOCAB)
    for logits, view in (plain, run(model, other)):
        np.testing.assert_allclose(logits[:, :n], short, rtol=1e-6, atol=1e-6)
        for name in VALUES:
            got, expected = getattr(view, name)[:, :, :n], getattr(short_view, name)
            np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6, err_msg=name)
    assert not np.allclose(run(model, other)[0][:, n:], plain[0][:, n:], atol=0.1)


def test_rows_of_a_batch_do_not_meet(model: GPT2, plain):
    for row in range(len(TOKENS)):
        np.testing.assert_allclose(run(model, TOKENS[row : row + 1])[0][0], plain[0][row], rtol=1e-5, atol=1e-6)


def test_sequences_longer_than_the_model_are_refused(model: GPT2):
    with pytest.raises(ValueError, match=f"{POSITIONS + 1} tokens; this model has {POSITIONS} positions"):
        model(jnp.zeros((1, POSITIONS + 1), int))


def test_a_head_of_its_own_is_saved_and_loaded(tmp_path: Path):
    tensors = random_tensors()
    tensors["lm_head.weight"] = tensors["wte.weight"][::-1].copy()
    model = load_weights(write_model(tmp_path / "theirs", tensors, {"tie_word_embeddings": False}))
    assert not model.config.tied_head
    save_weights(model, tmp_path / "ours")
    for loaded in (model, load_weights(tmp_path / "ours")):
        np.testing.assert_array_equal(loaded.head.embedding[...], tensors["lm_head.weight"])
        np.testing.assert_array_equal(loaded.token_embedding.embedding[...], tensors["wte.weight"])
    # The head's rows are the embedding's in reverse order, and so are the logits.
    tied = load_weights(write_model(tmp_path / "tied"))
    np.testing.assert_allclose(run(model, TOKENS)[0], run(tied, TOKENS)[0][..., ::-1], rtol=1e-6, atol=1e-6)
