"""Tokenizers in GGUF files: ids against an independent construction, text that comes back, and what is refused."""

import itertools
import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_gguf import write_gguf
from tokenizers import Tokenizer, models, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from nejax.errors import UserError
from nejax.models.formats.gguf_files import smollm2_file
from nejax.models.formats.gguf_header import read_gguf_header
from nejax.models.formats.gguf_tokenizer import load_gguf_tokenizer
from nejax.models.formats.tokens import saved_token_bytes, token_bytes, train_tokenizer

pytest.importorskip("gguf")

TEXTS = [
    "In 1987, 2,345 birds flew 67 km; they'd rested 8 times and we're told it's 100% true. THEY'RE back.",
    "def area(r):\n\treturn 3.14159 * r**2  # r >= 0\n\n\n    print(area(10))\r\n",
    "naïve café — déjà vu, 日本語と한국어, Привет мир, ½ Ⅷ ٣٤, 😀 \U0001f469\u200d\U0001f52c done",
    "  leading, trailing  \n \n\t\n   x   ",
    "a < b && c > d; $x+=1 | y^z ~w == `q` <=> {k: v}",
    "the the them 2024 2024 20242024 year years yearly",
]
ALPHABET = "aAetsTh 's'llré日ğ😀12²½٣.,!?-_+<=$^~|(){}`\n\r\t  "
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6


def stand_ins() -> dict[int, str]:
    """GPT-2's character for each byte: itself if it can be seen, else the next from 256 on."""
    seen = [byte for byte in range(256) if chr(byte).isprintable() and byte not in (0x20, 0xA0, 0xAD)]
    others = iter(range(256, 512))
    return {byte: chr(byte) if byte in seen else chr(next(others)) for byte in range(256)}


GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"'(?i:s|t|re|ve|m|ll|d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def cut(pieces: Sequence[str], pattern: str) -> list[str]:
    """Each piece cut around the matches of a pattern."""
    found = []
    for piece in pieces:
        place = 0
        for match in regex.finditer(pattern, piece):
            found += [piece[place : match.start()], match[0]]
            place = match.end()
        found.append(piece[place:])
    return [piece for piece in found if piece]


def words(text: str, rule: str) -> list[str]:
    """What llama.cpp and the models' own tokenizers do by the rule of this name."""
    match rule:
        case "gpt-2":
            return regex.findall(GPT2, text)
        case "smollm":
            return [word for part in cut([text], r"\p{N}") for word in regex.findall(GPT2, part)]
        case "llama-bpe":
            return regex.findall(LLAMA3, text)
        case "default":
            pieces = cut([text], r"[\p{P}$+<=>^~|]+")
            return cut(cut(cut(pieces, GPT2.removesuffix(r"|\s+")), r"\p{N}+"), "[0-9]{3}")
    raise ValueError(rule)


def merge(parts: list[str], best: Callable[[str, str], float | None]) -> list[str]:
    """Join the neighbours with the lowest rank, the first of equals, until none has one."""
    while True:
        ranks = [best(*pair) for pair in itertools.pairwise(parts)]
        found = [(rank, i) for i, rank in enumerate(ranks) if rank is not None]
        if not found:
            return parts
        _, i = min(found)
        parts = [*parts[:i], parts[i] + parts[i + 1], *parts[i + 2 :]]


class ByteLevel:
    """Byte-level BPE in plain Python."""

    def __init__(self, fields: dict[str, Any]):
        self.ids = {piece: token for token, piece in enumerate(fields["tokenizer.ggml.tokens"])}
        self.ranks = {tuple(merge.split(" ")): rank for rank, merge in enumerate(fields["tokenizer.ggml.merges"])}
        self.rule, self.stand_ins = fields["tokenizer.ggml.pre"], stand_ins()

    def encode(self, text: str) -> list[int]:
        tokens = []
        for word in words(text, self.rule):
            spelled = "".join(self.stand_ins[byte] for byte in word.encode())
            if self.rule == "llama-bpe" and spelled in self.ids:
                tokens.append(self.ids[spelled])
            else:
                tokens += [self.ids[part] for part in merge(list(spelled), lambda *pair: self.ranks.get(pair))]
        return tokens


