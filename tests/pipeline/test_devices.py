"""Devices of a process are counted once: each case is a process of its own."""

import os
import subprocess
import sys

import jax
import pytest

from nejax.errors import UserError
from nejax.pipeline.run.devices import mesh_or_all, n_cores

COUNT = (
    "from nejax.pipeline.run.devices import use_all_cores; import jax; {}; use_all_cores(); print(jax.device_count())"
)


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


SPREAD = """
import jax, numpy as np
from nejax.pipeline.run.devices import AXIS, fetch, fill_up, mesh_of, mesh_or_all, place, up_to_devices
rows = np.arange(10.0).reshape(5, 2).astype("f4")
mesh = mesh_of()
assert up_to_devices(5, mesh) == 6 and up_to_devices(6, mesh) == 6 and mesh.size == 3
filled = fill_up(rows, up_to_devices(5, mesh), value=-1)
assert filled.shape == (6, 2) and (filled[:5] == rows).all() and (filled[5] == -1).all()
assert fill_up(rows, 4, axis=1).shape == (5, 4)
tree = {"spread": place(filled, mesh, AXIS), "whole": place(rows, mesh)}
assert {shard.data.shape for shard in tree["spread"].addressable_shards} == {(2, 2)}
assert {shard.data.shape for shard in tree["whole"].addressable_shards} == {(5, 2)}
back = fetch(tree)
two = mesh_of(jax.devices()[1:])
assert place(filled, two, AXIS).sharding.device_set == {*jax.devices()[1:]} and up_to_devices(5, two) == 6
assert mesh_or_all(two) is two and mesh_or_all(None) == mesh
assert (back["spread"] == filled).all() and (back["whole"] == rows).all() and isinstance(back["whole"], np.ndarray)
"""


@pytest.mark.slow
def test_what_is_placed_on_three_devices_comes_back():
    subprocess.run([sys.executable, "-c", SPREAD], env=os.environ | {"JAX_NUM_CPU_DEVICES": "3"}, check=True)


def test_a_mesh_with_other_axes_is_refused():
    other = jax.make_mesh((1,), ("rows",))
    with pytest.raises(UserError, match=r"a mesh with the axes \('rows',\): expected one of `nejax.*mesh_of`"):
        mesh_or_all(other)
