"""Devices of a process are counted once: each case is a process of its own."""

import os
import subprocess
import sys

import pytest

from nejax.pipeline.devices import n_cores

COUNT = "from nejax.pipeline.devices import use_all_cores; import jax; {}; use_all_cores(); print(jax.device_count())"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "settings", "expected"),
    [
        ("", {}, n_cores()),
        ("jax.devices()", {}, 1),
        ("", {"XLA_FLAGS": "--xla_force_host_platform_device_count=5"}, 5),
        ("", {"JAX_NUM_CPU_DEVICES": "3"}, 3),
    ],
)
def test_use_all_cores(before, settings, expected):
    code = COUNT.format(before or "pass")
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | settings, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(expected), "all cores, unless another number was asked for, or JAX has begun"
