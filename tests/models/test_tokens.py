"""Tokenizers: training, the bytes of each token, and text that is cut into tokens and put together again."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from nejax.models.tokens import END_OF_TEXT, decode_pieces, token_bytes, train_tokenizer

TEXTS = ["the quick brown fox jumps over the lazy dog, again and again", "naïve café — déjà vu", "a 😀 b 😀 c 日本語"]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS * 5, vocab_size=300, n_positions=32)


def test_a_trained_tokenizer(tokenizer: PreTrainedTokenizerFast):
    assert len(tokenizer) == 300
    assert tokenizer.model_max_length == 32
    special = {tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token}
    assert special == {END_OF_TEXT}
    assert tokenizer.bos_token_id == tokenizer.eos_token_id == tokenizer.pad_token_id == 0
    assert len(tokenizer("the quick brown fox").input_ids) < len("the quick brown fox") / 2
    assert tokenizer("the").input_ids != tokenizer(" the").input_ids


def test_training_again_gives_the_same_tokenizer(tokenizer: PreTrainedTokenizerFast):
    again = train_tokenizer(iter(TEXTS * 5), vocab_size=300, n_positions=32)
    assert again.get_vocab() == tokenizer.get_vocab()
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_without_texts_there_are_bytes(tokenizer: PreTrainedTokenizerFast):
    bare = train_tokenizer([], vocab_size=300, n_positions=32)
    table = token_bytes(bare)
    assert table[0] == END_OF_TEXT.encode()
    assert sorted(table[1:]) == [bytes([byte]) for byte in range(256)]


def test_every_token_has_the_bytes_it_decodes_to(tokenizer: PreTrainedTokenizerFast):
    table = token_bytes(tokenizer)
    assert len(table) == 300
    for token_id, stands_for in enumerate(table):
        assert stands_for.decode(errors="replace") == tokenizer.decode([token_id]), token_id


@given(text=st.text())
@settings(max_examples=200, deadline=None)
def test_bytes_and_pieces_make_any_text(tokenizer: PreTrainedTokenizerFast, text: str):
    tokens, table = tokenizer(text).input_ids, token_bytes(tokenizer)
    if END_OF_TEXT not in text:
        assert 0 not in tokens
    assert b"".join(table[token] for token in tokens) == text.encode()
    pieces = decode_pieces(tokens, table)
    assert len(pieces) == len(tokens)
    assert "".join(pieces) == text


def test_a_character_goes_to_the_token_that_completes_it():
    bare = train_tokenizer([], vocab_size=257, n_positions=32)
    tokens = [bare.bos_token_id, *bare("aé😀b").input_ids]
    assert decode_pieces(tokens, token_bytes(bare)) == [END_OF_TEXT, "a", "", "é", "", "", "", "😀", "b"]


@pytest.mark.parametrize("text", ["é😀日本", "x😀", "\U0001f469\u200d\U0001f52c done"])
def test_cut_anywhere_the_pieces_make_what_the_tokenizer_decodes(text: str):
    bare = train_tokenizer([], vocab_size=257, n_positions=32)
    tokens, table = bare(text).input_ids, token_bytes(bare)
    for start in range(len(tokens)):
        for stop in range(start, len(tokens) + 1):
            assert "".join(decode_pieces(tokens[start:stop], table)) == bare.decode(tokens[start:stop])


def test_no_tokens_make_no_pieces(tokenizer: PreTrainedTokenizerFast):
    assert decode_pieces([], token_bytes(tokenizer)) == []
