"""What all tests share: checked shapes and types, compiled programs, and how much is done to compile them."""

import os
import platform
import time
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
COMPILED_QUICKLY = [TESTS / folder for folder in ("atlas", "experiments", "pipeline", "neuron/identities")]
"""Folders of tests in which no kernel is tested, and no result of JAX beside another library's."""

# More than half of a small run is compilation: programs are kept from one run of the tests to the next, on one machine.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nejax-tests" / platform.node()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "0"
# Processes that a test starts import this nejax.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(TESTS.parent), os.environ.get("PYTHONPATH")]))

import jax
from jaxtyping import install_import_hook

install_import_hook("nejax", "beartype.beartype")


def is_compiled_quickly(path: Path, config: pytest.Config) -> bool:
    """All of the quick part is, which is for the loop of change and test; the whole suite has it as users do."""
    return config.option.markexpr == "not slow" or any(map(path.is_relative_to, COMPILED_QUICKLY))


def pytest_configure(config: pytest.Config) -> None:
    """Where all that is asked for is compiled quickly, XLA makes machine code the quick way; a process has one way."""
    paths = [(config.invocation_params.dir / arg.partition("::")[0]).resolve() for arg in config.args]
    if all(is_compiled_quickly(path, config) for path in paths):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false".strip()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Compile quickly or as users do, here and in processes that a test starts."""
    quickly = is_compiled_quickly(item.path, item.config)
    if quickly != jax.config.read("jax_disable_most_optimizations"):
        jax.config.update("jax_disable_most_optimizations", quickly)
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = str(int(quickly))
        if not quickly:
            jax.clear_caches()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Programs that no run has compiled anew for a month are removed."""
    if not hasattr(session.config, "workerinput") and CACHE.exists():
        for file in CACHE.iterdir():
            if file.stat().st_mtime < time.time() - 30 * 86400:
                file.unlink(missing_ok=True)
