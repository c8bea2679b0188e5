"""Sparse autoencoders: architectures, files, their latents as neurons, and how they are judged."""
