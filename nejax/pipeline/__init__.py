"""The stages of a run: each reads stores and writes a store."""
