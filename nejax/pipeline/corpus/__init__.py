"""Text: documents, formats, windows of tokens, duplicates."""
