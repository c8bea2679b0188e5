"""What can be read: language models, their weights and tokens, and how they are trained."""
