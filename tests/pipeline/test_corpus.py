"""Documents to sequences. Oracle: the tokenizer itself, called on one whole text."""

import codecs
import itertools
import logging
import random

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from nejax.errors import UserError
from nejax.models.formats.tokens import token_bytes
from nejax.pipeline.corpus import windows as corpus_module
from nejax.pipeline.corpus.documents import Corpus, Document
from nejax.pipeline.corpus.windows import Sequences, make_sequences

WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat;",
    "les",
    "élèves",
    "\u00a0",
    "日本語",
    "🐈",
    "0x1F\n\n\tdef",
    "f(x):",
]


def random_documents(n: int, seed: int = 0, max_words: int = 40) -> list[Document]:
    rng = random.Random(seed)
    texts = (" ".join(rng.choices(WORDS, k=rng.randint(1, max_words))) for _ in range(n))
    return [Document(f"document {number}", text) for number, text in enumerate(texts)]


def assert_same(a: Sequences, b: Sequences) -> None:
    for name, x, y in zip(Sequences._fields, a, b, strict=True):
        np.testing.assert_array_equal(x, y, err_msg=name)


def text_of_tokens(tokenizer, n_tokens: int) -> str:
    """A text that is `n_tokens` tokens long: bytes that no merge of the tokenizer joins."""
    text = "~" * n_tokens
    assert len(tokenizer(text).input_ids) == n_tokens
    return text


def windows_of(tokens: list[int], table: list[bytes], size: int, least: int = 1) -> dict[int, list[int]]:
    """By offset: each as long as it can be and end at a character's end; as long as it can be where none ends."""
    windows, start = {}, 0
    while start < len(tokens):
        longest = min(size, len(tokens) - start)
        lengths = range(longest, min(least, longest) - 1, -1)
        is_whole = [ends_whole(b"".join(table[token] for token in tokens[start : start + n])) for n in lengths[:4]]
        n = lengths[is_whole.index(True)] if any(is_whole) else lengths[0]
        windows[start], start = tokens[start : start + n], start + n
    return windows


