"""A run knows what it was made from: what changed is refused and named, what did not change is not read again."""

import io
import json
import os
import shutil
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_corpus import random_documents

from nejax.errors import UserError
from nejax.models.formats import files as model_file_tools
from nejax.pipeline.corpus import documents as documents_module
from nejax.pipeline.corpus import python_docs
from nejax.pipeline.corpus.documents import Corpora, open_corpus
from nejax.pipeline.corpus.sequences import SequenceShards
from nejax.pipeline.corpus.windows import cut_documents
from nejax.pipeline.run.directory import RunDirectory
from nejax.training.text import prepare_text, shards_to_train_on

SEQ_LEN, SHARD = 8, 16
OLD = time.time() - 1000


@pytest.fixture
def folder(tmp_path) -> Path:
    """A corpus of five files, in one of them several rows."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    texts = [text for _, text in random_documents(9, max_words=40)]
    for name, text in zip("abcd", texts, strict=False):
        (corpus / f"{name}.txt").write_text(text)
    (corpus / "rows.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts[4:]))
    return corpus


def shards_of(run: Path, corpus: Path | str, tokenizer, **options) -> SequenceShards:
    """Of a run of that corpus; checked as a run is."""

    def cut(after, seen):
        documents = Corpora([open_corpus(str(corpus))])
        documents.expect(shards.texts())
        rule: dict[str, Any] = {"seq_len": SEQ_LEN, "shard_size": SHARD, "batch_size": 1} | options
        return cut_documents(documents, tokenizer, after=after, seen=seen, **rule)

    shards = SequenceShards(RunDirectory(run, {}), SEQ_LEN, cut)
    shards.refuse_other_texts([open_corpus(str(corpus), eager=False)])
    return shards


def finish(shards: SequenceShards) -> int:
    return sum(len(piece.tokens) for piece in shards.stream())


def begin(shards: SequenceShards, n: int) -> None:
    """Cut so many shards."""
    stream = shards.stream()
    for _ in range(n):
        next(stream)
    stream.close()


def refused(run: Path, corpus: Path | str, tokenizer, **options) -> str:
    with pytest.raises(UserError) as error:
        finish(shards_of(run, corpus, tokenizer, **options))
    assert "\n" not in str(error.value)
    return str(error.value)


# --- a corpus of files


CHANGES = {
    "overwritten with as many bytes": (
        lambda folder: (folder / "b.txt").write_bytes(bytes(reversed((folder / "b.txt").read_bytes()))),
        ["'b.txt' is not what it was"],
    ),
    "added to": (lambda folder: (folder / "d.txt").open("a").write("x") and None, ["'d.txt' is not what it was"]),
    "a row more": (
        lambda folder: (folder / "rows.jsonl").open("a").write('\n{"text": "more"}') and None,
        ["'rows.jsonl' is not what it was"],
    ),
    "removed": (lambda folder: (folder / "a.txt").unlink(), ["'a.txt' is gone"]),
    "a new file": (lambda folder: (folder / "aa.txt").write_text("new"), ["'aa.txt' is new"]),
    "a new file at the end": (lambda folder: (folder / "zz.txt").write_text("new"), ["'zz.txt' is new"]),
    "renamed": (lambda folder: (folder / "c.txt").rename(folder / "e.txt"), ["'c.txt' is gone", "'e.txt' is new"]),
    "another name of a row": (
        lambda folder: (folder / "rows.jsonl").write_text(
            (folder / "rows.jsonl").read_text().replace("{", '{"id": "x", ', 1)
        ),
        ["'rows.jsonl' is not what it was"],
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_corpus_is_refused_and_named(change, folder, tokenizer, tmp_path):
    """At once: the times of these files are too young to tell."""
    assert finish(shards_of(tmp_path / "run", folder, tokenizer)) > 2 * SHARD
    finish(shards_of(tmp_path / "run", folder, tokenizer))
    act, named = CHANGES[change]
    act(folder)
    said = refused(tmp_path / "run", folder, tokenizer)
    assert all(line in said for line in named) and f"corpus {str(folder)!r} has other text" in said
    assert said.count(" is ") == len(named), "and nothing else"


def test_a_folder_that_is_gone_is_refused(folder, tokenizer, tmp_path):
    finish(shards_of(tmp_path / "run", folder, tokenizer))
    shutil.rmtree(folder)
    assert "no such file or folder" in refused(tmp_path / "run", folder, tokenizer)


def test_what_was_only_touched_copied_or_packed_is_the_same(folder, tokenizer, tmp_path):
    finish(shards_of(tmp_path / "run", folder, tokenizer))
    for file in folder.iterdir():
        os.utime(file, (OLD, OLD))
    finish(shards_of(tmp_path / "run", folder, tokenizer))
    shutil.copytree(folder, tmp_path / "copy")
    finish(shards_of(tmp_path / "run", tmp_path / "copy", tokenizer))
    (folder / "picture.png").write_bytes(b"not read then, nor now")
    finish(shards_of(tmp_path / "run", folder, tokenizer))


def test_what_stamps_tell_is_not_read_again(folder, tokenizer, tmp_path, old_clock, monkeypatch):
    finish(shards_of(tmp_path / "run", folder, tokenizer))
    opened, real = [], documents_module.read_file

    def read_file(path, *rest):
        opened.append(path.name)
        return real(path, *rest)

    monkeypatch.setattr(documents_module, "read_file", read_file)
    shards_of(tmp_path / "run", folder, tokenizer)
    assert opened == []
    os.utime(folder / "b.txt", (OLD, OLD))
    shards_of(tmp_path / "run", folder, tokenizer)
    assert opened == ["b.txt"], "it alone"
    shards_of(tmp_path / "run", folder, tokenizer)
    assert opened == ["b.txt"], "and once: its new stamp is kept"


def test_files_too_young_to_tell_are_read_once_more_and_then_known(folder, tokenizer, tmp_path, monkeypatch):
    finish(shards_of(tmp_path / "run", folder, tokenizer))
    kept = json.loads((tmp_path / "run" / "sources" / "tokens-0000.json").read_text())
    assert [part[1] for part in kept[0][1]] == [None] * len(kept[0][1])
    now = time.time_ns
    monkeypatch.setattr(model_file_tools.time, "time_ns", lambda: now() + 10**12)
    shards_of(tmp_path / "run", folder, tokenizer)
    monkeypatch.setattr(documents_module, "read_file", lambda *_: pytest.fail("read again"))
    shards_of(tmp_path / "run", folder, tokenizer)


def test_only_what_was_read_of_a_corpus_counts(folder, tokenizer, tmp_path):
    """A run that stopped early does not know the rest."""
    options = {"max_sequences": 3}
    finish(shards_of(tmp_path / "run", folder, tokenizer, **options))
    read = [part.name for part in shards_of(tmp_path / "run", folder, tokenizer).texts()[0].parts]
    assert read[0] == "a.txt" and "rows.jsonl" not in read
    (folder / "rows.jsonl").unlink()
    (folder / "zz.txt").write_text("new")
    finish(shards_of(tmp_path / "run", folder, tokenizer, **options))
    (folder / "0.txt").write_text("new")
    assert "'0.txt' is new" in refused(tmp_path / "run", folder, tokenizer, **options)


def test_the_end_of_a_file_that_was_read_in_part_may_change(tokenizer, tmp_path):
    """Rows that were not reached."""
    file = tmp_path / "rows.jsonl"
    rows = [json.dumps({"text": text}) for _, text in random_documents(9, max_words=40)]
    file.write_text("\n".join(rows))
    finish(shards_of(tmp_path / "run", file, tokenizer, max_sequences=3))
    file.write_text("\n".join([*rows[:-1], '{"text": "another end"}']))
    finish(shards_of(tmp_path / "run", file, tokenizer, max_sequences=3))
    file.write_text("\n".join(["{}", *rows]))
    assert "'rows.jsonl' is not what it was" in refused(tmp_path / "run", file, tokenizer, max_sequences=3)


@pytest.mark.parametrize("change", ["overwritten with as many bytes", "removed", "a new file", "another name of a row"])
def test_an_unfinished_run_does_not_go_on_with_other_texts(change, folder, tokenizer, tmp_path):
    n_before = len(list(folder.iterdir()))
    whole = finish(shards_of(tmp_path / "whole", folder, tokenizer))
    begin(shards_of(tmp_path / "run", folder, tokenizer), -(-whole // SHARD) - 1)
    copy = shutil.copytree(folder, tmp_path / "copy")
    act, named = CHANGES[change]
    act(folder)
    assert named[0] in refused(tmp_path / "run", folder, tokenizer)
    assert len(list(copy.iterdir())) == n_before
    assert finish(shards_of(tmp_path / "run", copy, tokenizer)) == whole, "what was there before is as good as ever"


def test_texts_that_change_between_the_check_and_the_reading_are_met(folder, tokenizer, tmp_path):
    begin(shards_of(tmp_path / "run", folder, tokenizer), 1)
    shards = shards_of(tmp_path / "run", folder, tokenizer)
    text = (folder / "a.txt").read_text()
    (folder / "a.txt").write_text(text[::-1])
    with pytest.raises(UserError, match=r"'a\.txt' is not what it was"):
        finish(shards)
    (folder / "a.txt").write_text(text)
    (folder / "0.txt").write_text("new")
    with pytest.raises(UserError, match=r"'a\.txt' is gone, or '0\.txt' is new"):
        finish(shards)


def test_a_run_of_which_nothing_is_known_says_so(folder, tokenizer, tmp_path, capsys):
    finish(shards_of(tmp_path / "run", folder, tokenizer))
    (tmp_path / "run" / "sources" / "tokens-0001.json").write_text("[[")
    finish(shards_of(tmp_path / "run", folder, tokenizer))
    assert "note: not compared with what the run was made from" in capsys.readouterr().err


def test_parquet_is_known_by_its_rows(tokenizer, tmp_path):
    file, texts = tmp_path / "a.parquet", [text for _, text in random_documents(9, max_words=40)]
    pq.write_table(pa.table({"text": texts}), file)
    finish(shards_of(tmp_path / "run", file, tokenizer))
    pq.write_table(pa.table({"text": texts, "label": list(range(9))}), file, compression="zstd")
    finish(shards_of(tmp_path / "run", file, tokenizer))
    pq.write_table(pa.table({"text": texts[::-1]}), file)
    assert "is not what it was" in refused(tmp_path / "run", file, tokenizer)


# --- standard input


def pipe(monkeypatch, texts: Iterable[str]) -> None:
    content = "\n".join(json.dumps({"text": text}) for text in texts).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_other_text_on_standard_input_is_refused(tokenizer, tmp_path, monkeypatch, capsys):
    texts = [text for _, text in random_documents(9, max_words=40)]
    pipe(monkeypatch, texts)
    finish(shards_of(tmp_path / "run", "-", tokenizer))
    shards_of(tmp_path / "run", "-", tokenizer)
    assert "standard input is a terminal, or was read already" in capsys.readouterr().err
    pipe(monkeypatch, texts)
    finish(shards_of(tmp_path / "run", "-", tokenizer))
    assert not capsys.readouterr().err
    for other in (texts[:-1], [*texts, "more"], [], ["x", *texts[1:]]):
        pipe(monkeypatch, other)
        assert "'standard input' is not what it was" in refused(tmp_path / "run", "-", tokenizer)


def test_an_unfinished_run_of_standard_input_goes_on_with_the_same_text_alone(tokenizer, tmp_path, monkeypatch):
    texts = [text for _, text in random_documents(9, max_words=40)]
    pipe(monkeypatch, texts)
    begin(shards_of(tmp_path / "run", "-", tokenizer), 2)
    pipe(monkeypatch, ["x", *texts[1:]])
    assert "'standard input' is not what it was" in refused(tmp_path / "run", "-", tokenizer)
    pipe(monkeypatch, texts)
    n = finish(shards_of(tmp_path / "run", "-", tokenizer))
    pipe(monkeypatch, texts)
    assert n == finish(shards_of(tmp_path / "other", "-", tokenizer))


def test_standard_input_is_read_once(monkeypatch):
    pipe(monkeypatch, ["a"])
    assert len(list(open_corpus("-"))) == 1
    with pytest.raises(UserError, match="can be read only once"):
        list(open_corpus("-"))


# --- the Python installation


def test_documentation_of_another_python_is_refused(tokenizer, tmp_path, monkeypatch):
    options = {"max_sequences": 5}
    finish(shards_of(tmp_path / "run", "python-docs", tokenizer, **options))
    monkeypatch.setattr(documents_module, "PYTHON", "the documentation of Python 2.7.18")
    said = refused(tmp_path / "run", "python-docs", tokenizer, **options)
    assert f"{python_docs.PYTHON!r} is gone, 'the documentation of Python 2.7.18' is new" in said


def test_the_same_documentation_is_known_quickly(tokenizer, tmp_path, monkeypatch):
    finish(shards_of(tmp_path / "run", "python-docs", tokenizer, max_sequences=5))
    monkeypatch.setattr(documents_module, "read_python_docs", lambda skipped: pytest.fail("read again"))
    started = time.monotonic()
    shards_of(tmp_path / "run", "python-docs", tokenizer)
    assert time.monotonic() - started < 1
    monkeypatch.undo()
    monkeypatch.setattr(documents_module, "python_docs_stamp", lambda: "another installation of this version")
    shards_of(tmp_path / "run", "python-docs", tokenizer)


# --- text for training


def test_text_prepared_for_training_is_of_the_texts_of_now(folder, tmp_path):
    options = {"vocab_size": 260, "seq_len": 8, "held_out": 0.3, "max_sequences": 4, "say": lambda line: None}
    prepare_text(tmp_path / "text", [str(folder)], **options)
    prepare_text(tmp_path / "text", [str(folder)], **options)
    (folder / "b.txt").write_text("other text")
    with pytest.raises(UserError, match=r"'b\.txt' is not what it was"):
        prepare_text(tmp_path / "text", [str(folder)], **options)
    prepare_text(tmp_path / "text", [str(folder)], **options, anew=True)


def test_sequences_to_train_on_are_of_the_texts_of_now(folder, tokenizer, tmp_path):
    """Of two corpora; the second is changed."""
    other = shutil.copytree(folder, tmp_path / "other")
    (other / "b.txt").write_text("only here")

    def shards() -> SequenceShards:
        sources = [str(folder), str(other)]
        return shards_to_train_on(RunDirectory(tmp_path / "run", {}), sources, tokenizer, held_out=0.0, seq_len=8)

    n = finish(shards())
    assert finish(shards()) == n
    (other / "b.txt").write_text("not there")
    with pytest.raises(UserError, match=rf"corpus '{other}' has other text .*'b\.txt' is not what it was"):
        shards()


def test_standard_input_cannot_be_read_for_training(tmp_path, tokenizer):
    with pytest.raises(UserError, match="corpus=-: expected a file: standard input can be read only once"):
        prepare_text(tmp_path, ["-"], vocab_size=260, seq_len=8, held_out=0.1, max_sequences=None)
    with pytest.raises(UserError, match="corpus=-: expected a file: standard input can be read only once"):
        shards_to_train_on(RunDirectory(tmp_path / "run", {}), ["-"], tokenizer, held_out=0.1, seq_len=8)


def test_documents_that_training_leaves_out_are_said(folder, tmp_path):
    (folder / "latin.txt").write_bytes(b"caf\xe9")
    said: list[str] = []
    options = {"vocab_size": 260, "seq_len": 8, "held_out": 0.3, "max_sequences": None, "say": said.append}
    prepare_text(tmp_path / "text", [str(folder)], **options)
    assert "left out, undecodable: 1" in said
