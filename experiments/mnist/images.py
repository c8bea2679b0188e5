"""Labelled images, from IDX files, from the Hub or from scikit-learn, as an MLP reads them."""

import hashlib
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mnist.idx import read_idx_folder
from nejax.errors import UserError
from nejax.pipeline.corpus.hub_datasets import hub_errors

Split = tuple[np.ndarray, np.ndarray]
"""Images `[n, height, width]`, of any scale, and their labels `[n]`."""


class Images(NamedTuple):
    """Images of two splits, each a row of pixels."""

    source: str
    """What they are, for people."""
    shape: tuple[int, int]
    """Height and width."""
    n_classes: int
    """Labels are from 0 up to, not including, this."""
    mean: float
    """Of the training pixels, on a scale where the brightest is 1, to four decimals: MNIST's 0.1307."""
    deviation: float
    """Their standard deviation, likewise: MNIST's 0.3081."""
    x: Float[np.ndarray, "n d_in"]
    """The training images: `(pixel - mean) / deviation`."""
    labels: Int[np.ndarray, " n"]
    """Their labels."""
    x_test: Float[np.ndarray, "m d_in"]
    """Images that nothing is trained on, on the same scale."""
    labels_test: Int[np.ndarray, " m"]
    """Their labels."""

    def digest(self) -> str:
        """32 hexadecimal digits that stand for every image and label."""
        digest = hashlib.blake2b(digest_size=16)
        for array in (self.x, self.labels, self.x_test, self.labels_test):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def load_images(data_dir: str | None, dataset: str | None) -> Images:
    """Read MNIST from its files or any grey images from the Hub; with neither, scikit-learn's 8 x 8 digits.

    Args:
        data_dir: folder with the four IDX files, packed (.gz) or not.
        dataset: `NAMESPACE/NAME` or `NAMESPACE/NAME:CONFIG` on the Hub, with columns `image` and `label` and splits
            `train` and `test`.

    Raises:
        UserError: both are given; files are missing or damaged; the dataset cannot be read or has no grey images of
            one size; scikit-learn is missing.
    """
    if data_dir and dataset:
        raise UserError(f"--data_dir={data_dir} and --dataset={dataset} are both given; expected one of them")
    if data_dir:
        return _images(data_dir, *read_idx_folder(data_dir), brightest=255)
    if dataset:
        return _images(dataset, _hub_split(dataset, "train"), _hub_split(dataset, "test"), brightest=255)
    return _images("scikit-learn's digits", *_digits(), brightest=16)


def _images(source: str, train: Split, test: Split, *, brightest: int) -> Images:
    (images, labels), (images_test, labels_test) = train, test
    if images.shape[1:] != images_test.shape[1:]:
        raise UserError(f"{source}: training images are of {images.shape[1:]} pixels and others of {test[0].shape[1:]}")
    x, x_test = (split.reshape(len(split), -1).astype(np.float32) / brightest for split in (images, images_test))
    mean, deviation = round(float(x.mean(dtype=np.float64)), 4), round(float(x.std(dtype=np.float64)), 4)
    if deviation == 0:
        raise UserError(f"{source}: all training images are of one grey; expected pictures of several classes")
    return Images(
        source=source,
        shape=images.shape[1:],
        n_classes=int(max(labels.max(), labels_test.max())) + 1,
        mean=mean,
        deviation=deviation,
        x=(x - mean) / deviation,
        labels=labels.astype(np.int32),
        x_test=(x_test - mean) / deviation,
        labels_test=labels_test.astype(np.int32),
    )


def _hub_split(dataset: str, split: str) -> Split:
    from datasets import load_dataset  # here, since only this source waits for it

    repository, _, config = dataset.partition(":")
    trouble = hub_errors(
        f"dataset {dataset!r}",
        missing="is not on the Hub",
        unreachable="is not there: the Hub cannot be reached",
        instead="name another, or take --data_dir or neither, which need no network",
    )
    with trouble:
        rows: Any = load_dataset(repository, config or None, split=split)
        columns = rows.column_names
        there = {"image", "label"} <= set(columns)
        images = [np.asarray(image) for image in rows["image"]] if there else []
        labels = np.asarray(rows["label"] if there else [])
    if not there:
        raise UserError(f"dataset {dataset!r} has columns {', '.join(columns)}; expected image and label among them")
    if len(shapes := {image.shape for image in images}) != 1 or images[0].ndim != 2:
        raise UserError(
            f"dataset {dataset!r} has images of shapes {sorted(shapes)[:3]}; expected grey ones of one size"
        )
    return np.stack(images), labels


def _digits() -> tuple[Split, Split]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UserError(
            "the digits used without --data_dir and --dataset come with scikit-learn, which is missing; "
            "pip install scikit-learn, or name the folder of MNIST's files with --data_dir"
        ) from error
    digits: Any = load_digits()
    test = np.arange(len(digits.images)) % 6 == 5
    return (digits.images[~test], digits.target[~test]), (digits.images[test], digits.target[test])
