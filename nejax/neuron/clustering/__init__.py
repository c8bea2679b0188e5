"""Ways to cluster a neuron's embeddings, and how good a clustering is."""
