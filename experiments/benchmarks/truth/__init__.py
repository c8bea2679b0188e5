"""How many features has a neuron? Rules beside known answers."""
