"""Train a byte-level BPE tokenizer and a GPT-2 on any text; save a standard Hugging Face directory.

Produces, in `--run`: `model/` (config, safetensors, tokenizer: transformers and nejax load it), `metrics.jsonl`,
`loss.png`, `result.json` with the held-out bits per byte, and Orbax checkpoints from which the same command resumes
exactly where it was.

    python experiments/train_lm.py                                   # a small model on Python's documentation
    python experiments/train_lm.py --corpus=texts/,more.jsonl.xz --n_layers=12 --d_model=768 --precision=bfloat16

With no flag: a 2-layer model, 200 steps, about 4 minutes on two CPU cores, about 2.9 held-out bits per byte.
The command and figures of the bundled gpt2-tiny are in nejax/assets/gpt2-tiny/README.md.
"""

import hashlib
import itertools
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
import orbax.checkpoint as ocp
from absl import flags, logging
from flax import nnx
from tqdm import tqdm
from transformers import AutoTokenizer

from nejax.errors import UserError, run_script
from nejax.models.gpt2 import GPT2, GPT2Config
from nejax.models.tokens import token_bytes, train_tokenizer
from nejax.models.training import (
    init_train_state,
    language_model_loss,
    make_train_step,
    next_token_losses,
    warmup_cosine,
)
from nejax.models.weights import save_gpt2
from nejax.pipeline.corpus import Sequences, make_sequences
from nejax.pipeline.documents import Document, open_corpus

FLAGS = flags.FLAGS
flags.DEFINE_list("corpus", ["python-docs"], "Where text comes from: python-docs, files, folders, Hub names.")
flags.DEFINE_string("run", "runs/train_lm", "Where everything is written; an unfinished run there is resumed.")
flags.DEFINE_integer("vocab_size", 8000, "Tokens of the tokenizer.", lower_bound=257)
flags.DEFINE_integer("n_layers", 2, "Layers.", lower_bound=1)
flags.DEFINE_integer("d_model", 128, "Width of the residual stream.", lower_bound=1)
flags.DEFINE_integer("n_heads", 4, "Attention heads; must divide d_model.", lower_bound=1)
flags.DEFINE_integer("d_mlp", None, "Neurons a layer (default: 4 d_model).", lower_bound=1)
flags.DEFINE_integer("seq_len", 256, "Tokens a sequence, BOS included; also the model's positions.", lower_bound=2)
flags.DEFINE_integer("batch_size", 16, "Sequences a step.", lower_bound=1)
flags.DEFINE_integer("steps", 200, "Steps in all; the learning rate follows a cosine over them.", lower_bound=1)
flags.DEFINE_integer("warmup", 50, "Steps of linear warm-up.", lower_bound=0)
flags.DEFINE_enum("optimizer", "muon", ["muon", "adamw"], "Muon for the blocks' matrices, or AdamW for all.")
flags.DEFINE_float("learning_rate", 4e-3, "Peak learning rate.", lower_bound=0.0)
flags.DEFINE_float("weight_decay", 0.1, "Decoupled weight decay of the matrices.", lower_bound=0.0)
flags.DEFINE_float("clip", 1.0, "Gradients are clipped to this norm.", lower_bound=0.0)
flags.DEFINE_enum("precision", "float32", ["float32", "bfloat16"], "Type in which products read their operands.")
flags.DEFINE_float("held_out", 0.05, "Fraction of the documents kept for validation.", 0.0, 0.5)
flags.DEFINE_integer("max_sequences", None, "Stop reading training text after this many sequences.")
flags.DEFINE_integer("evaluate_every", 200, "Steps between looks at the held-out text.", lower_bound=1)
flags.DEFINE_integer("checkpoint_every", 200, "Steps between checkpoints.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Seed of the weights and of the order of the text.")


def documents(*, held_out: bool) -> Iterator[Document]:
    """The corpora's documents on one side of the split, which depends on each document's text alone."""
    for source in FLAGS.corpus:
        for document in open_corpus(source):
            digest = hashlib.blake2b(document.text.encode(), digest_size=8).digest()
            if (int.from_bytes(digest) < FLAGS.held_out * 2**64) == held_out:
                yield document


