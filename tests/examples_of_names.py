"""The examples in the documentation of public names, each a doctest."""

import doctest

import jax
import jax.numpy as jnp
import numpy as np

import nejax

OF_AN_ATLAS = [name for name in nejax.__all__ if '"runs/demo"' in (getattr(nejax, name).__doc__ or "")]
"""Those that open the demo's atlas."""
OTHERS = [name for name in nejax.__all__ if name not in OF_AN_ATLAS]


def failures_of(name: str) -> list[str]:
    """How the output of a name's example differs from its documentation; no example is a failure."""
    names = {"nejax": nejax, "jax": jax, "jnp": jnp, "np": np}
    test = doctest.DocTestParser().get_doctest(getattr(nejax, name).__doc__ or "", names, name, None, 0)
    if not test.examples:
        return [f"{name} has no example"]
    said: list[str] = []
    doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    return said
