"""Sparse autoencoders: architectures, files, their latents as neurons, and their evaluation."""
