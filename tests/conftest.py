"""What all tests share: checked shapes and types, compiled programs, and how much is done to compile them."""

import os
import platform
import time
from pathlib import Path

import pytest

# More than half of a small run is compilation: programs are kept from one run of the tests to the next, on one machine.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nejax-tests" / platform.node()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "0"
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # but see `optimized`
# Processes that a test starts import this nejax.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))

import jax
from jaxtyping import install_import_hook

install_import_hook("nejax", "beartype.beartype")


@pytest.fixture(scope="module", autouse=True)
def optimized(request: pytest.FixtureRequest):
    """Compile as users do where a module is marked so: kernels, tolerances and speed are tested there."""
    if not request.node.get_closest_marker("optimized"):
        yield
        return
    jax.clear_caches()  # what is there was compiled for other tests
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Programs that no run has compiled anew for a month are removed."""
    if not hasattr(session.config, "workerinput") and CACHE.exists():
        for file in CACHE.iterdir():
            if file.stat().st_mtime < time.time() - 30 * 86400:
                file.unlink(missing_ok=True)
