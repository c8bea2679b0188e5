"""What runs in JAX: nejax's collection, the bare forward pass that it cannot beat, and the machine's matrix product."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec

from benchmarks.timing import product_contender
from benchmarks.workers import Ready, Task
from nejax.models.families.gpt2 import GPT2, GPT2Config
from nejax.models.families.two_sided import TwoSided
from nejax.models.formats.weights import load_weights
from nejax.pipeline.corpus.windows import Sequences
from nejax.pipeline.passes.collect import collect
from nejax.pipeline.passes.peaks import PeakRule
from nejax.pipeline.run.devices import AXIS, mesh_of, place, use_all_cores

N_PRODUCTS = 8
"""Matrix products in a round."""

_compiled: list[float] = []
"""Seconds of each compilation in this process."""


def collection(task: Task) -> Ready:
    """nejax's collection, moments and firing counts among it, on all devices."""
    model, tokens = _model(task), random_tokens(task)

    def run(n_sequences: int) -> None:
        n = np.full(n_sequences, task.seq_len, np.int32)
        some = Sequences(tokens[:n_sequences], n, np.zeros_like(n), np.zeros_like(n))
        rule = PeakRule.of(np.array([task.vocab_size - 1]), 1)
        collect(model, lambda start: [some], keep=task.keep, rule=rule, batch_size=task.batch_size)

    return Ready(run, _device_mib, "moments and firing counts too", lambda: sum(_compiled))


def logits(task: Task) -> Ready:
    """The whole model: logits of every token."""
    return _forward(task, lambda model, tokens: model(tokens)[0], "with the language-model head")


def last_layer(task: Task) -> Ready:
    """The model up to the output of its last MLP. Little of it leaves the device, all is computed in the loop."""

    def outputs(model: Any, tokens: jax.Array) -> jax.Array:
        _, last = model(tokens, reader=lambda view: view.mlp_output[:, -1])
        return last.swapaxes(0, 1)

    return _forward(task, outputs, "to the last MLP's output: what collection needs")


def product(task: Task) -> Ready:
    """A few large matrix products."""
    use_all_cores()
    run = product_contender(jnp.dtype(task.precision)).run

    def all_of_them(n_sequences: int) -> None:
        for _ in range(N_PRODUCTS):
            jax.block_until_ready(run())

    return Ready(all_of_them, _device_mib)


def random_tokens(task: Task) -> np.ndarray:
    """[n_sequences, seq_len] int32; two batches at least."""
    n = max(task.n_sequences, 2 * task.batch_size)
    return np.random.default_rng(0).integers(0, task.vocab_size, (n, task.seq_len), np.int32)


def _model(task: Task) -> Any:
    use_all_cores()
    if task.precision == "float32":  # accelerators round float32 products to fewer bits unless told not to
        jax.config.update("jax_default_matmul_precision", "highest")
    jax.monitoring.register_event_duration_secs_listener(_note_compilation)
    if task.model:
        return TwoSided(load_weights(task.model, dtype=jnp.dtype(task.precision)), "gate")
    config = GPT2Config(
        vocab_size=task.vocab_size,
        n_positions=task.n_positions,
        d_model=task.d_model,
        n_layers=task.n_layers,
        n_heads=task.n_heads,
        d_mlp=task.d_mlp,
    )
    dtype = jnp.dtype(task.precision)
    return GPT2(config, dtype=dtype, param_dtype=dtype, rngs=nnx.Rngs(0))


def _forward(task: Task, output: Callable[[Any, jax.Array], jax.Array], note: str) -> Ready:
    """A pass with the batch over all devices; `output` has it in front."""
    graph, state = nnx.split(_model(task))
    whole, over, mesh = PartitionSpec(), PartitionSpec(AXIS), mesh_of()
    state = place(state, mesh)
    tokens = random_tokens(task)

    @jax.jit
    @partial(jax.shard_map, mesh=mesh, in_specs=(whole, over), out_specs=over)
    def pass_of(state: Any, tokens: jax.Array) -> jax.Array:
        return output(nnx.merge(graph, state), tokens)

    def run(n_sequences: int) -> None:
        before = None
        for first in range(0, n_sequences, task.batch_size):
            now = pass_of(state, place(tokens[first : first + task.batch_size], mesh, AXIS))
            jax.block_until_ready(before)  # no more than two on the way
            before = now
        jax.block_until_ready(before)

    return Ready(run, _device_mib, note, lambda: sum(_compiled))


def _note_compilation(event: str, duration_secs: float, **kwargs: Any) -> None:
    if event.endswith("backend_compile_duration"):
        _compiled.append(duration_secs)


def _device_mib() -> float | None:
    """Over all devices."""
    taken = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in jax.devices()]
    return None if None in taken else sum(filter(None, taken)) / 2**20
