"""Shapes and types of every public function are checked at run time in all tests."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from jaxtyping import install_import_hook

install_import_hook("nejax", "beartype.beartype")
