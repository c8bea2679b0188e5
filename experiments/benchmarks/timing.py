"""Contenders timed in turns, so that what disturbs the machine disturbs all of them."""

import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from nejax.pipeline.run.devices import n_cores

WIDTH = 2048
"""Of the square matrices whose product shows what a CPU can do."""


HEAD = f"{'':<38}{'neurons':>8}{'µs a neuron':>13}{'fastest':>10}{'slowest':>10}{'peer / nejax':>14}"


class Contender(NamedTuple):
    """One way to do a thing."""

    by: str
    run: Callable[[], Any]
    n_neurons: int
    """That one call handles."""


class Figures(NamedTuple):
    """What was measured of one contender."""

    what: str
    n_examples: int
    by: str
    n_neurons: int
    us_per_neuron: float
    """Microseconds, the median of the rounds."""
    fastest_us: float
    slowest_us: float
    note: str = ""


def race(what: str, n_examples: int, contenders: list[Contender], repeats: int) -> list[Figures]:
    """Run every contender once, untimed, then all of them in turns.

    Args:
        what: is done.
        n_examples: of each neuron.
        contenders: with what they do.
        repeats: rounds.

    Returns:
        The figures of each contender.
    """
    taken: list[list[float]] = [[] for _ in contenders]
    for contender in contenders:
        jax.block_until_ready(contender.run())
    for _ in range(repeats):
        for times, contender in zip(taken, contenders, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(contender.run())
            times.append((time.perf_counter() - start) / contender.n_neurons * 1e6)
    return [
        Figures(what, n_examples, c.by, c.n_neurons, statistics.median(times), min(times), max(times))
        for c, times in zip(contenders, taken, strict=True)
    ]


def table(group: list[Figures]) -> list[str]:
    """Figures of one method and size: how many times longer each peer takes than nejax's fastest form."""
    best = min(f.us_per_neuron for f in group if f.by.startswith("nejax"))
    lines = [f"{group[0].what}, {group[0].n_examples} examples", HEAD]
    for f in group:
        ratio = "" if f.by.startswith(("nejax", "the machine")) else f"{f.us_per_neuron / best:.1f}"
        numbers = f"{f.us_per_neuron:>13,.1f}{f.fastest_us:>10,.1f}{f.slowest_us:>10,.1f}"
        lines.append(f"  {f.by:<36}{f.n_neurons:>8,}{numbers}{ratio:>14}  {f.note}".rstrip())
    return lines


def product_contender(dtype: DTypeLike = jnp.float32) -> Contender:
    """A matrix product of a size that keeps the machine busy, on all its cores; float32 at full precision."""
    matrix = jnp.ones((product_width(), product_width()), dtype)
    product = jax.jit(lambda a: jnp.matmul(a, a, precision=jax.lax.Precision.HIGHEST))
    return Contender("the machine's matrix product", lambda: product(matrix), 1)


def product_flops() -> int:
    """Of `product_contender`."""
    return 2 * product_width() ** 3


def product_width() -> int:
    """Of the square matrices of `product_contender`; an accelerator is done with small ones too soon."""
    return WIDTH if jax.default_backend() == "cpu" else 4 * WIDTH


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    info = Path("/proc/cpuinfo")
    models = (
        [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if (info.exists())
        else []
    )
    packages = ["jax", "jaxlib", "numpy", "scipy", "scikit-learn", "ott-jax", "torch", "transformers"]
    packages += ["transformer-lens"]
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": n_cores(),
        "load": os.getloadavg()[0],
        "devices": [str(device) for device in jax.devices()],
        "kind": jax.devices()[0].device_kind,
        "python": platform.python_version(),
        "versions": {name: found for name in packages if (found := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
