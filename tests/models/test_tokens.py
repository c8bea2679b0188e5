"""Tokenizers: training, the bytes of each token, and text that is cut into tokens and put together again."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from nejax.errors import UserError
from nejax.models.formats.tokens import END_OF_TEXT, decode_pieces, saved_token_bytes, token_bytes, train_tokenizer

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


def llama2_decoder(*, strips: bool = True) -> Any:
    strip = [decoders.Strip(" ", 1, 0)] if strips else []
    return decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip])


def sentencepiece(decoder: Any) -> Tokenizer:
    """A tokenizer of Llama 2's kind: some letters and merges, and a token for every byte."""
    pieces = ["<unk>", "<s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "Ġ", "é", "▁a", "▁▁", "ab"]
    merges = [("▁", "a"), ("▁", "▁"), ("a", "b")]
    model = models.BPE({piece: token for token, piece in enumerate(pieces)}, merges, unk_token="<unk>")
    model.fuse_unk, model.byte_fallback = True, True
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoder
    tokenizer.add_special_tokens(["<s>"])
    return tokenizer


def test_sentencepiece_tokens_have_the_bytes_they_decode_to():
    """Behind another token, where the decoder takes no space away."""
    tokenizer = sentencepiece(llama2_decoder())
    table, a = token_bytes(tokenizer), tokenizer.token_to_id("a")
    assert table[2:258] == [bytes([byte]) for byte in range(256)]
    for token, stands_for in enumerate(table):
        decoded = tokenizer.decode([a, token], skip_special_tokens=False)
        assert "a" + stands_for.decode(errors="replace") == decoded, tokenizer.id_to_token(token)
    assert table[tokenizer.token_to_id("▁▁")] == b"  " and table[tokenizer.token_to_id("Ġ")] == "Ġ".encode()
    assert table[tokenizer.token_to_id("<s>")] == b"<s>"


@given(text=st.text(st.sampled_from("ab é\n😀Ġ日"), min_size=1, max_size=20))
@settings(max_examples=200, deadline=None)
@pytest.mark.parametrize("strips", [True, False])
def test_sentencepiece_bytes_and_pieces_make_any_text(text: str, strips: bool):
    """With the space that stands before a text, whether its decoder takes it away or not."""
    tokenizer = sentencepiece(llama2_decoder(strips=strips))
    tokens, table = tokenizer.encode(text).ids, token_bytes(tokenizer)
    assert "".join(decode_pieces(tokens, table)) == " " + text
    assert tokenizer.decode(tokens) == (text if strips else " " + text)


def test_the_decoder_says_what_the_bytes_are(tmp_path: Path):
    """The same pieces, as bytes of GPT-2's kind and with SentencePiece's older decoder."""
    tokenizer = sentencepiece(decoders.Metaspace())
    table = token_bytes(tokenizer)
    assert table[tokenizer.token_to_id("▁a")] == b" a"
    assert table[tokenizer.token_to_id("<0x0A>")] == b"<0x0A>"
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel()])
    table = token_bytes(tokenizer)
    assert table[tokenizer.token_to_id("▁a")] == "▁a".encode()
    assert table[tokenizer.token_to_id("Ġ")] == b" " and table[tokenizer.token_to_id("é")] == b"\xe9"
    tokenizer.decoder = llama2_decoder()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert saved_token_bytes(tmp_path) == token_bytes(tokenizer)


@pytest.mark.parametrize(
    ("decoder", "name"), [(decoders.CTC(), "CTC"), (decoders.BPEDecoder(), "BPEDecoder"), (None, "None")]
)
def test_other_tokenizers_are_refused(decoder: Any, name: str):
    with pytest.raises(
        UserError, match=f"of kind {name}; expected a byte-level, a SentencePiece or a WordPiece tokenizer"
    ):
        token_bytes(sentencepiece(decoder))
