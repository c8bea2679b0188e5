"""Train a byte-level BPE tokenizer and a GPT-2 on any text; save a standard Hugging Face directory.

Produces, in `--run`: `model/` (config, safetensors, tokenizer: transformers and nejax load it), `metrics.jsonl`,
`loss.png`, `result.json` with the held-out bits per byte, and Orbax checkpoints from which the same command resumes
exactly where it was. The model has as many positions as a sequence has tokens, `--seq_len`.

    python experiments/train_lm.py                                   # a small model on Python's documentation
    python experiments/train_lm.py --corpus=texts/,more.jsonl.xz --n_layers=12 --d_model=768 --n_heads=12 \\
        --precision=bfloat16 --steps=100000 --run=runs/small         # GPT-2 small

The time that the first takes and the numbers to expect are in docs/measurements.md; the command and figures of the
bundled gpt2-tiny are in nejax/assets/gpt2-tiny/README.md.
"""

import json
import time
from collections.abc import Generator
from typing import Any

from absl import flags, logging

from nejax.pipeline.run.settings import CorpusSettings
from nejax.scripts import read_flags, run_script, setting_flags, setting_values

FLAGS = flags.FLAGS
flags.DEFINE_list("corpus", ["python-docs"], "Where text comes from: python-docs, files, folders, Hub names.")
flags.DEFINE_string("run", "runs/train_lm", "Where everything is written; an unfinished run there is resumed.")
flags.DEFINE_integer("vocab_size", 8000, "Tokens of the tokenizer.", lower_bound=257)
flags.DEFINE_integer("n_layers", 2, "Layers.", lower_bound=1)
flags.DEFINE_integer("d_model", 128, "Width of the residual stream.", lower_bound=1)
flags.DEFINE_integer("n_heads", 4, "Attention heads; must divide d_model.", lower_bound=1)
flags.DEFINE_integer("d_mlp", None, "Neurons a layer (default: 4 d_model).", lower_bound=1)
setting_flags(CorpusSettings, "seq_len", seq_len=256)
flags.DEFINE_integer("batch_size", 16, "Sequences a step.", lower_bound=1)
flags.DEFINE_integer("steps", 200, "Steps in all; the learning rate follows a cosine over them.", lower_bound=1)
flags.DEFINE_integer("warmup", 50, "Steps of linear warm-up.", lower_bound=0)
flags.DEFINE_enum("optimizer", "muon", ["muon", "adamw"], "Muon for the blocks' matrices, or AdamW for all.")
flags.DEFINE_float("learning_rate", 4e-3, "Peak learning rate.", lower_bound=0.0)
flags.DEFINE_float("weight_decay", 0.1, "Decoupled weight decay of the blocks' matrices.", lower_bound=0.0)
flags.DEFINE_float("clip", 1.0, "Gradients are clipped to this norm.", lower_bound=0.0)
flags.DEFINE_enum("precision", "float32", ["float32", "bfloat16"], "Type in which products read their operands.")
flags.DEFINE_float("held_out", 0.05, "Fraction of the documents kept for validation.", 0.0, 0.5)
setting_flags(CorpusSettings, "max_sequences", max_sequences=None)
flags.DEFINE_integer("evaluate_every", 200, "Steps between looks at a sample of the held-out text.", lower_bound=1)
flags.DEFINE_integer("checkpoint_every", 200, "Steps between checkpoints.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Seed of the weights and of the order of the text.")

if __name__ == "__main__":
    read_flags()

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from nejax.errors import UserError
from nejax.models.families.gpt2 import GPT2, GPT2Config
from nejax.models.formats.tokens import token_bytes
from nejax.models.formats.weights import save_weights
from nejax.pipeline.corpus.windows import Sequences
from nejax.pipeline.run.directory import RunDirectory
from nejax.training.language_model import (
    TrainState,
    init_train_state,
    language_model_loss,
    make_train_step,
    next_token_losses,
    plain_loss,
    warmup_cosine,
)
from nejax.training.run import Curve, plot_training, settings_of_flags, train
from nejax.training.text import batch_at, bits_per_byte, prepare_text


