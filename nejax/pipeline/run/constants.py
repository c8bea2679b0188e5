"""Numbers that scripts name in their help. Nothing is imported."""

CONTEXT = 8
"""Two examples are repeats when the tokens from `CONTEXT - 1` before the peak up to the peak are the same."""

N_REFERENCE = 64
"""Random positions whose inputs calibrate the cut height: 2,016 pairs."""

CHUNK_MIB = 256
"""Memory for one chunk of neurons, unless another bound is set."""

TOLERANCE = 1e-5
"""How far apart values of two runs may lie: of a neuron's scale for its activations, of 1 for cosine distances."""