def prepare_text(run: Path) -> tuple[Any, Sequences, Sequences]:
    """Train the tokenizer and cut the text, or load what an earlier start of this run made."""
    tokenizer_dir, train_file, valid_file = run / "tokenizer", run / "train.npz", run / "held_out.npz"
    if not valid_file.exists():
        logging.info("training a tokenizer of %d tokens", FLAGS.vocab_size)
        texts = (document.text for document in documents(held_out=False))
        tokenizer = train_tokenizer(texts, vocab_size=FLAGS.vocab_size, n_positions=FLAGS.seq_len)
        tokenizer.save_pretrained(tokenizer_dir)
        for file, held_out in (train_file, False), (valid_file, True):
            text = documents(held_out=held_out)
            cut = make_sequences(text, tokenizer, seq_len=FLAGS.seq_len, max_sequences=FLAGS.max_sequences)
            partial = file.with_suffix(".partial.npz")
            np.savez(partial, **cut.sequences._asdict())
            partial.rename(file)
    train, valid = (Sequences(**np.load(file)) for file in (train_file, valid_file))
    return AutoTokenizer.from_pretrained(tokenizer_dir), train, valid


def make_optimizer() -> optax.GradientTransformation:
    """Clipping, then Muon or AdamW under a warm-up and cosine schedule; only matrices decay."""
    schedule = warmup_cosine(FLAGS.learning_rate, FLAGS.steps, FLAGS.warmup)

    def is_block_matrix(path: Any, leaf: jax.Array) -> bool:
        return "blocks" in jax.tree_util.keystr(path) and leaf.ndim == 3

    def matrices(params: Any) -> Any:
        return jax.tree.map_with_path(is_block_matrix, params)

    if FLAGS.optimizer == "adamw":
        rule = optax.adamw(schedule, b2=0.95, weight_decay=FLAGS.weight_decay, mask=matrices)
    else:
        stacked = optax.contrib.MuonDimensionNumbers(reduction_axis=1, output_axis=2)
        rule = optax.contrib.muon(
            schedule,
            weight_decay=FLAGS.weight_decay,
            adam_b2=0.95,
            consistent_rms=0.2,
            muon_weight_dimension_numbers=lambda params: jax.tree.map(
                lambda is_matrix: stacked if is_matrix else None, matrices(params)
            ),
        )
    return optax.chain(optax.clip_by_global_norm(FLAGS.clip), rule)


