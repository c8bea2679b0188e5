"""Families of models: one file each, what they share, and the two sides of gated neurons."""
