"""How large a generated atlas is."""

from typing import NamedTuple


class Sizes(NamedTuple):
    """How large an atlas is; GPT-2 small's, unless told otherwise."""

    n_layers: int = 12
    d_mlp: int = 3072
    d_model: int = 768
    n_examples: int = 50
    n_sequences: int = 10_000
    seq_len: int = 128
    vocab_size: int = 50_257


GPT2_SMALL = Sizes()
