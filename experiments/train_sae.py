"""Train a sparse autoencoder on what one site of a GPT-2 holds; save it as SAELens does.

Produces, in `--run`: `sae/` (cfg.json and safetensors: SAELens and evaluate_sae.py load it), `metrics.jsonl`,
`loss.png`, `result.json` with figures on held-out text, and Orbax checkpoints from which the same command resumes
exactly where it was. The SAE is on one device; the model reads on all.

    python experiments/train_sae.py                               # 2,048 latents on layer 2 of the bundled gpt2-tiny
    python experiments/train_sae.py --neuron_embedding=0.1 --run=runs/monosemantic     # with the neuron-embedding loss
    python experiments/train_sae.py --model=gpt2 --corpus=Skylion007/openwebtext --max_sequences=0 --held_out=0.001 \\
        --site=blocks.8.hook_resid_pre --d_sae=24576 --steps=50000 --batch_size=4096 --run=runs/gpt2-8-pre

The first takes three minutes on two cores; the numbers to expect are in docs/measurements.md.
"""

import json
import time
from collections.abc import Generator
from typing import Any, get_args

from absl import flags, logging

from nejax.models.choices import Architecture
from nejax.pipeline.run.settings import CorpusSettings, InputWeights, ModelSettings, check_seq_len
from nejax.scripts import read_flags, run_script, setting_flags, setting_values

SPARSITY = {"standard": 0.02, "jumprelu": 0.001, "gated": 0.02}
"""The default weights of this loss, for inputs of mean length `sqrt(d_in)`."""
N_HELD_OUT = 20_000
"""Inputs of held-out text that the result is of."""

FLAGS = flags.FLAGS
flags.DEFINE_string("run", "runs/train_sae", "Where everything is written; an unfinished run there is resumed.")
setting_flags(ModelSettings, "model")
flags.DEFINE_enum("input_weights", None, get_args(InputWeights), "Default: what --site needs, or else native.")
flags.DEFINE_enum("precision", "float32", ["float32", "bfloat16"], "Type in which the model's products read operands.")
flags.DEFINE_string("site", "mlp_input", "What the SAE reads: a hook's name, or the name of a value beside --layer.")
flags.DEFINE_integer("layer", None, "The layer, where --site does not name it (default: 2, or the last).")
flags.DEFINE_list("corpus", ["python-docs"], "Where text comes from: python-docs, files, folders, Hub names.")
flags.DEFINE_float("held_out", 0.1, "Fraction of the documents kept for validation.", 0.0, 0.5)
setting_flags(CorpusSettings, "max_sequences", "seq_len", max_sequences=8192)
flags.DEFINE_integer("first_position", 1, "First position that is read; 0 reads BOS too.", lower_bound=0)
flags.DEFINE_integer("buffer", 32_768, "The most inputs in a block of the shuffling buffer.", lower_bound=1)
flags.DEFINE_enum("architecture", "topk", get_args(Architecture), "How it is chosen which latents fire.")
flags.DEFINE_integer("d_sae", 2048, "Latents.", lower_bound=1)
flags.DEFINE_integer("k", 32, "topk: latents that fire at an input.", lower_bound=1)
flags.DEFINE_float("threshold", 0.01, "jumprelu: where thresholds start.", lower_bound=0.0)
flags.DEFINE_float("bandwidth", 0.05, "jumprelu: of the kernel in the thresholds' gradients.", lower_bound=1e-9)
flags.DEFINE_float("sparsity", None, f"Weight of the sparsity loss (default: {SPARSITY}).", lower_bound=0.0)
flags.DEFINE_integer("sparsity_warmup", 200, "Steps over which it rises from 0.", lower_bound=0)
flags.DEFINE_float("revival", 0.03, "Weight of the loss that revives silent latents.", lower_bound=0.0)
flags.DEFINE_integer("silent_after", 100_000, "Inputs after which a latent counts as silent.", lower_bound=1)
flags.DEFINE_float("neuron_embedding", 0.0, "Weight of the neuron-embedding loss.", lower_bound=0.0)
flags.DEFINE_float("embedding_fraction", 0.5, "Share of a batch that this loss reads.", 0.0, 1.0)
flags.DEFINE_integer("batch_size", 1024, "Inputs a step.", lower_bound=2)
flags.DEFINE_integer("steps", 400, "Steps in all.", lower_bound=1)
flags.DEFINE_float("learning_rate", 1e-3, "Of Adam, at its peak.", lower_bound=0.0)
flags.DEFINE_integer("warmup", 50, "Steps of linear warm-up.", lower_bound=0)
flags.DEFINE_float("decay", 0.2, "Share of the steps, at the end, over which the learning rate falls to 0.", 0.0, 1.0)
flags.DEFINE_float("clip", 1.0, "Gradients are clipped to this norm.", lower_bound=0.0)
flags.DEFINE_integer("checkpoint_every", 250, "Steps between checkpoints.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Seed of the weights and of the order of the inputs.")

