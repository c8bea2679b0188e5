"""What `gated_embeddings.py` needs beside nejax."""
