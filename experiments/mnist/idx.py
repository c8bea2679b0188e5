"""The IDX files in which MNIST was published."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from nejax.errors import UserError

SPLITS = ("train", "t10k")
"""As MNIST's files name them: 60,000 images to train on, 10,000 to test with."""


def read_idx_folder(folder: str | Path) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """The images `[n, height, width]` and labels `[n]` of both splits, uint8.

    Args:
        folder: holds `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and
            `t10k-labels-idx1-ubyte`, each as it is or with `.gz`.

    Raises:
        UserError: a file is missing or damaged, or a split has more images than labels or fewer.
    """
    train, test = (_read_split(Path(folder), split) for split in SPLITS)
    return train, test


def _read_split(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    images = read_idx(_find(folder, f"{split}-images-idx3-ubyte"), n_dimensions=3)
    labels = read_idx(_find(folder, f"{split}-labels-idx1-ubyte"), n_dimensions=1)
    if len(images) != len(labels):
        raise UserError(
            f"{folder}: the {split} files have {len(images):,} images and {len(labels):,} labels; expected as many of "
            "each, fetch both files anew"
        )
    return images, labels


def _find(folder: Path, name: str) -> Path:
    for file in (folder / name, folder / f"{name}.gz"):
        if file.is_file():
            return file
    raise UserError(f"--data_dir={folder} has no {name} and no {name}.gz; expected MNIST's four IDX files there")


def read_idx(file: Path, *, n_dimensions: int) -> np.ndarray:
    """One array of bytes.

    The format: two zero bytes, a byte for the type (8: unsigned bytes), one for the number of dimensions, each
    dimension in four bytes with the highest first, then the values.

    Args:
        file: packed if its name ends in `.gz`.
        n_dimensions: that the array must have.

    Raises:
        UserError: it cannot be read or unpacked, or is not such an array, or is too short or too long for its head.
    """
    try:
        raw = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{file} cannot be read ({error}); fetch it anew") from error
    magic, head = bytes([0, 0, 8, n_dimensions]), 4 + 4 * n_dimensions
    if raw[:4] != magic:
        raise UserError(
            f"{file} begins with the bytes {raw[:4].hex(' ') or '(none)'}; expected {magic.hex(' ')}, an IDX file of "
            f"unsigned bytes in {n_dimensions} dimension{'s'[: n_dimensions > 1]}"
        )
    shape = np.frombuffer(raw[4:head].ljust(4 * n_dimensions, b"\0"), ">u4").tolist()
    if len(raw) != head + math.prod(shape) or not math.prod(shape):
        size = " x ".join(map(str, shape))
        raise UserError(
            f"{file} has {len(raw):,} bytes; expected {head + math.prod(shape):,} and some values, for the {size} that "
            "its head names; fetch it anew"
        )
    return np.frombuffer(raw, np.uint8, offset=head).reshape(shape)
