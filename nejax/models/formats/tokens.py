"""Token ids and text: byte-level BPE training, and decoding that keeps characters whole."""

import codecs
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from nejax.errors import UserError

END_OF_TEXT = "<|endoftext|>"


def train_tokenizer(texts: Iterable[str], *, vocab_size: int, n_positions: int, progress: bool = False) -> Any:
    """Train a byte-level BPE tokenizer of GPT-2's kind.

    Args:
        texts: read once.
        vocab_size: number of tokens, the 256 bytes and `<|endoftext|>` (id 0) included.
        n_positions: longest sequence of the model it is for.
        progress: show the trainer's own progress bars.

    Returns:
        A fast tokenizer of transformers whose BOS, EOS and padding token is `<|endoftext|>`.
    """
    from transformers import PreTrainedTokenizerFast  # takes a second: not for those who only read tokens

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=progress,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        model_max_length=n_positions,
    )


def token_bytes(tokenizer: Any) -> list[bytes]:
    """The bytes that each token stands for, by token id.

    They follow from the tokenizer's decoder: byte-level (GPT-2, Llama 3, SmolLM2); SentencePiece's (Llama 2), with `▁`
    for a space and `<0x0A>` for a byte; or WordPiece's (BERT), with `##` before what goes on with a word, and a space
    before what does not. A token that was added to the vocabulary (BOS, for example) has the bytes of its name; an id
    without a token has none.

    SentencePiece puts a space before a text, and its decoder removes it again. That depends on a token's place, which
    this table does not have: the joined bytes of a whole text's tokens begin with this space. So do WordPiece's.

    Args:
        tokenizer: a fast tokenizer of transformers, or a `tokenizers.Tokenizer`.

    Raises:
        UserError: its decoder is of another kind.
    """
    tokenizer = getattr(tokenizer, "backend_tokenizer", tokenizer)
    decoder = tokenizer.decoder
    steps = [] if decoder is None else _decoder_steps(json.loads(decoder.__getstate__()))
    kinds = {step["type"] for step in steps}
    pieces = {token_id: piece for piece, token_id in tokenizer.get_vocab(with_added_tokens=True).items()}
    table = [b""] * (max(pieces) + 1)
    if "ByteLevel" in kinds:
        added, byte_of = tokenizer.get_added_tokens_decoder(), _byte_of_character()
        for token_id, piece in pieces.items():
            table[token_id] = piece.encode() if token_id in added else _byte_level_bytes(piece, byte_of)
    elif kinds & {"Metaspace", "ByteFallback"} and kinds <= {"Metaspace", "ByteFallback", "Replace", "Fuse", "Strip"}:
        for token_id, piece in pieces.items():
            table[token_id] = _sentencepiece_bytes(piece, steps)
    elif kinds == {"WordPiece"}:
        added, continues = tokenizer.get_added_tokens_decoder(), steps[0]["prefix"]
        for token_id, piece in pieces.items():
            begins = "" if token_id in added or piece.startswith(continues) else " "
            table[token_id] = (begins + piece.removeprefix(continues)).encode()
    else:
        raise UserError(
            f"the tokenizer's decoder is of kind {' + '.join(sorted(kinds)) or None}; expected a byte-level, a "
            "SentencePiece or a WordPiece tokenizer, as GPT-2, Llama and BERT have"
        )
    return table


def saved_token_bytes(folder: Path) -> list[bytes]:
    """`token_bytes` of a tokenizer that was saved in a folder, without importing transformers, which takes a second.

    Raises:
        Exception: there is no readable `tokenizer.json` (the tokenizers library raises bare ones).
    """
    return token_bytes(Tokenizer.from_file(str(folder / "tokenizer.json")))


def decode_pieces(tokens: Sequence[int], table: Sequence[bytes]) -> list[str]:
    """The text of each token, such that joining the pieces gives the whole text.

    A character whose bytes straddle tokens belongs to the token that completes it; invalid bytes show as U+FFFD.

    Args:
        tokens: token ids.
        table: from `token_bytes`.

    Returns:
        One string a token, possibly empty.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    last = len(tokens) - 1
    return [decoder.decode(table[token], final=i == last) for i, token in enumerate(tokens)]


def _decoder_steps(settings: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The settings of a decoder's steps, in order."""
    if settings["type"] == "Sequence":
        return [step for part in settings["decoders"] for step in _decoder_steps(part)]
    return [settings]


def _byte_level_bytes(piece: str, byte_of: Mapping[str, int]) -> bytes:
    if all(character in byte_of for character in piece):
        return bytes(byte_of[character] for character in piece)
    return piece.encode()


def _sentencepiece_bytes(piece: str, steps: Iterable[Mapping[str, Any]]) -> bytes:
    """The bytes of a token after a decoder's steps, except those that strip the beginning or end of a text."""
    for step in steps:
        match step:
            case {"type": "Replace", "pattern": {"String": old}, "content": new}:
                piece = piece.replace(old, new)
            case {"type": "Metaspace", "replacement": old}:
                piece = piece.replace(old, " ")
            case {"type": "ByteFallback"}:
                if byte := re.fullmatch("<0x([0-9A-Fa-f]{2})>", piece):
                    return bytes.fromhex(byte[1])
    return piece.encode()


def _byte_of_character() -> dict[str, int]:
    """GPT-2's printable stand-ins for bytes, inverted (Radford et al. 2019, section 2.2).

    Printable Latin-1 bytes stand for themselves; the 68 others take the code points from 256 on, in order.
    """
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(256 + i): byte for i, byte in enumerate(others)}
