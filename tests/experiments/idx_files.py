"""MNIST's four files in small, for tests."""

import gzip
from pathlib import Path

import numpy as np


def idx(values: np.ndarray) -> bytes:
    """The bytes of an IDX file of unsigned bytes."""
    return bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes() + values.astype(np.uint8).tobytes()


def write_idx_folder(folder: Path, *, n: int = 40, n_test: int = 12, side: int = 5, packed: bool = False) -> dict:
    """Write four files of random images; return the arrays by file name."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, size in (("train", n), ("t10k", n_test)):
        arrays[f"{split}-images-idx3-ubyte"] = rng.integers(0, 256, (size, side, side))
        arrays[f"{split}-labels-idx1-ubyte"] = np.arange(size) % 3
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in arrays.items():
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(values)))
        else:
            (folder / name).write_bytes(idx(values))
    return arrays
