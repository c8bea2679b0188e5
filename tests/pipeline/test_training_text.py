"""Text for training: the split, the order of batches, and bits per byte, each against its definition."""

import math
from pathlib import Path

import numpy as np
import pytest

from nejax.errors import UserError
from nejax.models.formats.tokens import token_bytes
from nejax.pipeline.corpus.documents import open_corpus
from nejax.pipeline.corpus.windows import Sequences
from nejax.training import text as training_text
from nejax.training.text import batch_at, bits_per_byte, prepare_text, split_documents

N_DOCUMENTS = 200


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[str, str]:
    """Two corpora of 100 texts each, and one text that is in both."""
    folders = []
    for part in range(2):
        folder = tmp_path_factory.mktemp(f"corpus-{part}")
        for i in range(N_DOCUMENTS // 2 - 1):
            (folder / f"{i:03d}.txt").write_text(f"text {i} of part {part}: the cat sat on the mat. " * 3)
        (folder / "zzz.txt").write_text("the same text in both corpora, and so on the same side of the split")
        folders.append(str(folder))
    return folders[0], folders[1]


def texts(sources, fraction: float, held_out: bool) -> list[str]:
    return [document.text for document in split_documents(sources, fraction, held_out=held_out)]


# --- the split


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.3, 1.0])
def test_each_document_is_on_one_side(folders, fraction):
    everything = sorted(document.text for folder in folders for document in open_corpus(folder))
    assert len(everything) == N_DOCUMENTS
    train, held_out = (texts(folders, fraction, side) for side in (False, True))
    assert sorted(train + held_out) == everything
    assert not set(train) & set(held_out), "copies are on one side"
    # Binomial: the bound is four standard deviations.
    spread = 4 * math.sqrt(N_DOCUMENTS * fraction * (1 - fraction))
    assert abs(len(held_out) - fraction * N_DOCUMENTS) <= spread


def test_a_document_stays_on_its_side_whatever_its_order_and_company(folders):
    held_out = set(texts(folders, 0.3, True))
    assert set(texts(folders[::-1], 0.3, True)) == held_out
    assert set(texts(folders[:1], 0.3, True)) == held_out & {d.text for d in open_corpus(folders[0])}
    assert set(texts(folders, 0.2, True)) < held_out, "a larger fraction adds to a smaller"


def test_an_unknown_source_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        list(split_documents([str(tmp_path / "nothing.txt")], 0.1, held_out=False))


# --- what is made once


def test_text_is_prepared_once_and_the_tokenizer_never_sees_what_is_held_out(folders, tmp_path, monkeypatch):
    said = []
    options = {"vocab_size": 280, "seq_len": 12, "held_out": 0.3, "max_sequences": None, "say": said.append}
    trained_on = []
    train_tokenizer = training_text.train_tokenizer

    def spy(texts, **options):
        trained_on.extend(texts)
        return train_tokenizer(trained_on, **options)

    monkeypatch.setattr(training_text, "train_tokenizer", spy)
    made = prepare_text(tmp_path / "text", folders, **options)
    assert sorted(trained_on) == sorted(texts(folders, 0.3, False)) and len(said) == 2
    table = token_bytes(made.tokenizer)
    for side, sequences in ((False, made.train), (True, made.held_out)):
        documents = texts(folders, 0.3, side)
        for row, length in zip(sequences.tokens, sequences.length, strict=True):
            assert row[0] == made.tokenizer.bos_token_id
            piece = b"".join(table[token] for token in row[1:length])
            assert any(piece in text.encode() for text in documents)

    monkeypatch.setattr(training_text, "train_tokenizer", lambda *_, **__: pytest.fail("it is there"))
    again = prepare_text(tmp_path / "text", folders, **options)
    assert len(said) == 2
    for a, b in zip((*made.train, *made.held_out), (*again.train, *again.held_out), strict=True):
        assert a.dtype == b.dtype and np.array_equal(a, b)
    assert again.tokenizer.get_vocab() == made.tokenizer.get_vocab()


def test_what_was_half_prepared_is_prepared_again(folders, tmp_path):
    options = {"vocab_size": 260, "seq_len": 12, "held_out": 0.3, "max_sequences": 9, "say": lambda line: None}
    made = prepare_text(tmp_path, folders, **options)
    assert len(made.train.tokens) == len(made.held_out.tokens) == 9
    (tmp_path / "held_out.npz").unlink()
    (tmp_path / "train.npz").write_bytes(b"half")
    again = prepare_text(tmp_path, folders, **options)
    assert np.array_equal(again.train.tokens, made.train.tokens)
    assert np.array_equal(again.held_out.tokens, made.held_out.tokens)
    assert not list(Path(tmp_path).glob("*.partial*"))


