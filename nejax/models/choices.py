"""What can be chosen, by name. Nothing heavy is imported: scripts name the choices in their help."""

from typing import Literal

EmbedBy = Literal["gate", "gate_and_up"]
"""Whose input weights embed the examples of a gated neuron."""

Architecture = Literal["standard", "topk", "jumprelu", "gated"]
"""Of a sparse autoencoder: the keys of `nejax.models.sae.architectures.ARCHITECTURES`."""
