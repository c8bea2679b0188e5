"""What of a corpus is not read is counted, and said; what only looks as if it could not be read is read."""

import io
import json
import os
import socket
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from nejax.errors import UserError
from nejax.pipeline.corpus.documents import Document, open_corpus
from nejax.pipeline.corpus.left_out import left_out, told
from nejax.pipeline.corpus.rows import table_documents


def write(path: Path, content: str | bytes = "text") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def text_column(values: list[bytes]) -> pa.Array:
    """A column of text, whatever the bytes: Arrow looks at none of them."""
    offsets = pa.array([0, *(sum(map(len, values[: i + 1])) for i in range(len(values)))], pa.int32())
    return pa.Array.from_buffers(pa.string(), len(values), [None, offsets.buffers()[1], pa.py_buffer(b"".join(values))])


# --- links, and what is neither file nor folder


def test_linked_folders_and_files_are_read_and_broken_links_are_counted(tmp_path):
    corpus = tmp_path / "corpus"
    write(corpus / "a.txt", "a")
    write(tmp_path / "elsewhere/deep/b.txt", "b")
    write(tmp_path / "c.txt", "c")
    (corpus / "linked").symlink_to(tmp_path / "elsewhere")
    (corpus / "m.txt").symlink_to(tmp_path / "c.txt")
    (corpus / "gone.txt").symlink_to(tmp_path / "nothing.txt")
    (corpus / "gone").symlink_to(tmp_path / "nothing")
    (corpus / "itself").symlink_to(corpus / "itself")
    os.mkfifo(corpus / "pipe.txt")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(corpus / "s"))
        found = open_corpus(str(corpus))
        assert list(found) == [Document("a.txt", "a"), Document("linked/deep/b.txt", "b"), Document("m.txt", "c")]
    assert found.skipped == {"broken link": 3, "neither file nor folder": 2}


def test_links_that_lead_back_are_counted_and_not_followed(tmp_path):
    corpus = tmp_path / "corpus"
    write(corpus / "a" / "b.txt", "b")
    outside = tmp_path / "outside"
    write(outside / "c.txt", "c")
    (corpus / "a" / "up").symlink_to(corpus)
    (corpus / "above").symlink_to(tmp_path)
    (corpus / "again").symlink_to(corpus / "a")
    (corpus / "out").symlink_to(outside)
    (corpus / "out_again").symlink_to(outside)
    (outside / "back").symlink_to(corpus)
    found = open_corpus(str(corpus))
    assert [name for name, _ in found] == ["a/b.txt", "out/c.txt"]
    assert found.skipped == {"link to a folder that is read anyway": 5}


def test_a_folder_that_may_not_be_read_is_counted(tmp_path, monkeypatch):
    write(tmp_path / "a.txt")
    write(tmp_path / "private" / "b.txt")
    scandir = os.scandir

    def guarded(path):
        if Path(path).name == "private":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    found = open_corpus(str(tmp_path))
    assert [name for name, _ in found] == ["a.txt"] and found.skipped == {"folder that cannot be read": 1}


def test_a_broken_link_as_a_corpus_is_named(tmp_path):
    (tmp_path / "texts").symlink_to(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"texts' is a link to '.*/nothing', which does not exist"):
        open_corpus(str(tmp_path / "texts"))


# --- names


def test_names_that_are_no_text_are_spelled_out(tmp_path):
    """A file's name that is not UTF-8, and half a character in JSON: different names stay different."""
    name = os.fsdecode(b"caf\xe9.txt")
    write(tmp_path / name, "from a file")
    write(tmp_path / os.fsdecode(b"caf\xe8.jsonl"), '{"text": "by its place"}')
    rows = [{"id": "caf\ud83d", "text": "one"}, {"name": "\ude00", "text": "two"}, {"id": "a\0b", "text": "three"}]
    write(tmp_path / "z.jsonl", "\n".join(map(json.dumps, [*rows, {"id": ["\ud83d"], "text": "four"}])))
    documents = list(open_corpus(str(tmp_path)))
    assert [name for name, _ in documents] == [
        "caf\\udce8.jsonl:1",
        "caf\\udce9.txt",
        "caf\\ud83d",
        "\\ude00",
        "a\\x00b",
        "['\\ud83d']",
    ]
    assert all(name.encode() for name, _ in documents)
    assert list(open_corpus(str(tmp_path / name))) == [Document("caf\\udce9.txt", "from a file")]


# --- Parquet


def test_parquet_values_that_are_not_utf8_are_counted_and_the_rest_is_read(tmp_path):
    table = pa.table({"text": text_column([b"one", b"caf\xe9", b"three"]), "id": text_column([b"a", b"b", b"\xff"])})
    pq.write_table(table, tmp_path / "a.parquet")
    write(tmp_path / "b.txt", "still read")
    found = open_corpus(str(tmp_path))
    expected = [Document("a", "one"), Document("a.parquet:2", "three"), Document("b.txt", "still read")]
    assert list(found) == expected and found.skipped == {"undecodable": 1}