# --- batches


def numbered(n: int, seq_len: int = 4) -> Sequences:
    """Sequence `i` is full of `i`, and `i % seq_len + 1` long."""
    rows = np.arange(n, dtype=np.int32)
    return Sequences(np.repeat(rows[:, None], seq_len, 1), rows % seq_len + 1, rows, rows)


def rows_at(sequences: Sequences, step: int, **options: int) -> list[int]:
    tokens, length = batch_at(sequences, step, **options)
    assert tokens.shape == (options["batch_size"], sequences.tokens.shape[1])
    assert (tokens == tokens[:, :1]).all() and np.array_equal(length, tokens[:, 0] % tokens.shape[1] + 1)
    return tokens[:, 0].tolist()


@pytest.mark.parametrize(("n", "batch_size"), [(12, 4), (10, 4), (7, 3), (5, 5), (3, 8), (1, 4)])
def test_every_epoch_is_every_sequence_once(n, batch_size):
    """Also where a batch straddles two epochs, or several."""
    sequences, n_epochs = numbered(n), 6
    n_steps = -(-n * n_epochs // batch_size)
    stream = [row for step in range(n_steps) for row in rows_at(sequences, step, batch_size=batch_size, seed=0)]
    epochs = [stream[i * n : (i + 1) * n] for i in range(n_epochs)]
    assert all(sorted(epoch) == list(range(n)) for epoch in epochs)
    if n > 4:
        assert len({tuple(epoch) for epoch in epochs}) == n_epochs, "in an order of its own"


def test_a_batch_depends_on_seed_and_step_alone():
    sequences = numbered(50)
    late = rows_at(sequences, 321, batch_size=8, seed=1)
    assert late == rows_at(sequences, 321, batch_size=8, seed=1)
    assert late != rows_at(sequences, 321, batch_size=8, seed=2) and late != rows_at(
        sequences, 322, batch_size=8, seed=1
    )


def test_the_stream_is_one_whatever_the_batch_size():
    sequences = numbered(11)
    whole = [row for step in range(6) for row in rows_at(sequences, step, batch_size=6, seed=3)]
    parts = [row for step in range(12) for row in rows_at(sequences, step, batch_size=3, seed=3)]
    assert whole == parts


# --- bits per byte


@pytest.mark.parametrize("batch_size", [1, 4, 5, 16])
def test_bits_per_byte_is_its_definition(batch_size):
    """Rows of several lengths, tokens of 0 to 4 bytes, a last batch that is not full, one row without a prediction."""
    rng = np.random.default_rng(0)
    n, seq_len, vocab = 11, 7, 20
    tokens, length = rng.integers(0, vocab, (n, seq_len)).astype(np.int32), rng.integers(2, seq_len + 1, n)
    length[4] = 1
    n_bytes_of = rng.integers(0, 5, vocab)
    losses = rng.exponential(size=(n, seq_len - 1)).astype(np.float32)
    by_row = {tuple(row): values for row, values in zip(tokens.tolist(), losses, strict=True)}
    nats = sum(float(losses[i, t]) for i in range(n) for t in range(length[i] - 1))
    n_bytes = sum(int(n_bytes_of[tokens[i, t]]) for i in range(n) for t in range(1, length[i]))

    def losses_of(batch: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        tokens, length = batch
        assert tokens.shape == (batch_size, seq_len) and length.shape == (batch_size,)
        found = [by_row.get(tuple(row), np.full(seq_len - 1, 1e6)) for row in tokens.tolist()]
        return np.where(np.arange(1, seq_len) < length[:, None], found, 0).astype(np.float32)

    rows = np.arange(n, dtype=np.int32)
    found = bits_per_byte(
        losses_of, Sequences(tokens, length.astype(np.int32), rows, rows), n_bytes_of, batch_size=batch_size
    )
    assert found == pytest.approx(nats / math.log(2) / n_bytes, rel=1e-12)


def test_a_uniform_guess_over_256_bytes_costs_eight_bits():
    sequences = numbered(9, seq_len=6)
    found = bits_per_byte(
        lambda batch: np.where(np.arange(1, 6) < batch[1][:, None], math.log(256), 0),
        sequences,
        np.ones(9, int),
        batch_size=4,
    )
    assert found == pytest.approx(8, rel=1e-12)
