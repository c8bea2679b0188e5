"""The peers' way to the same top examples: PyTorch with forward hooks, and TransformerLens with a cache.

Kinder to them than to nejax: they count no firing and sum no moments, PyTorch's model has no language-model head, and
GELU is one kernel (`gelu_pytorch_tanh`) where GPT-2's own configuration asks for many.
"""

import importlib
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.hooks import RemovableHandle

from benchmarks.workers import Ready, Task

ATTENTION = "eager", "sdpa"
"""Implementations in transformers; the faster one races."""


class Best:
    """The best examples of every neuron: [n_layers][d_mlp, keep] activation, sequence and position."""

    def __init__(self, task: Task):
        shape = task.n_layers, (2 if task.model else 1) * task.d_mlp, task.keep
        self.keep, device = task.keep, _device()
        self.activation = list(torch.full(shape, -torch.inf, dtype=_dtype(task), device=device))
        self.sequence = list(torch.full(shape, -1, dtype=torch.int32, device=device))
        self.position = list(torch.full(shape, -1, dtype=torch.int32, device=device))

    def add(self, layer: int, activation: torch.Tensor, first: int) -> None:
        """Take in a batch, [batch, seq, d_mlp]: of each sequence its peak, not at position 0."""
        peak, position = activation[:, 1:].max(dim=1)
        sequence = torch.arange(first, first + len(peak), dtype=torch.int32, device=peak.device)
        together = torch.cat([self.activation[layer], peak.T], dim=1)
        self.activation[layer], chosen = together.topk(self.keep, dim=1)
        for kept, new in ((self.sequence, sequence.expand(peak.T.shape)), (self.position, position.T.int() + 1)):
            kept[layer] = torch.cat([kept[layer], new], dim=1).gather(1, chosen)


class Hooked(NamedTuple):
    """A model of PyTorch; by layer, what hooks a function that takes the neurons' activations, and returns the hook."""

    model: Any
    on_activation: list[Callable[[Callable[[torch.Tensor], None]], RemovableHandle]]


def pytorch(task: Task) -> Ready:
    """The model of transformers; a hook on every MLP's activation reduces it and keeps nothing else."""
    taken = {attention: _seconds(_collection(task, attention), task) for attention in ATTENTION}
    fastest = min(ATTENTION, key=lambda attention: taken[attention])
    note = f"{fastest} attention, on {_device()}; no head, no moments"
    return Ready(_collection(task, fastest), _device_mib, note)


def _collection(task: Task, attention: str) -> Callable[[int], Best]:
    """The collection with an implementation of attention."""
    hooked = (_gated if task.model else _gpt2)(task, attention)
    hooked.model.eval().to(_device(), _dtype(task))

    def a_batch(tokens: torch.Tensor, first: int, best: Best) -> None:
        hooks = [
            on_activation(lambda activation, layer=layer: best.add(layer, activation, first))
            for layer, on_activation in enumerate(hooked.on_activation)
        ]
        hooked.model(tokens, use_cache=False)
        for hook in hooks:
            hook.remove()

    return _over_batches(task, a_batch)


def _gated(task: Task, attention: str) -> Hooked:
    """A gated model from files; both sides of a neuron are taken."""
    from transformers import AutoModel

    model: Any = AutoModel.from_pretrained(task.model, attn_implementation=attention)

    def on_activation(block: Any, take: Callable[[torch.Tensor], None]) -> RemovableHandle:
        def take_sides(_: Any, into: tuple[torch.Tensor]) -> None:
            take(torch.cat([into[0], -into[0]], dim=-1))

        return block.mlp.down_proj.register_forward_pre_hook(take_sides)

    return Hooked(model, [partial(on_activation, block) for block in model.layers])


def _gpt2(task: Task, attention: str) -> Hooked:
    """A GPT-2 with random weights."""
    from transformers import GPT2Config, GPT2Model

    kernels: dict[str, Any] = {"attn_implementation": attention, "activation_function": "gelu_pytorch_tanh"}
    config = GPT2Config(
        vocab_size=task.vocab_size,
        n_positions=task.n_positions,
        n_embd=task.d_model,
        n_layer=task.n_layers,
        n_head=task.n_heads,
        n_inner=task.d_mlp,
        bos_token_id=None,
        eos_token_id=None,
        **kernels,
    )
    model: Any = GPT2Model(config)

    def on_activation(block: Any, take: Callable[[torch.Tensor], None]) -> RemovableHandle:
        return block.mlp.act.register_forward_hook(lambda _, __, activation: take(activation))

    return Hooked(model, [partial(on_activation, block) for block in model.h])


def transformer_lens(task: Task) -> Ready:
    """HookedTransformer's `run_with_cache`, of the MLPs' activations only; they are reduced after the pass."""
    lens = importlib.import_module("transformer_lens")  # not everyone has it
    config = lens.HookedTransformerConfig(
        n_layers=task.n_layers,
        d_model=task.d_model,
        n_ctx=task.n_positions,
        d_head=task.d_model // task.n_heads,
        n_heads=task.n_heads,
        d_mlp=task.d_mlp,
        d_vocab=task.vocab_size,
        act_fn="gelu_pytorch_tanh",
        normalization_type="LN",
        dtype=_dtype(task),
        device=_device(),
    )
    model = lens.HookedTransformer(config).eval()
    names = [f"blocks.{layer}.mlp.hook_post" for layer in range(task.n_layers)]

    def a_batch(tokens: torch.Tensor, first: int, best: Best) -> None:
        _, cache = model.run_with_cache(tokens, return_type=None, names_filter=names)
        for layer, name in enumerate(names):
            best.add(layer, cache[name], first)

    return Ready(_over_batches(task, a_batch), _device_mib, f"run_with_cache, on {_device()}; no head, no moments")


def _over_batches(task: Task, a_batch: Callable[[torch.Tensor, int, Best], None]) -> Callable[[int], Best]:
    torch.set_num_threads(task.n_threads)
    n = max(task.n_sequences, 2 * task.batch_size)
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, task.vocab_size, (n, task.seq_len)))

    @torch.no_grad()
    def run(n_sequences: int) -> Best:
        best = Best(task)
        for first in range(0, n_sequences, task.batch_size):
            a_batch(tokens[first : first + task.batch_size].to(_device()), first, best)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return best

    return run


def _seconds(run: Callable[[int], object], task: Task) -> float:
    """For one batch, after another one."""
    run(task.batch_size)
    start = time.perf_counter()
    run(task.batch_size)
    return time.perf_counter() - start


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _dtype(task: Task) -> torch.dtype:
    return getattr(torch, task.precision)


def _device_mib() -> float | None:
    return torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else None
