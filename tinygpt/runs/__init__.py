"""A training run: its state and files, and the proof that it can be repeated."""