def test_a_name_that_python_has_no_value_for_is_no_name(tmp_path):
    far = pa.array([0, 2**62], pa.timestamp("ms"))  # the second is some 10**8 years away
    pq.write_table(pa.table({"text": ["one", "two"], "id": far}), tmp_path / "a.parquet")
    names = [name for name, _ in open_corpus(str(tmp_path))]
    assert names == ["1970-01-01 00:00:00", "a.parquet:1"]


def test_of_two_columns_of_one_name_none_is_taken(tmp_path):
    both = pa.table([["x"], ["y"]], names=["text", "text"])
    pq.write_table(both, tmp_path / "a.parquet")
    with pytest.raises(UserError, match="left out: 1 2 columns 'text'"):
        list(open_corpus(str(tmp_path / "a.parquet")))
    pq.write_table(pa.table([["x"], ["1"], ["2"]], names=["text", "id", "id"]), tmp_path / "b.parquet")
    found = open_corpus(str(tmp_path))
    assert list(found) == [Document("b.parquet:0", "x")] and found.skipped == {"2 columns 'text'": 1}


def test_of_two_fields_of_one_name_none_is_taken(tmp_path):
    lines = [
        '{"text": "a", "text": "b"}',
        '{"text": "says \\"text\\"", "meta": {"text": "inner"}}',
        '{"meta": {"text": 1, "text": 2}, "text": "good"}',
        '{"a": "\\"text\\"", "text": "too"}',
    ]
    found = open_corpus(str(write(tmp_path / "a.jsonl", "\n".join(lines))))
    assert [text for _, text in found] == ['says "text"', "good", "too"]
    assert found.skipped == {"more than one field 'text'": 1}


def test_columns_whose_names_are_no_text_are_a_damaged_file(tmp_path):
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": ["one"], "QQQQ": ["x"]}), buffer)
    write(tmp_path / "a.parquet", buffer.getvalue().replace(b"QQQQ", b"\xff\xfe\xff\xfe"))
    write(tmp_path / "b.txt")
    found = open_corpus(str(tmp_path))
    assert [name for name, _ in found] == ["b.txt"] and found.skipped == {"damaged file": 1}


def test_tables_without_the_column_have_no_text():
    skipped = open_corpus("python-docs").skipped
    assert list(table_documents(pa.table({"id": ["a", "b"]}), 0, "t", "text", skipped)) == []
    assert skipped == {"no text in field 'text'": 2}


# --- zstd


def long_window(text: bytes) -> bytes:
    """As `zstd --ultra --long=31` makes it: the window is as long as the content may become."""
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=31)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()  # size not known beforehand
    return compressor.compress(text) + compressor.flush()


def test_long_windows_are_read(tmp_path):
    text = "The cat sat.\n" * 10
    packed = long_window(text.encode())
    assert zstandard.get_frame_parameters(packed).window_size == 2**31
    assert list(open_corpus(str(write(tmp_path / "a.txt.zst", packed)))) == [Document("a.txt.zst", text)]


@pytest.mark.parametrize("end", [-1, -3, 9, 4, 2])
def test_zstd_files_cut_short_anywhere_are_damaged(tmp_path, end):
    whole = zstandard.compress(b"one") + zstandard.ZstdCompressor(write_checksum=True).compress(os.urandom(500))
    n_first = len(zstandard.compress(b"one"))
    cut = whole[: n_first + end] if end > 0 else whole[:end]
    with pytest.raises(UserError, match="1 damaged file"):
        list(open_corpus(str(write(tmp_path / "a.txt.zst", cut))))


def test_zstd_frames_that_are_skipped_or_empty_and_frames_longer_than_a_piece(tmp_path):
    skippable = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"ABCDE"
    long = os.urandom(400_000).hex()
    pieces = [
        skippable,
        zstandard.compress(b""),
        zstandard.compress(b"a"),
        skippable,
        zstandard.compress(long.encode()),
    ]
    found = open_corpus(str(write(tmp_path / "a.txt.zst", b"".join([*pieces, zstandard.compress(b"z")]))))
    assert [text for _, text in found] == [f"a{long}z"]


# --- what is said of it


def test_every_count_is_a_line_and_much_is_a_warning():
    facts = {"skipped": {"undecodable": 2, "empty": 0}, "documents_read": 1, "sequences": 95}
    found = left_out(facts | {"duplicate_sequences": 5, "short_windows": 0})
    assert found.left_out == ["undecodable: 2", "sequence that repeats another: 5"]
    assert found.warnings == ["WARNING: 67% of the corpus's documents could not be used"]
    assert told(found) == [*found.warnings, "left out, undecodable: 2", "left out, sequence that repeats another: 5"]
    assert left_out({"sequences": 10, "documents_read": 3, "skipped": {}}) == ([], [])


def test_a_tenth_is_not_much():
    assert not left_out({"skipped": {"empty": 1}, "documents_read": 9}).warnings
    assert left_out({"skipped": {"empty": 1}, "documents_read": 8}).warnings
    assert not left_out({"sequences": 90, "duplicate_sequences": 10, "short_windows": 10}).warnings
    assert len(left_out({"sequences": 88, "duplicate_sequences": 10, "short_windows": 12}).warnings) == 2
    assert not left_out({"skipped": {"link to a folder that is read anyway": 9}, "documents_read": 1}).warnings
