"""The tokenizer that a GGUF file holds: vocabulary, merges or scores, and special tokens, under llama.cpp's keys.

Two kinds are read. `gpt2` is byte-level BPE; how text is split before merging is not in the file, only the name of the
rule (`tokenizer.ggml.pre`), and a wrong rule silently gives wrong tokens, so names without an entry here are refused.
transformers' own conversion has no entry for SmolLM2's `smollm` and falls back on GPT-2's rule. SmolLM2 splits off
digits first, one by one, and keeps all spaces before a number together; GPT-2's rule joins the last one to the number.
`llama` is SentencePiece's BPE with byte fallback.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from nejax.errors import UserError
from nejax.models.formats.gguf_header import read_gguf_header
from nejax.models.formats.hub import one_line

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 1, 2, 3, 4, 6  # what a token is, in `tokenizer.ggml.token_type`
_SPACE = "▁"  # SentencePiece's
_SPECIAL = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
_SENTENCEPIECE_IDS = {"unknown": 0, "bos": 1, "eos": 2}  # where the file does not say


def _split(*patterns: str) -> pre_tokenizers.Sequence:
    """Splits around the matches of one pattern after another."""
    cuts = [pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in patterns]
    return pre_tokenizers.Sequence([*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


class _Rule(NamedTuple):
    """How text becomes words of byte-level BPE."""

    pre_tokenizer: Any
    keeps_known_words: bool = False
    """Whether a word that is a token is taken whole instead of being merged from its bytes."""


_GPT2 = _Rule(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True))
_DIGITS = _Rule(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _GPT2.pre_tokenizer]))
_LLAMA3 = _Rule(
    _split(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    keeps_known_words=True,
)
_DEFAULT = _Rule(  # llama.cpp's own, for files that say so
    _split(
        r"[\p{P}\$\+<=>\^~\|]+",
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
        r"\p{N}+",
        r"[0-9][0-9][0-9]",
    )
)
_RULES = {
    "gpt-2": _GPT2,
    "smollm": _DIGITS,
    "starcoder": _DIGITS,
    "refact": _DIGITS,
    "llama-bpe": _LLAMA3,
    "llama-v3": _LLAMA3,
    "llama3": _LLAMA3,
    "default": _DEFAULT,
}
"""`tokenizer.ggml.pre` -> the rule of that name."""


class _Vocabulary(NamedTuple):
    """The tokens of a file, by id."""

    pieces: list[str]
    kinds: list[int]

    def ids(self) -> dict[str, int]:
        return {piece: token for token, piece in enumerate(self.pieces)}

    def of_kind(self, *kinds: int) -> list[str]:
        return [piece for piece, kind in zip(self.pieces, self.kinds, strict=True) if kind in kinds and piece]


def load_gguf_tokenizer(file: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a model in a GGUF file. Every token has the id that it has there.

    Control tokens are special; they and user-defined ones are found whole in text. BOS and EOS are added where the file
    says so, unless `add_special_tokens=False`.

    Raises:
        UserError: see `nejax.models.formats.gguf_header.read_gguf_header`; there is no tokenizer, it is of a kind or
        with a
            rule for splitting text that is not known, or its parts do not fit together.
    """
    header = read_gguf_header(file).fields
    fields = {key.removeprefix("tokenizer.ggml."): value for key, value in header.items()}
    vocabulary = _vocabulary(fields, file)
    is_sentencepiece, rule = fields.get("model") == "llama", None
    if not is_sentencepiece:
        rule = _rule(fields, file)
    special = _special_tokens(fields, vocabulary, file, _SENTENCEPIECE_IDS if is_sentencepiece else {})
    try:
        made = _byte_level(fields, vocabulary, rule) if rule else _sentencepiece(fields, vocabulary, special)
    except Exception as error:  # the tokenizers library raises bare ones
        raise _damaged(file, one_line(error)) from error
    control = vocabulary.of_kind(_CONTROL, _UNKNOWN)
    made.add_special_tokens([AddedToken(piece, normalized=False, special=True) for piece in control])
    made.add_tokens([AddedToken(piece, normalized=False) for piece in vocabulary.of_kind(_USER_DEFINED)])
    adds_bos = is_sentencepiece or rule is _LLAMA3  # where the file does not say
    context = header.get(f"{header.get('general.architecture')}.context_length")
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        **special,
        extra_special_tokens=[piece for piece in control if piece not in special.values()],
        add_bos_token="bos_token" in special and fields.get("add_bos_token", adds_bos),
        add_eos_token="eos_token" in special and fields.get("add_eos_token", False),
        clean_up_tokenization_spaces=False,
        **({"model_max_length": context} if isinstance(context, int) else {}),
    )