def ends_whole(text: bytes) -> bool:
    """Whether no character is cut at its end; it may begin within one."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    decoder.decode(text)
    return not decoder.getstate()[0]


def test_no_character_is_cut_where_a_token_can_be_spared(tokenizer):
    """Of characters that are several tokens each, whole ones; of one that has no room, what there is room for."""
    text = "🦩" * 40 + "山" * 40
    n_tokens = [len(tokenizer(character).input_ids) for character in "🦩山"]
    assert min(n_tokens) > 1
    for seq_len in range(6, 20):
        result = make_sequences([Document("a", text)], tokenizer, seq_len=seq_len, min_tokens=1)
        for row, n in zip(*result.sequences[:2], strict=True):
            assert "\ufffd" not in tokenizer.decode(row[1:n])
    result = make_sequences([Document("a", text)], tokenizer, seq_len=3, min_tokens=2)
    assert set(result.sequences.length.tolist()) == {3}


def test_text_of_whole_tokens_is_cut_at_every_nth(tokenizer):
    result = make_sequences([Document("a", "the river and the sea " * 30)], tokenizer, seq_len=10, min_tokens=1)
    assert all(offset % 9 == 0 for offset in result.sequences.offset.tolist())


@pytest.mark.parametrize("seq_len", [3, 4, 17, 1000])
def test_windows_join_to_the_documents_tokens(tokenizer, seq_len):
    documents = random_documents(30)
    result = make_sequences(documents, tokenizer, seq_len=seq_len, min_tokens=1)
    tokens, length, document, offset = result.sequences
    found = {name: {} for name in result.documents}
    for row, n, index, start in zip(tokens, length, document, offset, strict=True):
        found[result.documents[index]][int(start)] = row[1:n].tolist()
    n_windows, table = 0, token_bytes(tokenizer)
    for name, text in documents:
        whole = tokenizer(text).input_ids
        expected = windows_of(whole, table, seq_len - 1)
        for start, window in found.get(name, {}).items():
            assert window == expected[start]
        n_windows += len(expected)
    assert len(tokens) + result.counts["duplicate_sequences"] == n_windows
    assert result.counts["short_windows"] == 0


def test_nothing_is_lost_from_a_document_without_repeats(tokenizer):
    (name, text), *_ = random_documents(1, max_words=2000, seed=4)
    result = make_sequences([Document(name, text)], tokenizer, seq_len=32, min_tokens=1)
    joined = [token for row, n in zip(*result.sequences[:2], strict=True) for token in row[1:n]]
    assert result.counts["duplicate_sequences"] == 0
    assert tokenizer.decode(joined) == text
    assert result.sequences.offset.tolist() == list(windows_of(joined, token_bytes(tokenizer), 31))
    assert result.counts["tokens"] == len(joined)


def test_every_sequence_begins_with_bos_and_is_padded_with_it(tokenizer):
    result = make_sequences(random_documents(20), tokenizer, seq_len=16)
    tokens, length, document, offset = result.sequences
    assert tokens.shape == (result.counts["sequences"], 16)
    assert {array.dtype for array in result.sequences} == {np.dtype(np.int32)}
    assert {array.shape for array in (length, document, offset)} == {(len(tokens),)}
    assert (tokens[:, 0] == tokenizer.bos_token_id).all()
    padding = np.arange(16) >= length[:, None]
    assert padding.any()
    assert (tokens[padding] == tokenizer.bos_token_id).all()
    assert (tokens[:, 1:][~padding[:, 1:]] != tokenizer.bos_token_id).all()
    assert result.counts["tokens"] == (length - 1).sum()


@pytest.mark.parametrize(
    ("n_tokens", "lengths", "n_short"),
    [(2, [3], 0), (6, [7], 0), (7, [8], 0), (8, [8], 1), (9, [8, 3], 0), (14, [8], 0), (15, [8], 1)],
)
def test_lengths_around_a_window(tokenizer, n_tokens, lengths, n_short):
    """Of 8 places 7 are text; a rest of one token is dropped, a second whole window of `~` is a duplicate."""
    result = make_sequences([Document("a", text_of_tokens(tokenizer, n_tokens))], tokenizer, seq_len=8)
    assert result.sequences.length.tolist() == lengths
    assert result.counts["short_windows"] == n_short


def test_exact_duplicates_are_dropped_and_counted(tokenizer):
    documents = random_documents(10, max_words=100)
    doubled = [
        *documents,
        Document("copy", documents[3].text),
        Document("longer copy", documents[4].text + "~~"),
    ]
    once = make_sequences(documents, tokenizer, seq_len=16)
    twice = make_sequences(doubled, tokenizer, seq_len=16)
    n_kept = len(once.sequences.tokens)
    assert_same(once.sequences, Sequences(*(array[:n_kept] for array in twice.sequences)))
    assert "copy" not in twice.documents
    assert twice.documents[-1] == "longer copy"
    copied, longer = (
        list(windows_of(tokenizer(documents[i].text).input_ids, token_bytes(tokenizer), 15, least=2).values())
        for i in (3, 4)
    )
    n_windows = len(copied) + sum(len(window) == 15 or i < len(longer) - 1 for i, window in enumerate(longer))
    assert twice.counts["duplicate_sequences"] == once.counts["duplicate_sequences"] + n_windows
    assert len(np.unique(twice.sequences.tokens, axis=0)) == len(twice.sequences.tokens)


def test_a_short_window_is_no_duplicate_of_a_whole_one_that_begins_alike(tokenizer):
    texts = [text_of_tokens(tokenizer, n) for n in (7, 5, 3)]
    result = make_sequences([Document(str(len(text)), text) for text in texts], tokenizer, seq_len=8)
    assert result.sequences.length.tolist() == [8, 6, 4]


@pytest.mark.parametrize("batch_size", [1, 3, 1000])
@pytest.mark.parametrize("max_sequences", [None, 25])
def test_batch_size_does_not_matter(tokenizer, batch_size, max_sequences):
    documents = random_documents(50)
    result = make_sequences(documents, tokenizer, seq_len=16, max_sequences=max_sequences)
    other = make_sequences(documents, tokenizer, seq_len=16, max_sequences=max_sequences, batch_size=batch_size)
    assert_same(result.sequences, other.sequences)
    assert (result.documents, result.counts) == (other.documents, other.counts)


def test_more_sequences_only_append(tokenizer):
    documents = random_documents(50)
    few = make_sequences(documents, tokenizer, seq_len=16, max_sequences=20)
    many = make_sequences(documents, tokenizer, seq_len=16)
    assert len(few.sequences.tokens) == few.counts["sequences"] == 20 < len(many.sequences.tokens)
    assert_same(few.sequences, Sequences(*(array[:20] for array in many.sequences)))
    assert few.documents == many.documents[: len(few.documents)]
    assert few.documents[-1] == documents[few.counts["documents_read"] - 1].name


def test_reading_stops_with_the_last_sequence(tokenizer):
    def endless():
        for number in itertools.count():
            assert number < 12, "read further than a batch beyond what was needed"
            yield Document(str(number), f"{number} is a number that the cat sat on")

    result = make_sequences(endless(), tokenizer, seq_len=64, max_sequences=9, batch_size=4)
    assert result.documents == [str(number) for number in range(9)]
    assert result.counts["documents_read"] == 9


def test_long_documents_are_batched_apart(tokenizer, monkeypatch):
    monkeypatch.setattr(corpus_module, "CHARACTERS_AT_ONCE", 100)
    read = []

    def documents():
        for number in range(10):
            read.append(number)
            yield Document(str(number), f"{number} " + "the cat sat " * 20)

    make_sequences(documents(), tokenizer, seq_len=400, max_sequences=2)
    assert read == [0, 1]


def test_text_that_spells_a_special_token_stays_text(tokenizer):
    text = "the cat <|endoftext|> sat"
    assert tokenizer.bos_token_id in tokenizer(text).input_ids  # what transformers does unless told otherwise
    tokens, length, *_ = make_sequences([Document("a", text)], tokenizer, seq_len=64).sequences
    row = tokens[0, 1 : length[0]]
    assert tokenizer.bos_token_id not in row
    assert tokenizer.decode(row) == text
    assert tokenizer.bos_token_id in tokenizer(text).input_ids  # and the tokenizer is left as it was


def test_no_warning_about_documents_longer_than_the_context(tokenizer, caplog, monkeypatch):
    text = text_of_tokens(tokenizer, 100)  # which warns, the first time
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    caplog.set_level(logging.WARNING, "transformers")  # other packages leave it at ERROR
    caplog.clear()
    fresh = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, bos_token="<|endoftext|>", model_max_length=8
    )
    make_sequences([Document("a", text)], fresh, seq_len=16)
    assert not caplog.records
    fresh("~" * 100)
    assert "longer than the specified maximum sequence length" in caplog.text


def test_progress_counts_sequences(tokenizer):
    steps = []
    result = make_sequences(random_documents(20), tokenizer, seq_len=16, progress=steps.append)
    assert sum(steps) == result.counts["sequences"]


def test_what_a_corpus_left_out_is_told(tokenizer):
    pairs = [("a", "the cat sat"), ("b", "\0"), ("c", " "), ("d", "the dog sat")]
    result = make_sequences(Corpus("pairs", lambda skipped: iter(pairs)), tokenizer, seq_len=16)
    assert result.documents == ["a", "d"]
    assert result.skipped == {"undecodable": 1, "empty": 1}


def test_eos_takes_the_place_of_a_missing_bos(tokenizer):
    documents = random_documents(3)
    backend = tokenizer.backend_tokenizer
    only_eos = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="~")
    assert only_eos.bos_token_id is None
    tokens = make_sequences(documents, only_eos, seq_len=16).sequences.tokens
    assert (tokens[:, 0] == only_eos.eos_token_id).all()
    bos_and_eos = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="!", eos_token="~")
    tokens = make_sequences(documents, bos_and_eos, seq_len=16).sequences.tokens
    assert (tokens[:, 0] == bos_and_eos.bos_token_id).all()
    with pytest.raises(UserError, match="neither a BOS nor an EOS token"):
        make_sequences(documents, PreTrainedTokenizerFast(tokenizer_object=backend), seq_len=16)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seq_len": 2}, "seq_len 2 and min_tokens 2"),
        ({"seq_len": 8, "min_tokens": 0}, "seq_len 8 and min_tokens 0"),
        ({"seq_len": 8, "max_sequences": 0}, "max_sequences 0"),
        ({"seq_len": 8, "batch_size": 0}, "batch_size 0"),
    ],
)
def test_settings_out_of_range_are_refused_before_reading(tokenizer, settings, message):
    def unread():
        raise AssertionError("read")
        yield

    with pytest.raises(UserError, match=message):
        make_sequences(unread(), tokenizer, **settings)


def test_documents_too_short_for_a_sequence_are_refused(tokenizer):
    documents = [Document("a", "~"), Document("b", "!")]
    with pytest.raises(UserError, match=r"fewer than 2 tokens \(documents read: 2\)"):
        make_sequences(documents, tokenizer, seq_len=8)
    with pytest.raises(UserError, match="documents read: 0"):
        make_sequences([], tokenizer, seq_len=8)
