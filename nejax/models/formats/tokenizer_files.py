"""A tokenizer in a directory of Hugging Face's layout, read from its files alone.

`tokenizer.json` fully describes how text becomes ids. transformers' `AutoTokenizer` rebuilds some classes from their
vocabulary instead and drops the file's rules of splitting and normalising, differently from version to version: GPT-2's
lose their pattern, Llama's gain or lose a space. So the file is read here by a class that does not change it, and the
result is compared with the file over a sample of text.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from nejax.errors import UserError
from nejax.models.formats.files import read_json
from nejax.models.formats.hub import one_line

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
)
"""What is read of a directory, with the ids of special tokens in `config.json`."""

_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_NEEDED = ("bos_token", "eos_token")
"""Sequences begin with one of these: one that the vocabulary lacks is refused, other roles are left empty then."""
_KEPT = ("model_max_length", "chat_template")
"""Of `tokenizer_config.json`: what changes no ids."""
_GPT2_CLASSES = ("GPT2Tokenizer", "GPT2TokenizerFast")
_SAMPLE = (
    "In 1987, 2,345 birds flew 67 km; they'd rested 8 times and WE'RE told it's 100% true.",
    "def area(r):\n\treturn 3.14159 * r**2  # r >= 0\n\n\n    print(area(10))\r\n",
    "x =    42",
    "naïve café — déjà vu, 日本語と한국어, Привет мир, ½ Ⅷ ٣٤, 😀 \U0001f469\u200d\U0001f52c done",
    "  leading, trailing  \n \n\t\n   x   ",
    "\n",
)
"""Indentation, digits, line breaks, scripts, emoji, apostrophes, spaces at the ends."""


def load_tokenizer(directory: Path) -> PreTrainedTokenizerFast:
    """The tokenizer in a directory: `tokenizer.json` unchanged, or GPT-2's `vocab.json` and `merges.txt`.

    Special tokens have the roles that `tokenizer_config.json` gives them, or `special_tokens_map.json`, or the ids in
    `config.json`. All tokens that the tokenizer's file calls special are special. No token is added: the model was not
    trained on it.

    Args:
        directory: of a model, or one that `save_pretrained` of a tokenizer made.

    Returns:
        The tokenizer. Its ids are those that the tokenizers library gives by the file alone.

    Raises:
        UserError: no tokenizer there, damaged files, a BOS or EOS token that is not in the vocabulary, a vocabulary of
            a class whose way of splitting text is not known, a version of transformers that reads the file otherwise.
    """
    file = directory / "tokenizer.json"
    config = _json_of(directory / "tokenizer_config.json")
    try:
        own = Tokenizer.from_file(str(file)) if file.is_file() else _gpt2(directory, config)
    except UserError:
        raise
    except Exception as error:  # the tokenizers library raises bare ones
        raise UserError(
            f"the tokenizer in {directory} cannot be read ({one_line(error)}); get its files again"
        ) from error
    made = PreTrainedTokenizerFast(
        **({"tokenizer_file": str(file)} if file.is_file() else {"tokenizer_object": own}),
        **_special_tokens(directory, config, own),
        **{key: config[key] for key in _KEPT if config.get(key) is not None},
        clean_up_tokenization_spaces=False,
    )
    _require_the_same(made, own, directory)
    return made


def _json_of(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _gpt2(directory: Path, config: Mapping[str, Any]) -> Tokenizer:
    """The byte-level tokenizer of a vocabulary and merges alone, which do not say how text is split."""
    vocabulary, merges = directory / "vocab.json", directory / "merges.txt"
    if not (vocabulary.is_file() and merges.is_file()):
        raise UserError(
            f"no tokenizer in {directory}; expected tokenizer.json, or vocab.json and merges.txt of a GPT-2"
        )
    kind = config.get("tokenizer_class") or _json_of(directory / "config.json").get("model_type")
    if kind not in (*_GPT2_CLASSES, "gpt2", None):
        raise UserError(
            f"{directory} has vocab.json and merges.txt of a {kind}, which do not say how it splits text; "
            "expected tokenizer.json beside them"
        )
    tokenizer = Tokenizer(models.BPE.from_file(str(vocabulary), str(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=config.get("add_prefix_space", False))
    tokenizer.decoder = decoders.ByteLevel()
    if tokenizer.token_to_id("<|endoftext|>") is not None:
        tokenizer.add_special_tokens([AddedToken("<|endoftext|>", normalized=False, special=True)])
    return tokenizer


def _special_tokens(directory: Path, config: Mapping[str, Any], tokenizer: Tokenizer) -> dict[str, Any]:
    """Role -> token, and the list of special tokens without a role; all of them in the vocabulary."""
    by_id = _json_of(directory / "config.json")
    named = {**_json_of(directory / "special_tokens_map.json"), **config}
    special = {}
    for role in _ROLES:
        if role in named:
            token = _content(named[role])
        else:
            number = by_id.get(f"{role}_id")
            token = tokenizer.id_to_token(number) if type(number) is int and number >= 0 else None
        if token is None:
            continue
        if tokenizer.token_to_id(token) is not None:
            special[role] = token
        elif role in _NEEDED:
            raise UserError(
                f"the tokenizer in {directory} has {token!r} as its {role}, which is not in its vocabulary of "
                f"{tokenizer.get_vocab_size():,}; expected one of its tokens: get its files again, or correct "
                "tokenizer_config.json"
            )
    extra = [str(token) for token in tokenizer.get_added_tokens_decoder().values() if token.special]
    for key in ("additional_special_tokens", "extra_special_tokens"):
        listed = named.get(key) or []
        tokens = map(_content, listed.values() if isinstance(listed, dict) else listed)
        extra += [token for token in tokens if token and tokenizer.token_to_id(token) is not None]
    extra = [token for token in dict.fromkeys(extra) if token not in special.values()]
    return special | {"extra_special_tokens": extra}


def _content(token: Any) -> str | None:
    """A token by itself or as an object with its text."""
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else None


def _require_the_same(made: PreTrainedTokenizerFast, own: Tokenizer, directory: Path) -> None:
    """Refuse a tokenizer whose ids are not those of the file."""
    own.no_truncation()
    own.no_padding()
    same = len(made) == own.get_vocab_size() and all(
        made(text, add_special_tokens=False)["input_ids"] == own.encode(text, add_special_tokens=False).ids
        for text in _SAMPLE
    )
    if not same:
        raise UserError(
            f"this version of transformers does not read the tokenizer in {directory} as it stands: it gives other ids "
            "than the tokenizers library; install another version of transformers"
        )
