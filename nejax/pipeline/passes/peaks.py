"""Which tokens of a sequence may be a neuron's peak."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, ScalarLike

from nejax.pipeline.corpus.windows import Sequences


class PeakRule(NamedTuple):
    """Not padding, no special token, and not before the first position: arrays, so that a jitted pass can take it."""

    special: Int[Array | np.ndarray, " n_special"]
    """Token ids that are never a peak, int32."""
    first_position: ScalarLike
    """1 leaves out the first position, an attention sink."""

    @classmethod
    def of(cls, special: Sequence[int] | np.ndarray, first_position: int) -> "PeakRule":
        """On the host, of the types that passes take."""
        return cls(np.asarray(special, np.int32), np.int32(first_position))

    def allows(self, tokens: Int[Array, "batch seq"], length: Int[Array, " batch"]) -> Bool[Array, "batch seq"]:
        """Which positions may hold a peak.

        Args:
            tokens: token ids.
            length: real tokens of each row.
        """
        position = jnp.arange(tokens.shape[1])
        is_text = (position >= self.first_position) & (position < length[:, None])
        return is_text & ~jnp.isin(tokens, jnp.asarray(self.special))

    def allowed_in(self, sequences: Sequences) -> np.ndarray:
        """[n_sequences, seq_len] bool: `allows` on the host."""
        return np.asarray(self.allows(jnp.asarray(sequences.tokens), jnp.asarray(sequences.length)))
