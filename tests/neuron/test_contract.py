"""What every exported function of arrays promises to other people's JAX code; see `contract_cases`.

The cases run in processes of their own, where one that ends the process is seen and named.
"""

import inspect
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from public_functions import CASES, OF_ARRAYS, ON_THE_HOST, PARTS_OF_SPLIT

import nejax
from nejax.errors import UserError

CHEAP_TO_COMPILE = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
"""Programs are the same but for how XLA at last makes machine code of them, in a third of the time."""


def assert_all_pass(group: str, sizes: tuple[int, int, int], *names: str, flags: str = CHEAP_TO_COMPILE) -> None:
    flags = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
    script = Path(__file__).with_name("contract_cases.py")
    run = subprocess.run(
        [sys.executable, str(script), group, *map(str, sizes), *names],
        env=os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    said = run.stdout.splitlines()
    failed = [line for line in said if line.startswith("FAILED")]
    assert not failed, "\n".join([*failed, run.stderr[-3000:]])
    last = said[-1] if said else "nothing"
    assert last == "end" and run.returncode == 0, f"status {run.returncode}, last: {last}\n{run.stderr[-3000:]}"
    begun = {line.removeprefix("begin ").split(",")[0] for line in said if line.startswith("begin ")}
    assert begun == set(names or CASES)


def test_every_exported_function_of_arrays_has_a_case():
    assert set(CASES) == OF_ARRAYS - ON_THE_HOST
    assert OF_ARRAYS >= ON_THE_HOST


def test_every_exported_function_of_arrays_follows_the_rule():
    """Each refuses what is no array, whatever its first argument is."""
    for name in OF_ARRAYS:
        call = getattr(nejax, name)
        required = [p for p in inspect.signature(call).parameters.values() if p.default is p.empty]
        with pytest.raises(UserError, match=rf"{required[0].name} (cannot be read as an array|is of type object)"):
            call(**{parameter.name: object() for parameter in required})


@pytest.mark.slow
def test_a_layer_over_constants():
    assert_all_pass("constants", (64, 64, 16), "assign", "polysemanticity")


@pytest.mark.slow
def test_in_every_composition():
    assert_all_pass("compositions", (10, 24, 16))


@pytest.mark.slow
def test_under_every_setting():
    assert_all_pass("settings", (2, 24, 16))


@pytest.mark.slow
def test_on_every_mesh():
    devices = "--xla_force_host_platform_device_count=8"
    assert_all_pass("meshes", (16, 24, 16), flags=f"{CHEAP_TO_COMPILE} {devices}")


@pytest.mark.slow
def test_at_the_size_of_a_layer():
    """The parts of `split` within it alone."""
    assert_all_pass("layer", (3072, 64, 768), *sorted(CASES.keys() - PARTS_OF_SPLIT), flags="")


X, W, D = np.arange(24, dtype="f4").reshape(6, 4), np.ones(4, "f4"), 1 - np.eye(6, dtype="f4")
ROWS = np.arange(6)
BAD = {
    "another length": (
        lambda: nejax.embedding_distances(X, W[:3]),
        r"w has shape \(3,\); expected \[d\] with d = 4",
    ),
    "a short list": (lambda: nejax.silhouette(D, [0, 0, 1]), r"labels have shape \(3,\); expected \[n\] with n = 6"),
    "a layer": (lambda: nejax.embedding_distances(X[None], W), r"x has shape .*expected \[n, d\]: .* use jax.vmap"),
    "no rows": (lambda: nejax.embedding_distances(X[:0], W), r"x has shape \(0, 4\); expected \[n, d\] with n >= 1"),
    "floats for labels": (lambda: nejax.polysemanticity(D, ROWS * 1.0), "labels have dtype float32; expected integers"),
    "integers for a mask": (lambda: nejax.average_linkage(D, ROWS), "mask has dtype int.*; expected booleans"),
    "complex numbers": (lambda: nejax.neuron_embeddings(X * 1j, W), "x has dtype complex64; expected numbers"),
    "ragged lists": (lambda: nejax.average_linkage([[1, 2], [3]]), "distances cannot be read as an array of numbers"),
    "a word": (lambda: nejax.assign(X, W, "word"), "directions cannot be read as an array of numbers"),
    "nothing": (lambda: nejax.silhouette(D, None), "labels cannot be read as an array of numbers: it is None"),
    "several heights": (lambda: nejax.connected_components(D, [0.1, 0.2]), r"height has shape \(2,\); expected one"),
    "no linkage": (lambda: nejax.cut(D, 0.3), "linkage is of type ndarray; expected a Linkage"),
    "a number for a key": (lambda: nejax.spectral(D, key=0), "key is 0; expected a random key"),
    "half a cluster": (lambda: nejax.kmeans(X, 2.5, key=None), "n_clusters is 2.5; expected a whole number, or None"),
    "a mask of another layer": (
        lambda: nejax.sum_unit_embeddings(X, X.T, X),
        r"weights have shape \(6, 4\); expected \[b, n\] with n = 6, as in w_in",
    ),
    "other rows": (lambda: nejax.adjusted_rand_index(ROWS, ROWS[:4]), r"b has shape \(4,\); expected \[n\] with n = 6"),
    "a square of nothing": (lambda: nejax.kmeans_from_distances(X, 2, key=None), r"distances have shape .*\[n, n\]"),
    "weights of one neuron": (lambda: nejax.neuron_embedding_loss(X, W, X > 0), r"w_in has shape \(4,\); expected"),
}


@pytest.mark.parametrize(("call", "said"), BAD.values(), ids=BAD)
def test_bad_arguments_are_refused_in_one_line(call, said):
    with pytest.raises(UserError, match=said) as error:
        call()
    assert "\n" not in str(error.value)


def test_lists_are_arrays():
    found = nejax.silhouette(D.tolist(), [0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(
        found.samples, nejax.silhouette(jnp.asarray(D), jnp.array([0, 0, 1, 1, 2, 2])).samples
    )
