"""How fast nejax collects: beside the bare forward pass, PyTorch and TransformerLens; and how it grows."""

import contextlib
import statistics
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import jax
from flax import nnx

from benchmarks.collection_figures import Growth, Missing, Speed
from benchmarks.collection_nejax import N_PRODUCTS
from benchmarks.collection_plot import draw
from benchmarks.subject_flags import FLAGS
from benchmarks.timing import product_flops
from benchmarks.workers import Round, Task, Worker
from nejax.errors import UserError
from nejax.models.formats.weights import leaves_of, save_weights
from nejax.models.loading import load_model
from nejax.pipeline.run.devices import n_cores

N_SEQUENCES = 32
NEJAX, PRODUCT = "nejax", "the machine's matrix product"
CONTENDERS = {
    NEJAX: "benchmarks.collection_nejax:collection",
    "forward pass, with logits": "benchmarks.collection_nejax:logits",
    "forward pass, to last MLP": "benchmarks.collection_nejax:last_layer",
    "PyTorch, hooks": "benchmarks.collection_peers:pytorch",
    "TransformerLens": "benchmarks.collection_peers:transformer_lens",
    PRODUCT: "benchmarks.collection_nejax:product",
}
NEEDS = {"PyTorch, hooks": {"torch": ""}, "TransformerLens": {"torch": "", "transformer-lens": "3."}}
"""Packages of each peer, and how their versions begin: TransformerLens 4 has no HookedTransformer."""


def measure(repeats: int) -> Iterator[list[Speed] | list[Growth] | list[Missing]]:
    """Peers that are missing, the race, the growth of nejax; then all of it as a picture."""
    task = _task()
    absent = missing()
    if absent:
        yield absent
    left_out = {peer.by for peer in absent}
    if task.model:  # TransformerLens has its own names for models
        left_out.add("TransformerLens")
    speeds = race(task, [by for by in CONTENDERS if by not in left_out], repeats)
    yield speeds
    growth = [_growth(varied, other) for varied, other in varied_tasks(task)]
    yield growth
    path = Path(FLAGS.run) / "collection.png"
    draw(speeds, growth, path)
    print(f"\nDrawn in {path}")


def _task() -> Task:
    # the explorer's default is another
    n_sequences = FLAGS.n_sequences if FLAGS["n_sequences"].present else N_SEQUENCES
    if FLAGS.batch_size % jax.device_count():
        raise UserError(
            f"--batch_size={FLAGS.batch_size}: expected a multiple of the {jax.device_count()} devices that share it"
        )
    if n_sequences < 1 or n_sequences % FLAGS.batch_size:
        raise UserError(f"--n_sequences={n_sequences}: expected a multiple of --batch_size={FLAGS.batch_size}")
    if FLAGS.model:
        return _task_of_model(n_sequences)
    if FLAGS.d_model > 64 and FLAGS.d_model % 64:
        raise UserError(f"--d_model={FLAGS.d_model}: expected less than 64, or a multiple of 64, the size of a head")
    return Task(
        n_sequences,
        FLAGS.seq_len,
        FLAGS.keep,
        FLAGS.batch_size,
        FLAGS.n_layers,
        FLAGS.d_model,
        FLAGS.d_mlp,
        FLAGS.vocab_size,
        FLAGS.precision,
        n_cores(),
    )


def _task_of_model(n_sequences: int) -> Task:
    """Collection of a given model; it is written as a directory that every contender can read."""
    model = load_model(FLAGS.model).model
    if not model.is_gated:
        raise UserError(f"--model={FLAGS.model}: expected a model with gated neurons; leave it out for GPT-2's sizes")
    folder = Path(FLAGS.run).absolute() / "model"
    save_weights(model, folder)
    kernels = [leaf for path, leaf in leaves_of(nnx.state(model.blocks)).items() if path.endswith(".kernel")]
    config = model.config
    return Task(
        n_sequences,
        FLAGS.seq_len,
        FLAGS.keep,
        FLAGS.batch_size,
        config.n_layers,
        config.d_model,
        config.d_mlp,
        config.vocab_size,
        FLAGS.precision,
        n_cores(),
        str(folder),
        sum(leaf.get_value().size for leaf in kernels) // config.n_layers,
    )


def missing() -> list[Missing]:
    """The peers that cannot race, and how to mend it."""
    found = []
    for by, packages in NEEDS.items():
        for package, begins in packages.items():
            try:
                there = version(package)
            except PackageNotFoundError:
                there = "none"
            if there == "none" or not there.startswith(begins):
                wanted = f"{package} {begins}x" if begins else package
                how = "pip install -e '.[benchmark]' brings it"
                found.append(Missing(by, f"left out, as it needs {wanted} and there is {there}; {how}"))
                break
    return found


def race(task: Task, names: list[str], repeats: int) -> list[Speed]:
    """All contenders in turns, each in its own process.

    Args:
        task: of every contender.
        names: of `CONTENDERS`; nejax and the matrix product among them.
        repeats: rounds.
    """
    with contextlib.ExitStack() as stack:
        workers = {by: stack.enter_context(Worker(CONTENDERS[by], task)) for by in names}
        rounds: dict[str, list[Round]] = {by: [] for by in names}
        for _ in range(repeats):
            for by, worker in workers.items():
                rounds[by].append(worker.round())
        peaks = {by: worker.peak_mib() for by, worker in workers.items()}
        notes = {by: worker.note for by, worker in workers.items()}
    limit = N_PRODUCTS * product_flops() / statistics.median(r.seconds for r in rounds[PRODUCT]) / 1e9
    nejax = statistics.median(task.n_tokens / r.seconds for r in rounds[NEJAX])
    speeds = []
    for by in names:
        own = rounds[by]
        rates = [0.0 if by == PRODUCT else task.n_tokens / r.seconds for r in own]
        median = statistics.median(rates)
        gflops = limit if by == PRODUCT else median * flops_per_token(task, head="logits" in by) / 1e9
        compiled = sum(r.compile_seconds for r in own)
        note = notes[by] + (f"; COMPILED AGAIN in its rounds, {compiled:.1f} s of them" if compiled > 0.01 else "")
        figures = median, min(rates), max(rates), gflops, gflops / limit, peaks[by], own[-1].device_mib
        speeds.append(Speed(by, *figures, nejax / median if median else 0.0, note))
    return speeds


def flops_per_token(task: Task, *, head: bool) -> float:
    """Of the model's matrix products: projections, MLP, attention over whole sequences, and the head if it is run."""
    d = task.d_model
    layer = 2 * (task.n_of_layer or d * (4 * d + 2 * task.d_mlp)) + 4 * task.seq_len * d
    return task.n_layers * layer + (2 * d * task.vocab_size if head else 0)


def varied_tasks(task: Task) -> list[tuple[str, Task]]:
    """The task itself, then with more sequences, other lengths of them, more and fewer examples kept."""
    others = {
        "n_sequences": [10 * task.n_sequences],
        "seq_len": [task.seq_len // 2, 2 * task.seq_len],
        "keep": [task.keep // 4, 4 * task.keep],
    }
    varied = [(name, task._replace(**{name: value})) for name, values in others.items() for value in values]
    return [("", task), *varied]


def _growth(varied: str, task: Task) -> Growth:
    with Worker(CONTENDERS[NEJAX], task) as worker:
        took = worker.round()
        sizes = task.n_sequences, task.seq_len, task.keep
        rate = task.n_tokens / took.seconds
        return Growth(varied, *sizes, took.seconds, rate, worker.peak_mib(), took.device_mib)