def byte_level_fields(rule: str) -> dict[str, Any]:
    """A file's fields with a vocabulary trained by GPT-2's rule, which has numbers of several digits."""
    trained = train_tokenizer(TEXTS * 3, vocab_size=420, n_positions=32).backend_tokenizer
    vocabulary = trained.get_vocab()
    pieces = ["<|begin|>", "<|end|>", *sorted(vocabulary, key=lambda piece: vocabulary[piece])[1:], "<tool>", "Ġyearly"]
    merges = [" ".join(pair) for pair in json_of(trained)["model"]["merges"]]
    # "Ġyearly" cannot be merged from its parts: only a rule that keeps known words finds it.
    kinds = [CONTROL, CONTROL, *[NORMAL] * (len(pieces) - 4), USER_DEFINED, NORMAL]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": rule,
        "tokenizer.ggml.tokens": pieces,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
    }


def json_of(tokenizer: Tokenizer) -> dict[str, Any]:
    return json.loads(tokenizer.to_str())


RULES = ["gpt-2", "smollm", "llama-bpe", "default"]


@pytest.fixture(scope="module", params=RULES)
def byte_level(request, tmp_path_factory) -> tuple[ByteLevel, PreTrainedTokenizerFast]:
    fields = byte_level_fields(request.param)
    file = write_gguf(tmp_path_factory.mktemp("tokenizer") / "model.gguf", fields)
    return ByteLevel(fields), load_gguf_tokenizer(file)


def ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids


@lru_cache
def table_of(tokenizer: PreTrainedTokenizerFast) -> list[bytes]:
    return token_bytes(tokenizer)


@pytest.mark.parametrize("text", TEXTS)
def test_byte_level_ids_are_those_of_plain_python(byte_level, text: str):
    expected, tokenizer = byte_level
    assert ids(tokenizer, text) == expected.encode(text)
    assert tokenizer.decode(ids(tokenizer, text)) == text


@settings(max_examples=300, deadline=None)
@given(text=st.text(ALPHABET, max_size=40))
def test_byte_level_ids_of_any_text(byte_level, text: str):
    expected, tokenizer = byte_level
    assert ids(tokenizer, text) == expected.encode(text)
    assert tokenizer.decode(ids(tokenizer, text)) == text
    assert b"".join(table_of(tokenizer)[token] for token in ids(tokenizer, text)) == text.encode()


def test_the_rules_differ_where_they_should(tmp_path: Path):
    """Digits one by one, in threes, or all together; a word that is a token whole."""
    found = {}
    for rule in RULES:
        tokenizer = load_gguf_tokenizer(write_gguf(tmp_path / f"{rule}.gguf", byte_level_fields(rule)))
        found[rule] = [tokenizer.decode([token]) for token in ids(tokenizer, "20242024 yearly")]
    assert found["smollm"][:8] == list("20242024")
    assert found["gpt-2"][:2] == ["2024", "2024"]
    assert len(found["llama-bpe"]) < len(found["smollm"]) and found["llama-bpe"][-1] == " yearly"
    assert found["gpt-2"][-1] != " yearly"


def test_ids_names_and_special_tokens_are_the_files(byte_level):
    expected, tokenizer = byte_level
    assert tokenizer.get_vocab() == expected.ids
    assert len(tokenizer) == len(expected.ids)
    assert sorted(tokenizer.all_special_ids) == [0, 1]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 1, None)
    tool = expected.ids["<tool>"]
    text = "a<tool>b<|end|>"
    assert tool in ids(tokenizer, text) and 1 not in ids(tokenizer, text)
    assert tokenizer(text, add_special_tokens=False).input_ids[-1] == 1
    assert tokenizer.decode(ids(tokenizer, text)) == text


def test_bos_is_added_where_the_model_expects_it(tmp_path: Path):
    def first(rule: str, **more: Any) -> int:
        fields = byte_level_fields(rule) | {f"tokenizer.ggml.{key}": value for key, value in more.items()}
        return load_gguf_tokenizer(write_gguf(tmp_path / "model.gguf", fields))("the").input_ids[0]

    assert first("llama-bpe") == first("smollm", add_bos_token=True) == 0
    assert first("smollm") == first("llama-bpe", add_bos_token=False) != 0