if __name__ == "__main__":
    read_flags()

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from nejax.errors import UserError
from nejax.models.loading import load_model
from nejax.models.sae.architectures import ARCHITECTURES, SAE, fold_scale, make_sae_loss
from nejax.models.sae.evaluation import evaluate_sae
from nejax.models.sae.files import save_sae
from nejax.models.sae.hook_points import SiteName, find_site, hook_name, needed_input_weights
from nejax.pipeline.corpus.documents import refuse_no_corpus
from nejax.pipeline.passes.peaks import PeakRule
from nejax.pipeline.run.directory import RunDirectory
from nejax.training.language_model import Loss, init_train_state, make_train_step, warmup_linear_decay
from nejax.training.run import Curve, plot_training, settings_of_flags, train
from nejax.training.site_inputs import InputStream, SiteReader, first_inputs
from nejax.training.text import sequences_to_evaluate_on, shards_to_train_on


def refuse_nonsense() -> None:
    """Flags that do not fit each other."""
    if FLAGS.architecture == "topk" and FLAGS.k > FLAGS.d_sae:
        raise UserError(f"--k={FLAGS.k}: there are --d_sae={FLAGS.d_sae} latents")
    if FLAGS.architecture == "topk" and FLAGS.sparsity:
        raise UserError(f"--sparsity={FLAGS.sparsity:g}: topk has no such loss; --k decides how many latents fire")


def find_input_weights() -> str:
    """How the model is loaded: as the site's name says, or as is asked for."""
    needed, asked = None if FLAGS.site in get_args(SiteName) else needed_input_weights(FLAGS.site), FLAGS.input_weights
    if needed and asked and asked != needed:
        raise UserError(f"--input_weights={asked}: {FLAGS.site} is in a model with {needed} ones; leave the flag out")
    return asked or needed or "native"


def make_sae(d_in: int, b_dec: np.ndarray) -> SAE:
    """The SAE before the first step: it begins at the inputs' mean."""
    own: dict[str, Any] = {
        "topk": {"k": FLAGS.k},
        "jumprelu": {name: FLAGS[name].value for name in ("threshold", "bandwidth")},
    }
    make = ARCHITECTURES[FLAGS.architecture]
    sae = make(d_in, FLAGS.d_sae, rngs=nnx.Rngs(FLAGS.seed), **own.get(FLAGS.architecture, {}))
    sae.b_dec = nnx.Param(jnp.asarray(b_dec))
    return sae


def make_optimizer() -> optax.GradientTransformation:
    """Adam behind clipping."""
    n_decay = round(FLAGS.decay * FLAGS.steps)
    schedule = warmup_linear_decay(FLAGS.learning_rate, FLAGS.steps, min(FLAGS.warmup, FLAGS.steps), n_decay)
    return optax.chain(optax.clip_by_global_norm(FLAGS.clip), optax.adam(schedule))


def make_loss(graph: nnx.GraphDef) -> Loss:
    """The sum of the weighted losses, of a batch and the share of the sparsity's weight that is reached."""
    sparsity = FLAGS.sparsity if FLAGS.sparsity is not None else SPARSITY.get(FLAGS.architecture, 0.0)
    weights = {"revival": FLAGS.revival, "neuron_embedding": FLAGS.neuron_embedding}
    weights |= {"gate_reconstruction": 1.0} if FLAGS.architecture == "gated" else {}
    settings = {"silent_after": FLAGS.silent_after, "embedding_fraction": FLAGS.embedding_fraction}

    def loss(params: Any, batch: tuple[jax.Array, jax.Array], silence: jax.Array) -> tuple[jax.Array, Any]:
        x, share = batch
        now = weights | ({"sparsity": share * sparsity} if sparsity else {})
        return make_sae_loss(graph, now, **settings)(params, x, silence)

    return loss


