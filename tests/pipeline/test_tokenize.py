"""Long texts in pieces: the ids of the whole, for every kind of tokenizer."""

import random

import numpy as np
import pytest
from tokenizer_kinds import KINDS, TEXTS
from transformers import PreTrainedTokenizerFast

from nejax.pipeline.corpus import tokenize as module
from nejax.pipeline.corpus.tokenize import tokenize

RANDOM = random.Random(1)
LINES = [" ".join(RANDOM.choices([*TEXTS, "the", "cat", "  dog", "(x)", "été", "日本"], k=6)) for _ in range(150)]
LONG = {
    "lines": "".join(line + RANDOM.choice(["\n", "\n\n", " \n", "\n  ", " "]) for line in LINES),
    "numbers": " ".join(map(str, range(2000))),
    "no space": "日本語と한국어，中文文本。" * 500,
    "one letter": "a" * 4000,
    "spaces": "x" + " " * 3000 + "y" + "\n" * 1500 + "z",
}


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_change_nothing(kind: str, monkeypatch: pytest.MonkeyPatch):
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=KINDS[kind](), unk_token="<unk>")
    whole = tokenize(tokenizer, list(LONG.values()))
    monkeypatch.setattr(module, "_MARGIN", 200)
    for size in (500, 1117):
        monkeypatch.setattr(module, "CHARACTERS_AT_ONCE", size)
        for name, ids, expected in zip(LONG, tokenize(tokenizer, list(LONG.values())), whole, strict=True):
            np.testing.assert_array_equal(ids, expected, err_msg=f"{name}, {size}")


def test_a_long_text_is_read_in_pieces(monkeypatch: pytest.MonkeyPatch):
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=KINDS["SentencePiece"](), unk_token="<unk>")
    read: list[int] = []
    encode = module._encode
    monkeypatch.setattr(
        module, "_encode", lambda t, texts, **more: read.append(len(texts[0])) or encode(t, texts, **more)
    )
    monkeypatch.setattr(module, "CHARACTERS_AT_ONCE", 500)
    monkeypatch.setattr(module, "_MARGIN", 100)
    (ids,) = tokenize(tokenizer, [LONG["numbers"]])
    assert max(read) == 700 and len(read) == -(-len(LONG["numbers"]) // 500)
    assert tokenizer.decode(ids) == LONG["numbers"]
