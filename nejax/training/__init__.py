"""Language models and autoencoders: their text, inputs, training runs and scorecard."""
