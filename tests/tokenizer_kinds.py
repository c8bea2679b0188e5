"""Small tokenizers of every kind, as the tokenizers library builds them, and text that tells them apart."""

import json
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXTS = [
    "x =    42",
    "In 1987, 2,345 birds flew 67 km; they'd rested 8 times and WE'RE told it's 100% true.",
    "def area(r):\n\treturn 3.14159 * r**2  # r >= 0\n\n\n    print(area(10))\r\n",
    "naïve café — déjà vu, ½ Ⅷ ٣٤, e\u0301 ﬁ",
    "日本語と한국어，中文文本。Привет мир",
    "😀 \U0001f469\u200d\U0001f52c done\u200b",
    " leading",
    "   leading three",
    "trailing  ",
    "  \n \n\t\n   x   ",
    "\n\nafter two line breaks",
    "don't can't I'LL",
    "▁ already ▁there",
    "a < b && c > d; $x+=1 | y^z ~w == `q` <=> {k: v}",
    "",
]
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+(?!\S)|\s+"
SPECIAL = ["<unk>", "<s>", "</s>"]


def byte_level(
    *before: Any, normalizer: Any = None, add_prefix_space: bool = False, use_regex: bool = True
) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    last = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space, use_regex=use_regex)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*before, last])
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer:
        tokenizer.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    return tokenizer


def sentencepiece(*, prefix: bool, metaspace: str | None = None) -> Tokenizer:
    """Llama 2's in tokenizers' terms, its prefix by a normalizer or by a pre-tokenizer."""
    trained = Tokenizer(models.BPE())
    marked = [("▁" + text.replace(" ", "▁")).replace("\n", "") for text in TEXTS]
    trained.train_from_iterator(marked * 3, trainers.BpeTrainer(vocab_size=250, show_progress=False))
    pieces = sorted(trained.get_vocab(), key=lambda piece: trained.get_vocab()[piece])
    vocabulary = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    merges = [tuple(pair) for pair in json.loads(trained.to_str())["model"]["merges"]]
    ids = {piece: token for token, piece in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if metaspace:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme=metaspace, split=False)
    else:
        replace = normalizers.Replace(" ", "▁")
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace]) if prefix else replace
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*parts, *strip])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL])
    template = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.post_processor = template
    return tokenizer


def word_piece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.train_from_iterator(TEXTS * 3, trainers.WordPieceTrainer(vocab_size=300, special_tokens=SPECIAL))
    return tokenizer


KINDS = {
    "GPT-2": byte_level,
    "digits one by one": lambda: byte_level(pre_tokenizers.Digits(individual_digits=True)),
    "Llama 3": lambda: byte_level(pre_tokenizers.Split(Regex(LLAMA3), "isolated"), use_regex=False),
    "normalised": lambda: byte_level(normalizer=normalizers.NFKC()),
    "byte-level with a space before": lambda: byte_level(add_prefix_space=True),
    "SentencePiece": lambda: sentencepiece(prefix=True),
    "SentencePiece without prefix": lambda: sentencepiece(prefix=False),
    "Metaspace first": lambda: sentencepiece(prefix=True, metaspace="first"),
    "Metaspace never": lambda: sentencepiece(prefix=False, metaspace="never"),
    "WordPiece": word_piece,
}
