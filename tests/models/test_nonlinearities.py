"""Non-linearities against those of transformers."""

import jax.numpy as jnp
import numpy as np
import pytest

from nejax.models.families.activations import ACTIVATIONS

HAVE_WEIGHTS = {"prelu", "xielu"}


def test_every_name_of_transformers_is_its_function():
    torch = pytest.importorskip("torch")
    from transformers.activations import ACT2CLS, ACT2FN

    x = np.concatenate([np.linspace(-12, 12, 2001), [0.0, -50.0, 50.0]])
    assert ACTIVATIONS.keys() | HAVE_WEIGHTS >= ACT2CLS.keys()
    for name in ACTIVATIONS.keys() & ACT2CLS.keys():
        expected = ACT2FN[name](torch.tensor(x)).numpy()
        found = ACTIVATIONS[name](jnp.asarray(x, jnp.float32))
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6, err_msg=name)