def _damaged(file: Path, problem: str) -> UserError:
    return UserError(f"the tokenizer in {file} cannot be read ({problem}); get the file again")


def _vocabulary(fields: Mapping[str, Any], file: Path) -> _Vocabulary:
    pieces = fields.get("tokens")
    if not isinstance(pieces, list) or not pieces or not isinstance(pieces[0], str):
        raise UserError(f"there is no tokenizer in {file} (tokenizer.ggml.tokens); expected a file of a whole model")
    kinds = fields.get("token_type", [_NORMAL] * len(pieces))
    if not isinstance(kinds, list) or len(kinds) != len(pieces):
        raise _damaged(file, f"not one tokenizer.ggml.token_type for each of {len(pieces)} tokens")
    if len(set(pieces)) != len(pieces):
        raise _damaged(file, f"token {Counter(pieces).most_common(1)[0][0]!r} is there twice")
    return _Vocabulary(pieces, kinds)


def _rule(fields: Mapping[str, Any], file: Path) -> _Rule:
    """How the text of a byte-level tokenizer is split."""
    if fields.get("model") != "gpt2":
        raise UserError(
            f"the tokenizer in {file} is of kind {fields.get('model')!r}; only 'gpt2' and 'llama' can be read"
        )
    name = fields.get("pre")
    if name not in _RULES:
        raise UserError(
            f"the tokenizer in {file} splits text by the rule {name!r} (tokenizer.ggml.pre); only "
            f"{', '.join(map(repr, _RULES))} are known; load the model's own directory instead"
        )
    return _RULES[name]


def _special_tokens(
    fields: Mapping[str, Any], vocabulary: _Vocabulary, file: Path, defaults: Mapping[str, int]
) -> dict[str, str]:
    """The tokens with a role, as transformers calls it."""
    special = {}
    for role, key in _SPECIAL.items():
        token = fields.get(f"{key}_token_id", defaults.get(key))
        if token is None:
            continue
        if type(token) is not int or not 0 <= token < len(vocabulary.pieces):
            raise _damaged(file, f"{key}_token_id is {token!r}, there are {len(vocabulary.pieces)} tokens")
        special[role] = vocabulary.pieces[token]
    return special


def _byte_level(fields: Mapping[str, Any], vocabulary: _Vocabulary, rule: _Rule) -> Tokenizer:
    merges = [tuple(merge.split(" ")) for merge in fields["merges"]]
    tokenizer = Tokenizer(models.BPE(vocabulary.ids(), merges, ignore_merges=rule.keeps_known_words))
    tokenizer.pre_tokenizer = rule.pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentencepiece(fields: Mapping[str, Any], vocabulary: _Vocabulary, special: Mapping[str, str]) -> Tokenizer:
    has_prefix = fields.get("add_space_prefix", True)
    tokenizer = Tokenizer(
        models.BPE(
            vocabulary.ids(),
            _merges(vocabulary, fields["scores"]),
            unk_token=special["unk_token"],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    prefix = [normalizers.Prepend(_SPACE)] if has_prefix else []
    tokenizer.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", _SPACE)])
    strip = [decoders.Strip(" ", 1, 0)] if has_prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return tokenizer


def _merges(vocabulary: _Vocabulary, scores: Sequence[float]) -> list[tuple[str, str]]:
    """SentencePiece joins the neighbours that make the best token: every cut of a token in two, best tokens first."""
    unmergeable = (_UNKNOWN, _CONTROL, _BYTE)
    ids = {piece: token for piece, token in vocabulary.ids().items() if vocabulary.kinds[token] not in unmergeable}
    best_first = sorted(ids, key=lambda piece: -scores[ids[piece]])
    return [
        (piece[:cut], piece[cut:])
        for piece in best_first
        for cut in range(1, len(piece))
        if piece[:cut] in ids and piece[cut:] in ids
    ]
