"""What the neuron-embedding loss adds to a training step of a sparse autoencoder, for each architecture."""

import statistics
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from benchmarks.subject_flags import FLAGS
from nejax.errors import UserError
from nejax.models.sae.architectures import ARCHITECTURES, make_sae_loss
from nejax.training.language_model import TrainState, init_train_state, make_train_step

WITHOUT, WITH = "without", "with the neuron-embedding loss"


class StepFigures(NamedTuple):
    """How long one step takes."""

    architecture: str
    d_in: int
    d_sae: int
    batch_size: int
    loss: str
    ms: float
    """Milliseconds, the median of the rounds."""
    fastest_ms: float
    slowest_ms: float


def measure(repeats: int) -> Iterator[list[StepFigures]]:
    """Every architecture at every size, both kinds of step in turns."""
    if unknown := set(FLAGS.sae_architectures) - ARCHITECTURES.keys():
        raise UserError(
            f"--sae_architectures: {', '.join(sorted(unknown))}; expected some of {', '.join(ARCHITECTURES)}"
        )
    for size in FLAGS.sae_sizes:
        for architecture in FLAGS.sae_architectures:
            yield race(architecture, *map(int, size.split(":")), repeats=repeats)


def race(architecture: str, d_in: int, d_sae: int, batch_size: int, *, repeats: int) -> list[StepFigures]:
    """The figures of a step without and with the loss, after one of each that is not timed."""
    x = jax.random.normal(jax.random.key(0), (batch_size, d_in))
    own: dict[str, Any] = {"k": 32} if architecture == "topk" else {}
    graph, params = nnx.split(ARCHITECTURES[architecture](d_in, d_sae, rngs=nnx.Rngs(0), **own))
    weights = {"revival": 0.03} | ({} if architecture == "topk" else {"sparsity": 0.02})
    steps, states, taken = {}, {}, {WITHOUT: [], WITH: []}
    for name, weight in ((WITHOUT, 0.0), (WITH, 0.1)):
        optimizer = optax.adam(1e-4)
        loss = make_sae_loss(graph, weights | {"neuron_embedding": weight}, silent_after=100_000)
        steps[name] = make_train_step(loss, optimizer)
        states[name] = init_train_state(jax.tree.map(jnp.copy, params), optimizer, jnp.zeros(d_sae, jnp.int32))
        states[name] = _step(steps[name], states[name], x)[0]
    for _ in range(repeats):
        for name, times in taken.items():
            states[name], seconds = _step(steps[name], states[name], x)
            times.append(1e3 * seconds)
    size = architecture, d_in, d_sae, batch_size
    return [StepFigures(*size, name, statistics.median(t), min(t), max(t)) for name, t in taken.items()]


def _step(step: Any, state: TrainState, x: jax.Array) -> tuple[TrainState, float]:
    start = time.perf_counter()
    state = jax.block_until_ready(step(state, x)[0])
    return state, time.perf_counter() - start


def table(group: list[StepFigures]) -> list[str]:
    """A step without and with the loss, and what it adds."""
    f = group[0]
    lines = [f"{f.architecture}, {f.d_in} -> {f.d_sae:,} latents, {f.batch_size:,} inputs a step"]
    lines += [f"{'':<34}{'ms a step':>10}{'fastest':>10}{'slowest':>10}{'added':>8}"]
    for f in group:
        added = f"{f.ms / group[0].ms - 1:.0%}" if f.loss == WITH else ""
        lines.append(f"  {f.loss:<32}{f.ms:>10.1f}{f.fastest_ms:>10.1f}{f.slowest_ms:>10.1f}{added:>8}".rstrip())
    return lines
