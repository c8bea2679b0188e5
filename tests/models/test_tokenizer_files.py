"""Tokenizers in directories: the ids of `tokenizer.json` alone, whatever class the configuration names, of every kind.

Run with several versions of transformers: what these rebuild of a file differs, what is read here must not.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from tokenizer_kinds import KINDS, TEXTS, byte_level, word_piece
from tokenizers import Tokenizer

from nejax.errors import UserError
from nejax.models.formats.tokenizer_files import load_tokenizer
from nejax.models.formats.tokens import decode_pieces, saved_token_bytes, token_bytes

CLASSES = [
    "GPT2Tokenizer",
    "GPT2TokenizerFast",
    "LlamaTokenizer",
    "LlamaTokenizerFast",
    "PreTrainedTokenizerFast",
    None,
]


@pytest.fixture(scope="module", params=KINDS)
def saved(request, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    KINDS[request.param]().save(str(folder / "tokenizer.json"))
    return folder


def write(folder: Path, file: str = "tokenizer_config.json", **settings: Any) -> None:
    (folder / file).write_text(json.dumps(settings))


def named(tokenizer_class: str | None) -> dict[str, Any]:
    roles = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return roles | ({"tokenizer_class": tokenizer_class} if tokenizer_class else {})


def ids(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


@pytest.mark.parametrize("model_type", ["gpt2", "llama"])
def test_ids_are_the_files_whatever_class_is_named(saved: Path, model_type: str):
    alone = Tokenizer.from_file(str(saved / "tokenizer.json"))
    write(saved, "config.json", model_type=model_type)
    for tokenizer_class in CLASSES:
        write(saved, **named(tokenizer_class), add_prefix_space=True, legacy=False)
        tokenizer = load_tokenizer(saved)
        assert len(tokenizer) == alone.get_vocab_size()
        assert tokenizer.get_vocab() == alone.get_vocab(), tokenizer_class
        assert sorted(tokenizer.all_special_ids) == [0, 1, 2]
        for text in TEXTS:
            expected = alone.encode(text, add_special_tokens=False).ids
            assert ids(tokenizer, text) == expected, (tokenizer_class, text)
            assert tokenizer(text)["input_ids"] == alone.encode(text).ids, (tokenizer_class, text)


def test_saved_and_loaded_again_it_is_the_same(saved: Path, tmp_path: Path):
    write(saved, **named(None))
    tokenizer = load_tokenizer(saved)
    tokenizer.save_pretrained(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.get_vocab() == tokenizer.get_vocab() and again.special_tokens_map == tokenizer.special_tokens_map
    assert [ids(again, text) for text in TEXTS] == [ids(tokenizer, text) for text in TEXTS]
    assert saved_token_bytes(tmp_path) == token_bytes(tokenizer)


def test_digits_one_by_one_keep_the_spaces_before_them(tmp_path: Path):
    KINDS["digits one by one"]().save(str(tmp_path / "tokenizer.json"))
    write(tmp_path, **named("GPT2Tokenizer"))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.convert_ids_to_tokens(ids(tokenizer, "x =    42")) == ["x", "Ġ=", "ĠĠĠĠ", "4", "2"]


def test_the_words_of_a_word_piece_tokenizer(tmp_path: Path):
    word_piece().save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path)
    tokens = ids(tokenizer, "they'd rested 8 times")
    assert "".join(decode_pieces(tokens, token_bytes(tokenizer))) == " they ' d rested 8 times"


def test_truncation_and_padding_in_the_file_shorten_nothing(tmp_path: Path):
    tokenizer = byte_level()
    whole = tokenizer.encode(TEXTS[1]).ids
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=50, pad_token="<s>")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    loaded = load_tokenizer(tmp_path)
    assert ids(loaded, TEXTS[1]) == whole and ids(loaded, "x") == tokenizer.encode("x").ids[:1]


# --- special tokens


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    byte_level().save(str(tmp_path / "tokenizer.json"))
    return tmp_path


@pytest.mark.parametrize("role", ["bos_token", "eos_token"])
def test_a_token_that_does_not_exist_is_refused_and_not_added(folder: Path, role: str):
    write(folder, **{role: {"content": "<|begin|>"}})
    with pytest.raises(
        UserError, match=rf"'<\|begin\|>' as its {role}, which is not in its vocabulary of 420; expected"
    ):
        load_tokenizer(folder)


def test_other_roles_whose_token_does_not_exist_are_left_empty(folder: Path):
    write(folder, bos_token="<s>", pad_token="[PAD]", additional_special_tokens=["<tool>"])
    tokenizer = load_tokenizer(folder)
    assert len(tokenizer) == 420 and tokenizer.pad_token is None and tokenizer.bos_token_id == 1
    assert tokenizer.convert_tokens_to_ids("<tool>") is None


def test_where_the_roles_come_from(folder: Path):
    write(folder, "config.json", bos_token_id=2, eos_token_id=2, pad_token_id=999)
    tokenizer = load_tokenizer(folder)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (2, 2, None)
    write(folder, "special_tokens_map.json", bos_token={"content": "<s>"}, eos_token="</s>")
    tokenizer = load_tokenizer(folder)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (1, 2)
    write(folder, bos_token=None, eos_token="<unk>", model_max_length=77)
    tokenizer = load_tokenizer(folder)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.model_max_length) == (None, 0, 77)


def test_all_that_the_file_calls_special_is_special(tmp_path: Path):
    tokenizer = byte_level()
    tokenizer.add_special_tokens(["<reserved>"])
    tokenizer.add_tokens(["<plain>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    write(tmp_path, bos_token="<s>")
    loaded = load_tokenizer(tmp_path)
    assert sorted(loaded.all_special_ids) == [0, 1, 2, 420] and len(loaded) == 422


# --- without tokenizer.json


def test_a_vocabulary_and_merges_are_split_as_gpt2_does(folder: Path):
    whole = load_tokenizer(folder)
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    write(folder, "vocab.json", **model["vocab"])
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in model["merges"]))
    (folder / "tokenizer.json").unlink()
    for tokenizer_class in ("GPT2Tokenizer", "GPT2TokenizerFast", None):
        write(folder, **named(tokenizer_class))
        tokenizer = load_tokenizer(folder)
        assert tokenizer.get_vocab() == whole.get_vocab()
        assert [ids(tokenizer, text) for text in TEXTS] == [ids(whole, text) for text in TEXTS]
    for tokenizer_class in ("Qwen2Tokenizer", "RobertaTokenizer"):
        write(folder, tokenizer_class=tokenizer_class)
        with pytest.raises(UserError, match=f"merges.txt of a {tokenizer_class}, which do not say how it splits text"):
            load_tokenizer(folder)


# --- the libraries that files come from


@pytest.mark.parametrize("add_dummy_prefix", [True, False])
def test_a_model_of_sentencepiece_has_the_same_ids_in_a_gguf_file_and_in_a_directory(
    add_dummy_prefix: bool, tmp_path: Path
):
    spm = pytest.importorskip("sentencepiece")
    pytest.importorskip("gguf")
    from tiny_gguf import write_gguf

    from nejax.models.formats.gguf_tokenizer import load_gguf_tokenizer

    text = [line for text in TEXTS for line in text.split("\n") if line.strip()]
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(text * 3),
        model_prefix=str(tmp_path / "spm"),
        model_type="bpe",
        vocab_size=430,
        character_coverage=1.0,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=add_dummy_prefix,
        minloglevel=2,
    )
    oracle = spm.SentencePieceProcessor(model_file=str(tmp_path / "spm.model"))
    every = range(oracle.vocab_size())
    kinds = [2 if oracle.is_unknown(i) else 3 if oracle.is_control(i) else 6 if oracle.is_byte(i) else 1 for i in every]
    fields = {
        "model": "llama",
        "tokens": [oracle.id_to_piece(i) for i in every],
        "scores": [oracle.get_score(i) for i in every],
        "token_type": kinds,
        "bos_token_id": oracle.bos_id(),
        "eos_token_id": oracle.eos_id(),
        "unknown_token_id": oracle.unk_id(),
        "add_space_prefix": add_dummy_prefix,
    }
    file = write_gguf(tmp_path / "m.gguf", {f"tokenizer.ggml.{key}": value for key, value in fields.items()})
    of_gguf = load_gguf_tokenizer(file)
    of_gguf.save_pretrained(tmp_path / "saved")
    for tokenizer_class in CLASSES:
        write(tmp_path / "saved", **named(tokenizer_class))
        of_directory = load_tokenizer(tmp_path / "saved")
        for text in TEXTS:
            expected = oracle.encode(text)
            assert ids(of_gguf, text) == expected, text
            assert ids(of_directory, text) == expected, (tokenizer_class, text)


@pytest.mark.slow
def test_smollm2_saved_as_a_gpt2_tokenizer_has_the_ids_of_its_gguf_file(tmp_path: Path):
    pytest.importorskip("gguf")
    from nejax.models.formats.gguf_files import smollm2_file
    from nejax.models.formats.gguf_tokenizer import load_gguf_tokenizer

    try:
        of_gguf = load_gguf_tokenizer(smollm2_file())
    except UserError as error:
        pytest.skip(str(error))
    of_gguf.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    write(tmp_path, **(config | {"tokenizer_class": "GPT2Tokenizer"}))
    of_directory = load_tokenizer(tmp_path)
    texts = [*TEXTS, Path(os.__file__).read_text(), Path(shutil.__file__).read_text()]
    assert [ids(of_directory, text) for text in texts] == [ids(of_gguf, text) for text in texts]
    assert sorted(of_directory.all_special_ids) == sorted(of_gguf.all_special_ids)
