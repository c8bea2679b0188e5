"""Images for the MNIST experiment: every source, and everything that can be wrong with one."""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_stand_in import HubStandIn
from idx_files import idx, write_idx_folder
from PIL import Image

from mnist.idx import read_idx
from mnist.images import load_images
from nejax.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files(packed: bool, tmp_path: Path):
    arrays = write_idx_folder(tmp_path, packed=packed)
    images = load_images(str(tmp_path), None)
    train = arrays["train-images-idx3-ubyte"] / 255
    assert images.shape == (5, 5) and images.n_classes == 3
    assert (images.mean, images.deviation) == (round(train.mean(), 4), round(train.std(), 4))
    for x, name in ((images.x, "train"), (images.x_test, "t10k")):
        expected = (arrays[f"{name}-images-idx3-ubyte"] / 255 - images.mean) / images.deviation
        np.testing.assert_allclose(x, expected.reshape(len(expected), 25), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(images.labels, arrays["train-labels-idx1-ubyte"])
    np.testing.assert_array_equal(images.labels_test, arrays["t10k-labels-idx1-ubyte"])


@pytest.mark.skipif("NEJAX_MNIST" not in os.environ, reason="NEJAX_MNIST names a folder with MNIST's IDX files")
def test_mnist_itself():
    images = load_images(os.environ["NEJAX_MNIST"], None)
    assert images.x.shape == (60_000, 784) and images.x_test.shape == (10_000, 784)
    assert (images.mean, images.deviation) == (0.1307, 0.3081)  # the constants that everyone uses
    assert images.labels[:8].tolist() == [5, 0, 4, 1, 9, 2, 1, 3]
    assert images.labels_test[:8].tolist() == [7, 2, 1, 0, 4, 1, 4, 9]


def test_the_bundled_digits():
    images = load_images(None, None)
    assert images.shape == (8, 8) and images.n_classes == 10 and images.x.shape[1] == 64
    assert len(images.x) + len(images.x_test) == 1797
    pixels = images.x * images.deviation + images.mean
    assert abs(pixels.min()) < 1e-6 and abs(pixels.max() - 1) < 1e-6
    assert abs(images.x.mean()) < 1e-3 and abs(images.x.std() - 1) < 1e-3


def test_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UserError, match="scikit-learn, which is missing; pip install scikit-learn"):
        load_images(None, None)


def damage(name: str, content: bytes, message: str):
    return pytest.param(name, content, message, id=f"{name}: {message}")