def test_saved_and_loaded_it_is_the_same(byte_level, tmp_path: Path):
    _, tokenizer = byte_level
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.get_vocab() == tokenizer.get_vocab()
    assert sorted(again.all_special_ids) == sorted(tokenizer.all_special_ids)
    for text in TEXTS:
        assert ids(again, text) == ids(tokenizer, text) and again(text).input_ids == tokenizer(text).input_ids
    assert saved_token_bytes(tmp_path) == token_bytes(tokenizer)


def sentencepiece_fields() -> dict[str, Any]:
    """A file's fields with a vocabulary of SentencePiece's kind: bytes, then tokens by falling score."""
    trained = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(vocab_size=200, show_progress=False)
    latin = [text for text in TEXTS if text.isascii()]
    trained.train_from_iterator([("▁" + text.replace(" ", "▁")).replace("\n", "") for text in latin] * 3, trainer)
    vocabulary = trained.get_vocab()
    merged = [piece for piece in sorted(vocabulary, key=lambda piece: vocabulary[piece]) if len(piece) > 1]
    letters = sorted(piece for piece in vocabulary if len(piece) == 1)
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    pieces = ["<unk>", "<s>", "</s>", *bytes_, *merged, *letters, "<tool>"]
    kinds = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * (len(merged) + len(letters)), USER_DEFINED]
    scores = [0.0] * 259 + [-float(rank) for rank in range(len(merged) + len(letters))] + [0.0]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": pieces,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }


class SentencePiece:
    """SentencePiece's BPE with byte fallback in plain Python, as llama.cpp has it: the highest score first."""

    def __init__(self, fields: dict[str, Any], prefix: str = "▁"):
        self.ids = {piece: token for token, piece in enumerate(fields["tokenizer.ggml.tokens"])}
        self.scores, self.prefix = fields["tokenizer.ggml.scores"], prefix

    def rank(self, left: str, right: str) -> float | None:
        token = self.ids.get(left + right)
        return None if token is None else -self.scores[token]

    def encode(self, text: str) -> list[int]:
        parts = merge(list(self.prefix + text.replace(" ", "▁")), self.rank) if text else []
        tokens = []
        for part in parts:
            fallback = [self.ids[f"<0x{byte:02X}>"] for byte in part.encode()]
            tokens += [self.ids[part]] if part in self.ids else fallback
        return tokens


@pytest.fixture(scope="module")
def sentencepiece(tmp_path_factory) -> tuple[SentencePiece, PreTrainedTokenizerFast]:
    fields = sentencepiece_fields()
    file = write_gguf(tmp_path_factory.mktemp("tokenizer") / "model.gguf", fields)
    return SentencePiece(fields), load_gguf_tokenizer(file)


@settings(max_examples=300, deadline=None)
@given(text=st.one_of(st.sampled_from(TEXTS), st.text(ALPHABET, max_size=40)))
def test_sentencepiece_ids_and_bytes(sentencepiece, text: str):
    expected, tokenizer = sentencepiece
    tokens = ids(tokenizer, text)
    assert tokens == expected.encode(text)
    assert tokenizer.decode(tokens) == text
    assert b"".join(table_of(tokenizer)[token] for token in tokens) == (
        b" " + text.encode() if text else b""
    )  # the space that the decoder takes away


