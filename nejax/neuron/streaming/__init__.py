"""What is kept of a neuron while a corpus goes by, in time linear in its length."""