IMAGES, LABELS = "train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
WHOLE = idx(np.zeros((40, 5, 5)))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        damage(IMAGES, b"", r"begins with the bytes \(none\); expected 00 00 08 03"),
        damage(IMAGES, b"<html>", "begins with the bytes 3c 68 74 6d; expected 00 00 08 03"),
        damage(LABELS, idx(np.zeros((12, 1))), "begins with the bytes 00 00 08 02; expected 00 00 08 01"),
        damage(IMAGES, WHOLE[:-1], "has 1,015 bytes; expected 1,016"),
        damage(IMAGES, WHOLE + b"0", "has 1,017 bytes; expected 1,016"),
        damage(IMAGES, WHOLE[:9], "has 9 bytes; expected"),
        damage(IMAGES, idx(np.zeros((0, 5, 5))), "some values, for the 0 x 5 x 5"),
        damage(IMAGES, WHOLE, "all training images are of one grey"),
        damage(IMAGES, idx(np.ones((39, 5, 5))), "the train files have 39 images and 40 labels"),
        damage(IMAGES, idx(np.ones((40, 4, 5))), r"training images are of \(4, 5\) pixels and others of \(5, 5\)"),
    ],
)
def test_damaged_files(name: str, content: bytes, message: str, tmp_path: Path):
    write_idx_folder(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        load_images(str(tmp_path), None)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


PACKED = gzip.compress(WHOLE, mtime=0)


@pytest.mark.parametrize(
    "content", [b"", b"no gzip", PACKED[:-20], PACKED[:-1] + b"?"], ids=["empty", "other", "cut", "turned"]
)
def test_damaged_packed_files(content: bytes, tmp_path: Path):
    (tmp_path / "images.gz").write_bytes(content)
    with pytest.raises(UserError, match=r"images.gz (cannot be read|begins with the bytes)"):
        read_idx(tmp_path / "images.gz", n_dimensions=3)


def test_missing_files(tmp_path: Path):
    with pytest.raises(UserError, match=r"no-folder has no train-images-idx3-ubyte and no train-images-idx3-ubyte.gz"):
        load_images(str(tmp_path / "no-folder"), None)
    write_idx_folder(tmp_path)
    (tmp_path / LABELS).unlink()
    with pytest.raises(UserError, match=f"has no {LABELS}"):
        load_images(str(tmp_path), None)


def test_two_sources(tmp_path: Path):
    with pytest.raises(UserError, match="are both given; expected one of them"):
        load_images(str(tmp_path), "acme/digits")


def write_parquet(file: Path, pictures: list[np.ndarray], labels: list[int], column: str = "image") -> None:
    """As the Hub has image datasets: PNG files in a column that says so in the file's metadata."""
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for i, picture in enumerate(pictures):
        part = file.with_name(f"{i}.png")
        Image.fromarray(picture.astype(np.uint8)).save(part)
        rows.append({"bytes": part.read_bytes(), "path": None})
        part.unlink()
    of_image = pa.array(rows, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    table = pa.table({column: of_image, "label": labels})
    features = f'{{"{column}": {{"_type": "Image"}}, "label": {{"dtype": "int64", "_type": "Value"}}}}'
    pq.write_table(table.replace_schema_metadata({"huggingface": f'{{"info": {{"features": {features}}}}}'}), file)


@pytest.mark.slow
def test_datasets_of_the_hub(tmp_path: Path):
    rng = np.random.default_rng(0)
    pictures = list(rng.integers(0, 256, (9, 6, 4)))
    coloured = list(rng.integers(0, 256, (2, 6, 4, 3)))
    root = tmp_path / "hub"
    for name, column, some in (("grey", "image", pictures), ("column", "img", pictures), ("colour", "image", coloured)):
        for split in ("train", "test"):
            part = some if split == "train" else some[:2]
            write_parquet(
                root / f"datasets/acme/{name}/data/{split}.parquet", part, [i % 3 for i in range(len(part))], column
            )
    code = (
        "import sys\nfrom mnist.images import load_images\nfrom nejax.errors import UserError\n"
        "for name in sys.argv[1:]:\n"
        "    try:\n"
        "        found = load_images(None, name)\n"
        "        print(found.shape, found.x.shape, found.x_test.shape, found.labels.tolist(), found.mean)\n"
        "    except UserError as error:\n        print(error)\n"
    )
    names = ["acme/grey", "acme/column", "acme/colour", "acme/nothing"]
    with HubStandIn(root) as hub:
        environment = os.environ | hub.environment(tmp_path / "cache")
        environment |= {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "experiments")])}
        done = subprocess.run(
            [sys.executable, "-c", code, *names], env=environment, capture_output=True, text=True, check=False
        )
    lines = done.stdout.splitlines()
    assert len(lines) == 4, done.stderr[-3000:]
    mean = round(float(np.mean(np.stack(pictures) / 255)), 4)
    assert lines[0] == f"(6, 4) (9, 24) (2, 24) [0, 1, 2, 0, 1, 2, 0, 1, 2] {mean}"
    assert lines[1] == "dataset 'acme/column' has columns img, label; expected image and label among them"
    assert "acme/colour' has images of shapes [(6, 4, 3)]; expected grey ones" in lines[2]
    assert "dataset 'acme/nothing' is not on the Hub" in lines[3] and "--data_dir" in lines[3]