def test_special_tokens_of_sentencepiece(sentencepiece):
    expected, tokenizer = sentencepiece
    assert tokenizer.get_vocab() == expected.ids
    assert sorted(tokenizer.all_special_ids) == [0, 1, 2]
    assert (tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert tokenizer("the").input_ids[0] == 1
    assert 1 not in ids(tokenizer, "<s>the") and expected.ids["<tool>"] in ids(tokenizer, "a<tool>b")


def test_without_a_space_before_text(tmp_path: Path):
    fields = sentencepiece_fields() | {"tokenizer.ggml.add_space_prefix": False, "tokenizer.ggml.add_bos_token": False}
    tokenizer = load_gguf_tokenizer(write_gguf(tmp_path / "model.gguf", fields))
    for text in TEXTS:
        tokens = tokenizer(text).input_ids
        assert tokens == SentencePiece(fields, prefix="").encode(text)
        assert tokenizer.decode(tokens) == text
        assert b"".join(table_of(tokenizer)[token] for token in tokens) == text.encode()


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"tokenizer.ggml.pre": "qwen2"}, "'qwen2'"),
        ({"tokenizer.ggml.pre": None}, "None"),
        ({"tokenizer.ggml.model": "bert"}, "'bert'"),
        ({"tokenizer.ggml.model": None}, "None"),
        ({"tokenizer.ggml.tokens": None}, "there is no tokenizer"),
        ({"tokenizer.ggml.tokens": [1, 2]}, "there is no tokenizer"),
        ({"tokenizer.ggml.token_type": [1, 3]}, "token_type"),
        ({"tokenizer.ggml.merges": None}, "merges"),
        ({"tokenizer.ggml.merges": ["q zzz"]}, "`zzz`"),
        ({"tokenizer.ggml.merges": ["t h e"]}, "cannot be read"),
        ({"tokenizer.ggml.bos_token_id": 99999}, "bos_token_id is 99999"),
        ({"tokenizer.ggml.tokens": ["a", "b", "a"], "tokenizer.ggml.token_type": None}, "'a' is there twice"),
    ],
)
def test_what_is_not_known_or_does_not_fit_is_refused(tmp_path: Path, fields: dict[str, Any], part: str):
    file = write_gguf(tmp_path / "model.gguf", byte_level_fields("gpt-2") | fields)
    with pytest.raises(UserError) as caught:
        load_gguf_tokenizer(file)
    assert part in str(caught.value) and str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_sentencepiece_without_scores_is_refused(tmp_path: Path):
    fields = sentencepiece_fields() | {"tokenizer.ggml.scores": None}
    with pytest.raises(UserError, match="scores"):
        load_gguf_tokenizer(write_gguf(tmp_path / "model.gguf", fields))


@pytest.fixture(scope="module")
def smollm2() -> tuple[ByteLevel, PreTrainedTokenizerFast]:
    try:
        file = smollm2_file()
    except UserError as error:
        pytest.skip(str(error))
    return ByteLevel(read_gguf_header(file).fields), load_gguf_tokenizer(file)


@pytest.mark.slow
@pytest.mark.parametrize("text", TEXTS)
def test_smollm2_gives_text_back(smollm2, text: str):
    expected, tokenizer = smollm2
    tokens = ids(tokenizer, text)
    assert tokens == expected.encode(text)
    assert tokenizer.decode(tokens) == text
    assert b"".join(table_of(tokenizer)[token] for token in tokens) == text.encode()


@pytest.mark.slow
def test_smollm2_splits_digits_and_begins_with_its_own_token(smollm2):
    expected, tokenizer = smollm2
    assert [tokenizer.decode([token]) for token in ids(tokenizer, "20240131")] == list("20240131")
    assert tokenizer.bos_token == "<|im_start|>" and tokenizer.bos_token_id == 1
    assert (tokenizer.eos_token_id, tokenizer.unk_token_id, tokenizer.pad_token_id) == (2, 0, 2)
    assert sorted(tokenizer.all_special_ids) == list(range(17))
    assert tokenizer.get_vocab() == expected.ids and tokenizer.model_max_length == 8192
    assert tokenizer("the").input_ids == ids(tokenizer, "the")  # the file says that BOS is not added


@pytest.mark.slow
def test_transformers_reads_the_same_smollm2_but_for_spaces_before_numbers(smollm2):
    """It does not know the rule `smollm` and uses GPT-2's, by which the last space goes to the number and is cut off
    there: no token of SmolLM2 holds a digit and anything else."""
    _, tokenizer = smollm2
    file = smollm2_file()
    theirs = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    for text in TEXTS:
        letters = regex.sub(r"\p{N}", "", text)
        assert theirs(letters, add_special_tokens=False).input_ids == ids(tokenizer, letters)
    assert theirs.get_vocab() == tokenizer.get_vocab()

    def pieces(found: PreTrainedTokenizerFast, text: str) -> list[str]:
        return [found.decode([token]) for token in ids(found, text)]

    assert pieces(theirs, "a 12") == pieces(tokenizer, "a 12") == ["a", " ", "1", "2"]
    assert pieces(tokenizer, "a  12") == ["a", "  ", "1", "2"]
    assert pieces(theirs, "a  12") == ["a", " ", " ", "1", "2"]
