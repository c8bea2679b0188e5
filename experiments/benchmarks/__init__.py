"""What `experiments/benchmark.py` measures, a file a subject."""
