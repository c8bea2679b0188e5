"""The parts of `experiments/mnist_sae.py`."""