def batch_at(sequences: Sequences, step: int) -> tuple[np.ndarray, np.ndarray]:
    """The tokens and lengths of one step: a function of seed and step alone, so that a resumed run sees the same."""
    n, size = len(sequences.tokens), FLAGS.batch_size
    places = np.arange(step * size, (step + 1) * size)
    rows = [np.random.default_rng((FLAGS.seed, epoch)).permutation(n) for epoch in np.unique(places // n)]
    chosen = np.concatenate(rows)[places - places[0] // n * n]
    return sequences.tokens[chosen], sequences.length[chosen]


def bits_per_byte(losses_of: Any, params: Any, text: Sequences, n_bytes_of: np.ndarray) -> float:
    """Bits the model needs for each UTF-8 byte of the text, the first token of every sequence given only BOS."""
    nats, n_bytes, size = 0.0, 0, FLAGS.batch_size
    for start in range(0, len(text.tokens), size):
        tokens, length = text.tokens[start : start + size], text.length[start : start + size]
        rows = size - len(tokens)
        padded = np.pad(tokens, ((0, rows), (0, 0))), np.pad(length, (0, rows))
        nats += float(losses_of(params, padded).sum())
        n_bytes += int(n_bytes_of[tokens[:, 1:]][np.arange(1, tokens.shape[1]) < length[:, None]].sum())
    return nats / math.log(2) / n_bytes


def plot(metrics: list[dict[str, float]], file: Path) -> None:
    """Training loss and held-out bits per byte over the steps."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    axes.plot([m["step"] for m in metrics], [m["loss"] for m in metrics], color="tab:blue", lw=0.8)
    axes.set(xlabel="step", ylabel="training loss, nats a token", ylim=(None, metrics[0]["loss"] * 1.02))
    looks = [m for m in metrics if "bits_per_byte" in m]
    other = axes.twinx()
    other.plot([m["step"] for m in looks], [m["bits_per_byte"] for m in looks], "o-", color="tab:orange", ms=3)
    other.set_ylabel("held-out bits per byte (sample)", color="tab:orange")
    figure.savefig(file, dpi=150)
    plt.close(figure)


def main(argv: list[str]) -> None:
    """Prepare the text, train (or resume), evaluate, save."""
    run = Path(FLAGS.run).absolute()
    run.mkdir(parents=True, exist_ok=True)
    if FLAGS.d_model % FLAGS.n_heads:
        raise UserError(f"--n_heads={FLAGS.n_heads} does not divide --d_model={FLAGS.d_model}")
    settings = {f.name: f.value for f in FLAGS.get_key_flags_for_module(argv[0])}
    settings_file = run / "settings.json"
    settings.pop("run", None)
    if settings_file.exists() and (before := json.loads(settings_file.read_text())) != settings:
        changed = ", ".join(f"{k}: {before.get(k)} there, {v} now" for k, v in settings.items() if before.get(k) != v)
        raise UserError(f"{run} was made with other settings ({changed}); choose another --run or the same settings")
    settings_file.write_text(json.dumps(settings, indent=2))

    tokenizer, train, valid = prepare_text(run)
    n_bytes_of = np.array([len(piece) for piece in token_bytes(tokenizer)])
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=FLAGS.seq_len,
        d_model=FLAGS.d_model,
        n_layers=FLAGS.n_layers,
        n_heads=FLAGS.n_heads,
        d_mlp=FLAGS.d_mlp or 4 * FLAGS.d_model,
    )
    model = GPT2(config, dtype=jnp.dtype(FLAGS.precision), rngs=nnx.Rngs(FLAGS.seed))
    graph, params = nnx.split(model)
    unroll = config.n_layers if jax.default_backend() == "cpu" else 1

    def logits_of(params: Any, tokens: jax.Array) -> jax.Array:
        return nnx.merge(graph, params)(tokens, unroll=unroll)[0]

    optimizer = make_optimizer()
    step = make_train_step(lambda params, batch: language_model_loss(logits_of(params, batch[0]), *batch), optimizer)
    losses_of = jax.jit(lambda params, batch: next_token_losses(logits_of(params, batch[0]), *batch))
    state = init_train_state(params, optimizer)
    n_params = sum(leaf.size for leaf in jax.tree.leaves(params))
    logging.info("%d parameters, %d training sequences, %d held out", n_params, len(train.tokens), len(valid.tokens))

    metrics_file = run / "metrics.jsonl"
    with ocp.CheckpointManager(run / "checkpoints", options=ocp.CheckpointManagerOptions(max_to_keep=2)) as manager:
        if (latest := manager.latest_step()) is not None:
            state = manager.restore(latest, args=ocp.args.StandardRestore(state))
        first = int(state.step)
        lines = metrics_file.read_text().splitlines() if metrics_file.exists() else []
        metrics = [m for m in map(json.loads, lines) if m["step"] < first]
        metrics_file.write_text("".join(json.dumps(m) + "\n" for m in metrics))
        sample = Sequences(*(part[:: max(1, len(part) // 64)][:64] for part in valid))
        bar = tqdm(
            total=FLAGS.steps * FLAGS.batch_size * FLAGS.seq_len,
            initial=first * FLAGS.batch_size * FLAGS.seq_len,
            unit=" tokens",
            unit_scale=True,
        )
        started = time.monotonic()
        for i in range(first, FLAGS.steps):
            state, measured = step(state, batch_at(train, i))
            entry = {"step": i} | {name: float(value) for name, value in measured.items()}
            if not math.isfinite(entry["loss"]):
                raise UserError(f"the loss is {entry['loss']} at step {i}; lower --learning_rate")
            if (i + 1) % FLAGS.evaluate_every == 0:
                entry["bits_per_byte"] = bits_per_byte(losses_of, state.params, sample, n_bytes_of)
            metrics.append(entry)
            with metrics_file.open("a") as file:
                file.write(json.dumps(entry) + "\n")
            if (i + 1) % FLAGS.checkpoint_every == 0 or i + 1 == FLAGS.steps:
                manager.save(i + 1, args=ocp.args.StandardSave(state))
            bar.update(FLAGS.batch_size * FLAGS.seq_len)
            bar.set_postfix(loss=f"{entry['loss']:.3f}")
        bar.close()
    seconds = time.monotonic() - started

    save_gpt2(nnx.merge(graph, state.params), run / "model", tokenizer, dtype=jnp.float16)
    result = {
        "bits_per_byte": bits_per_byte(losses_of, state.params, valid, n_bytes_of),
        "parameters": n_params,
        "steps": FLAGS.steps,
        "tokens": FLAGS.steps * FLAGS.batch_size * FLAGS.seq_len,
        "training_sequences": len(train.tokens),
        "held_out_sequences": len(valid.tokens),
        "seconds_since_last_start": round(seconds, 1),
        "settings": settings,
    }
    (run / "result.json").write_text(json.dumps(result, indent=2))
    plot(metrics, run / "loss.png")
    print(f"held-out bits per byte: {result['bits_per_byte']:.3f}\nmodel: {run / 'model'}\nplot: {run / 'loss.png'}")


if __name__ == "__main__":
    run_script(main)
