"""Measure trained models and their texts: attention, ablation, spectra, generation quality."""