def main(argv: list[str]) -> None:
    """Cut the text, train (or resume), evaluate on held-out text, save."""
    refuse_nonsense()
    started, settings = time.monotonic(), settings_of_flags(argv[0])
    input_weights = find_input_weights()
    refuse_no_corpus(FLAGS.corpus)
    loaded = load_model(FLAGS.model, dtype=jnp.dtype(FLAGS.precision), input_weights=input_weights)
    config = loaded.model.config
    site = find_site(FLAGS.site, FLAGS.layer, config.n_layers)
    hook = hook_name(site, input_weights=input_weights)
    check_seq_len(FLAGS.seq_len, config.n_positions, FLAGS.model)
    directory = RunDirectory(FLAGS.run, settings | {"model fingerprint": loaded.fingerprint})
    text = {"held_out": FLAGS.held_out, "seq_len": FLAGS.seq_len, "max_sequences": setting_values()["max_sequences"]}
    read = SiteReader(
        loaded.model, site, rule=PeakRule.of(sorted(loaded.tokenizer.all_special_ids), FLAGS.first_position)
    )
    shards = shards_to_train_on(directory, FLAGS.corpus, loaded.tokenizer, **text)
    stream = InputStream(read, shards, buffer=FLAGS.buffer, seed=FLAGS.seed)
    sample = stream.sample()
    scale = read.d**0.5 / float(np.linalg.norm(sample, axis=1).mean(dtype=np.float64))
    print(f"{hook}: {stream.n_inputs:,} inputs of {stream.n_sequences:,} sequences; scaled by {scale:.4g}")
    graph, params = nnx.split(make_sae(read.d, sample.mean(axis=0) * scale))

    def batches(first: int) -> Generator[tuple[jax.Array, np.float32], None, None]:
        for i, x in enumerate(stream.batches(FLAGS.batch_size, first), start=first):
            yield jnp.asarray(x * np.float32(scale)), np.float32(min(1.0, i / max(FLAGS.sparsity_warmup, 1)))

    optimizer = make_optimizer()
    state, metrics = train(
        directory.path,
        make_train_step(make_loss(graph), optimizer),
        init_train_state(params, optimizer, jnp.zeros(FLAGS.d_sae, jnp.int32)),
        batches,
        n_steps=FLAGS.steps,
        checkpoint_every=FLAGS.checkpoint_every,
        n_per_step=FLAGS.batch_size,
    )
    sae = fold_scale(nnx.merge(graph, state.params), scale)
    save_sae(directory.path / "sae", sae, model_name=FLAGS.model, hook_name=hook, context_size=FLAGS.seq_len)
    held_out, _ = first_inputs(read, sequences_to_evaluate_on(FLAGS.corpus, loaded.tokenizer, **text), N_HELD_OUT)
    result = {
        "held_out": evaluate_sae(sae, held_out).numbers(),
        "inputs_seen": FLAGS.steps * FLAGS.batch_size,
        "epochs": FLAGS.steps * FLAGS.batch_size / stream.n_inputs,
        "seconds_since_last_start": round(time.monotonic() - started, 1),
        "settings": settings,
    }
    (directory.path / "result.json").write_text(json.dumps(result, indent=2))
    other = Curve("silent", "silent latents") if FLAGS.architecture == "topk" else Curve("l0", "latents that fire")
    error = Curve("reconstruction", "squared error, a mean over dimensions")
    plot_training(metrics, directory.path / "loss.png", error, other)
    found = result["held_out"]
    print(
        f"held out: {found['l0']:.1f} latents fire, {found['explained']:.1%} of the variance explained, "
        f"{found['dead']} latents dead, mean distance {found['mean_distance']:.3f}"
    )
    print(f"SAE: {directory.path / 'sae'}\nplot: {directory.path / 'loss.png'}")


if __name__ == "__main__":
    logging.set_verbosity(logging.WARNING)
    run_script(main)
