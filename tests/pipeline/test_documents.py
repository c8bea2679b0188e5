"""Local files, standard input, the Python installation: what goes in comes out, or is counted."""

import gzip
import io
import itertools
import json
import lzma
import os
import sys
import sysconfig
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from nejax.errors import UserError
from nejax.pipeline.corpus.documents import Document, open_corpus

COMPRESS = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}
TEXTS = ["The cat sat.\nOn a mat.\n", "Les élèves, 日本語 🐈", "x" * 100_000]


def json_lines(*rows: object) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(table: dict[str, list]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(table), buffer, row_group_size=2)
    return buffer.getvalue()


def write(path: Path, content: bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return str(path)


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("suffix", [".txt", ".md", ".rst", ".TXT"])
def test_plain_text_is_one_document(tmp_path, suffix, compression):
    for text in TEXTS:
        source = write(tmp_path / f"a.b{suffix}{compression}", COMPRESS[compression](text.encode()))
        assert list(open_corpus(source)) == [Document(f"a.b{suffix}{compression}", text)]


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_tables_are_one_document_a_row(tmp_path, suffix, compression):
    if suffix == ".jsonl":
        content, first = (
            json_lines(*({"text": text, "other": 1} for text in TEXTS)),
            1,
        )  # lines are counted from 1
    else:
        content, first = parquet({"other": [1, 2, 3], "text": TEXTS}), 0  # rows from 0
    name = f"a{suffix}{compression}"
    corpus = open_corpus(write(tmp_path / name, COMPRESS[compression](content)))
    expected = [Document(f"{name}:{number}", text) for number, text in enumerate(TEXTS, start=first)]
    assert list(corpus) == expected
    assert list(corpus) == expected, "a file can be read again"
    assert not corpus.skipped


def test_a_row_is_named_by_its_name_or_id(tmp_path):
    rows = [
        {"text": "a", "id": 7, "name": "first"},
        {"text": "b", "id": 0, "name": ""},
        {"text": "c", "id": None},
    ]
    names = [name for name, _ in open_corpus(write(tmp_path / "a.jsonl", json_lines(*rows)))]
    assert names == ["first", "0", "a.jsonl:3"]
    content = parquet({"id": ["x", None], "text": ["a", "b"]})
    assert [name for name, _ in open_corpus(write(tmp_path / "a.parquet", content))] == ["x", "a.parquet:1"]


def test_another_field_may_hold_the_text(tmp_path):
    row = {"name": "the name as text", "id": 3, "text": "not this"}
    for source in (
        write(tmp_path / "a.jsonl", json_lines(row)),
        write(tmp_path / "a.parquet", parquet({key: [value] for key, value in row.items()})),
    ):
        assert list(open_corpus(source, text_field="name")) == [Document("3", "the name as text")]


def test_a_folder_is_read_in_sorted_order(tmp_path):
    content = {
        "b.txt": b"b",
        "a/z.md": b"z",
        "a/c/deep.rst": b"deep",
        "a.jsonl": json_lines({"text": "row 1"}, {"text": "row 2"}),
        "c.txt.gz": gzip.compress(b"c"),
        "program.py": b"no",
        "list.txt.bz2": b"no",
        ".hidden.txt": b"no",
        "a/.git/b.txt": b"no",
    }
    for name, data in content.items():
        write(tmp_path / name, data)
    corpus = open_corpus(str(tmp_path))
    assert list(corpus) == [
        Document("a/c/deep.rst", "deep"),
        Document("a/z.md", "z"),
        Document("a.jsonl:1", "row 1"),
        Document("a.jsonl:2", "row 2"),
        Document("b.txt", "b"),
        Document("c.txt.gz", "c"),
    ]
    assert corpus.skipped == {"unknown kind of file": 2, "hidden file": 2}


def test_files_of_several_frames_are_read_to_the_end(tmp_path):
    for suffix in (".gz", ".xz", ".zst"):
        compress = COMPRESS[suffix]
        source = write(tmp_path / f"a.txt{suffix}", compress(b"one ") + compress(b"two"))
        assert [text for _, text in open_corpus(source)] == ["one two"]


def test_byte_order_marks_and_windows_line_ends_are_taken_off(tmp_path):
    source = write(tmp_path / "a.txt", b"\xef\xbb\xbfone\r\ntwo\r\n")
    assert [text for _, text in open_corpus(source)] == ["one\ntwo\n"]
    source = write(tmp_path / "a.jsonl", b"\xef\xbb\xbf" + json_lines({"text": "one"}).replace(b"\n", b"\r\n"))
    assert [text for _, text in open_corpus(source)] == ["one"]


def test_undecodable_and_empty_documents_are_skipped_and_counted(tmp_path):
    write(tmp_path / "latin.txt", "élève".encode("latin-1"))
    write(tmp_path / "nul.txt", b"good until\0")
    write(tmp_path / "utf16.txt", "text".encode("utf-16"))
    write(tmp_path / "blank.txt", b" \n\t ")
    write(tmp_path / "void.txt", b"")
    write(tmp_path / "z.jsonl", b'{"text": "\\ud800 lone"}\n{"text": "\xff"}\n{"text": "good"}\n')
    corpus = open_corpus(str(tmp_path))
    for _ in range(2):  # counted anew each time
        assert [text for _, text in corpus] == ["good"]
        assert corpus.skipped == {"undecodable": 5, "empty": 2}


def test_broken_json_lines_are_skipped_and_counted(tmp_path):
    lines = [
        b'{"text": "one"}',
        b'{"text": "cut',
        b"",
        b'["text"]',
        b'{"other": 1}',
        b'{"text": 5}',
        b"[" * 100_000,
    ]
    corpus = open_corpus(write(tmp_path / "a.jsonl", b"\n".join([*lines, b'{"text": "last"}'])))
    assert list(corpus) == [Document("a.jsonl:1", "one"), Document("a.jsonl:8", "last")]
    assert corpus.skipped == {"broken JSON line": 2, "no text in field 'text'": 3}


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".zst"])
def test_a_file_cut_short_keeps_its_whole_rows_and_is_counted(tmp_path, suffix):
    rows = json_lines(*({"text": os.urandom(500).hex()} for _ in range(1000)))
    whole = COMPRESS[suffix](rows)
    corpus = open_corpus(write(tmp_path / f"a.jsonl{suffix}", whole[: len(whole) * 3 // 4]))
    texts = [text for _, text in corpus]
    assert texts == [json.loads(line)["text"] for line in rows.splitlines()[: len(texts)]]
    assert 500 < len(texts) < 1000
    assert corpus.skipped == {"damaged file": 1}


@pytest.mark.parametrize("name", ["a.txt.gz", "a.txt.xz", "a.txt.zst", "a.parquet", "a.parquet.gz"])
def test_binary_garbage_is_refused(tmp_path, name):
    source = write(tmp_path / name, b"garbage" * 100)
    with pytest.raises(UserError, match=r"no usable text .*1 damaged file"):
        list(open_corpus(source))


def test_a_corpus_without_usable_text_is_refused_with_the_reasons(tmp_path):
    with pytest.raises(UserError, match=r"no usable text .*nothing, it is empty"):
        list(open_corpus(str(tmp_path)))
    write(tmp_path / "a.txt", bytes(range(256)))
    write(tmp_path / "b.txt", b" ")
    write(tmp_path / "c.bin", b" ")
    with pytest.raises(UserError, match="1 empty, 1 undecodable, 1 unknown kind of file") as raised:
        list(open_corpus(str(tmp_path)))
    assert "\n" not in str(raised.value)


def test_a_parquet_file_without_the_column_names_those_it_has(tmp_path):
    source = write(tmp_path / "a.parquet", parquet({"body": ["x"], "title": ["y"]}))
    with pytest.raises(UserError, match="no column 'text' among body, title"):
        list(open_corpus(source))


def test_parquet_without_a_text_in_some_rows(tmp_path):
    corpus = open_corpus(write(tmp_path / "a.parquet", parquet({"text": ["a", None, "c"]})))
    assert list(corpus) == [Document("a.parquet:0", "a"), Document("a.parquet:2", "c")]
    assert corpus.skipped == {"no text in field 'text'": 1}


@pytest.mark.parametrize("source", ["./none", "/no/such/folder", "~/none/at/all", "none.txt", "a/b/none.jsonl.gz", ""])
def test_a_path_that_is_not_there_is_refused(source):
    with pytest.raises(UserError, match="no such file or folder"):
        open_corpus(source)


@pytest.mark.parametrize("source", ["json", "imdb", "not/a name", "a/b/c", "a:b", "a/b:"])
def test_what_can_be_neither_a_path_nor_a_dataset_is_refused(source):
    with pytest.raises(UserError, match="neither a local file or folder nor the name of a dataset"):
        open_corpus(source)


@pytest.mark.parametrize("name", ["a.pdf", "a.txt.bz2", "text", "a.gz", "a.json"])
def test_a_file_of_unknown_kind_is_refused(tmp_path, name):
    source = write(tmp_path / name, b"text")
    with pytest.raises(UserError, match=r"unknown kind; expected \.txt, \.md, \.rst, \.jsonl or \.parquet"):
        open_corpus(source)


def test_a_file_that_the_system_does_not_let_read_is_refused(tmp_path, monkeypatch):
    source = write(tmp_path / "a.txt", b"text")
    corpus = open_corpus(source)
    Path(source).unlink()
    with pytest.raises(UserError, match=r"a\.txt' cannot be read: No such file or directory"):
        list(corpus)


@pytest.mark.parametrize("name", [".txt", ".TXT.GZ", "a b.c.txt"])
def test_odd_file_names(tmp_path, name):
    content = gzip.compress(b"text") if name.endswith("GZ") else b"text"
    assert list(open_corpus(write(tmp_path / name, content))) == [Document(name, "text")]


def test_a_home_folder_is_understood(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "a.txt", b"text")
    assert list(open_corpus("~/a.txt")) == [Document("a.txt", "text")]


def read_standard_input(monkeypatch, content: bytes) -> list[Document]:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="latin-1"))
    return list(open_corpus("-"))


def test_standard_input_is_text_or_json_lines(monkeypatch):
    text = "\n  été {\n{not json}\n"
    assert read_standard_input(monkeypatch, text.encode()) == [Document("stdin", text)]
    content = b"\n \n" + json_lines({"text": "one"}, {"text": "two", "id": "b"})
    assert read_standard_input(monkeypatch, content) == [Document("stdin:3", "one"), Document("b", "two")]
    marked = b"\xef\xbb\xbf" + json_lines({"text": "one"})
    assert read_standard_input(monkeypatch, marked) == [Document("stdin:1", "one")]
    with pytest.raises(UserError, match="corpus '-' holds no usable text"):
        read_standard_input(monkeypatch, b"")


@pytest.mark.slow
def test_python_docs_are_english_and_always_in_the_same_order():
    corpus = open_corpus("python-docs")
    documents = list(corpus)
    assert documents[:50] == list(itertools.islice(corpus, 50))
    texts = dict(documents)
    assert len(texts) == len(documents) > 300
    assert sum(map(len, texts.values())) > 1_000_000
    assert "def heappush(heap, item):\nPush item onto heap, maintaining the heap invariant." in texts["modules/heapq"]
    assert "import" in texts["topics/import"]
    assert not [name for name in texts if {"test", "tests", "idle_test", "site-packages"} & set(name.split("."))]
    first = [name.split("/")[0] for name in list(texts)[:100]]
    assert {"topics", "modules"} <= set(first), "the order mixes the kinds"


def test_python_docs_of_a_module(tmp_path, monkeypatch):
    source = '''
"""The module.

    Indented.
        More.
"""

def f(a, *b: int, c=1, **d) -> None:
    """Does f.

    At length.
    """
    def inner():
        """Not told."""

def undocumented(): pass

def _private():
    """Not told."""

class C(Base):
    async def method(self):
        """Awaits."""

class D:
    """A class."""
'''
    expected = """The module.

Indented.
    More.

def f(a, *b: int, c=1, **d):
Does f.

At length.

class C:

def method(self):
Awaits.

class D:
A class."""
    write(tmp_path / "package/__init__.py", source.encode())
    write(tmp_path / "package/broken.py", b'"""' + b"text" * 100)
    write(tmp_path / "package/tests/test_a.py", b'"""' + b"text" * 100 + b'"""')
    write(tmp_path / "short.py", b'"""Too short."""')
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    monkeypatch.setattr("nejax.pipeline.corpus.python_docs._MIN_CHARACTERS", 20)
    assert list(open_corpus("python-docs")) == [Document("modules/package", expected)]


def test_an_installation_without_documentation_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / "none"))
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(UserError, match="neither pydoc_data nor the sources"):
        list(open_corpus("python-docs"))
