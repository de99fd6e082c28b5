"""Experiments: does a change of the recipe make a difference? A grid of runs and a verdict."""
