"""Streaming measures of neurons over a corpus, in time linear in its length."""
