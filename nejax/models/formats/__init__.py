"""Files of models and tokenizers, on disk and on the Hub, and what they hold."""
