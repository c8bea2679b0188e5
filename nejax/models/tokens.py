"""Token ids and text: byte-level BPE training, and decoding that keeps characters whole."""

import codecs
from collections.abc import Iterable, Sequence
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"


def train_tokenizer(
    texts: Iterable[str], *, vocab_size: int, n_positions: int, progress: bool = False
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer of GPT-2's kind.

    Args:
        texts: read once.
        vocab_size: number of tokens, the 256 bytes and `<|endoftext|>` (id 0) included.
        n_positions: longest sequence of the model it is for.
        progress: show the trainer's own progress bars.

    Returns:
        A fast tokenizer whose BOS, EOS and padding token is `<|endoftext|>`.
    """
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
    """The bytes that each token of a byte-level tokenizer stands for, by token id.

    A special token stands for the bytes of its name; an id without a token, for none.
    """
    byte_of = _byte_of_character()
    special = set(tokenizer.all_special_ids)
    n_ids = max(tokenizer.get_vocab().values()) + 1
    pieces = tokenizer.convert_ids_to_tokens(range(n_ids))
    table = []
    for token_id, piece in enumerate(pieces):
        if piece is None:
            table.append(b"")
        elif token_id in special or not all(character in byte_of for character in piece):
            table.append(piece.encode())
        else:
            table.append(bytes(byte_of[character] for character in piece))
    return table


def decode_pieces(tokens: Sequence[int], table: Sequence[bytes]) -> list[str]:
    """The text of each token, such that joining the pieces gives the text of all.

    A character whose bytes straddle tokens is given whole to the token that completes it; bytes that never make a
    character show as U+FFFD.

    Args:
        tokens: token ids.
        table: from `token_bytes`.

    Returns:
        One string a token, possibly empty.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    last = len(tokens) - 1
    return [decoder.decode(table[token], final=i == last) for i, token in enumerate(tokens)]


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
