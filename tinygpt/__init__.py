"""tinygpt: train a real GPT from nothing and understand what happened."""

__version__ = "0.1.0"