def make_optimizer() -> optax.GradientTransformation:
    """Clipping, then Muon or AdamW under a warm-up and cosine schedule; only the blocks' matrices decay."""
    schedule = warmup_cosine(FLAGS.learning_rate, FLAGS.steps, FLAGS.warmup)

    def matrices(params: Any) -> Any:
        def is_block_matrix(path: Any, leaf: jax.Array) -> bool:
            return "blocks" in jax.tree_util.keystr(path) and leaf.ndim == 3

        return jax.tree.map_with_path(is_block_matrix, params)

    if FLAGS.optimizer == "adamw":
        rule = optax.adamw(schedule, b2=0.95, weight_decay=FLAGS.weight_decay, mask=matrices)
    else:
        stacked = optax.contrib.MuonDimensionNumbers(reduction_axis=1, output_axis=2)
        rule = optax.contrib.muon(
            schedule,
            weight_decay=FLAGS.weight_decay,
            adam_b2=0.95,
            consistent_rms=0.2,  # updates of AdamW's size, so that both take the same learning rate
            muon_weight_dimension_numbers=lambda params: jax.tree.map(
                lambda is_matrix: stacked if is_matrix else None, matrices(params)
            ),
        )
    return optax.chain(optax.clip_by_global_norm(FLAGS.clip), rule)


def main(argv: list[str]) -> None:
    """Prepare the text, train (or resume), evaluate, save."""
    if FLAGS.d_model % FLAGS.n_heads:
        raise UserError(f"--n_heads={FLAGS.n_heads} does not divide --d_model={FLAGS.d_model}")
    settings, started = settings_of_flags(argv[0]), time.monotonic()
    directory = RunDirectory(FLAGS.run, settings)
    run = directory.path
    tokenizer, text, held_out = prepare_text(
        run,
        FLAGS.corpus,
        vocab_size=FLAGS.vocab_size,
        seq_len=FLAGS.seq_len,
        held_out=FLAGS.held_out,
        max_sequences=setting_values()["max_sequences"],
        anew=not directory.is_done("text"),
    )
    directory.mark("text", {"sequences": len(text.tokens), "held_out": len(held_out.tokens)})
    d_mlp = FLAGS.d_mlp or 4 * FLAGS.d_model
    config = GPT2Config(len(tokenizer), FLAGS.seq_len, FLAGS.d_model, FLAGS.n_layers, FLAGS.n_heads, d_mlp)
    graph, params = nnx.split(GPT2(config, dtype=jnp.dtype(FLAGS.precision), rngs=nnx.Rngs(FLAGS.seed)))
    unroll = config.n_layers if jax.default_backend() == "cpu" else 1

    def logits_of(params: Any, tokens: jax.Array) -> jax.Array:
        return nnx.merge(graph, params)(tokens, unroll=unroll)[0]

    optimizer = make_optimizer()
    loss = plain_loss(lambda params, batch: language_model_loss(logits_of(params, batch[0]), *batch))
    losses_of = jax.jit(lambda params, batch: next_token_losses(logits_of(params, batch[0]), *batch))
    n_bytes_of = np.array([len(piece) for piece in token_bytes(tokenizer)])

    def evaluate(params: Any, text: Sequences) -> float:
        return bits_per_byte(lambda batch: losses_of(params, batch), text, n_bytes_of, batch_size=FLAGS.batch_size)

    n_params = sum(leaf.size for leaf in jax.tree.leaves(params))
    print(f"{n_params:,} parameters; {len(text.tokens):,} sequences to train on, {len(held_out.tokens):,} held out")
    sample = Sequences(*(part[:: max(1, len(part) // 64)][:64] for part in held_out))

    def batches(first: int) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
        for i in range(first, FLAGS.steps):
            yield batch_at(text, i, batch_size=FLAGS.batch_size, seed=FLAGS.seed)

    def look(n_done: int, state: TrainState) -> dict[str, float]:
        return {} if n_done % FLAGS.evaluate_every else {"bits_per_byte": evaluate(state.params, sample)}

    tokens_a_step = FLAGS.batch_size * FLAGS.seq_len
    state, metrics = train(
        run,
        make_train_step(loss, optimizer),
        init_train_state(params, optimizer),
        batches,
        n_steps=FLAGS.steps,
        checkpoint_every=FLAGS.checkpoint_every,
        n_per_step=tokens_a_step,
        look=look,
    )
    save_weights(nnx.merge(graph, state.params), run / "model", tokenizer, dtype=jnp.float16)
    result = {
        "held_out_bits_per_byte": evaluate(state.params, held_out),
        "parameters": n_params,
        "tokens_seen": FLAGS.steps * tokens_a_step,
        "training_sequences": len(text.tokens),
        "held_out_sequences": len(held_out.tokens),
        "seconds_since_last_start": round(time.monotonic() - started, 1),
        "settings": settings,
    }
    (run / "result.json").write_text(json.dumps(result, indent=2))
    curves = Curve("loss", "training loss, nats a token"), Curve("bits_per_byte", "held-out sample, bits a byte")
    plot_training(metrics, run / "loss.png", *curves)
    print(f"held-out bits per byte: {result['held_out_bits_per_byte']:.3f}")
    print(f"model: {run / 'model'}\nplot: {run / 'loss.png'}")


if __name__ == "__main__":
    logging.set_verbosity(logging.WARNING)
    run_script(main)
