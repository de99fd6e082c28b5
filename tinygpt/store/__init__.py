"""Artifacts on disk: found by key, checked by hash, whole or not there. No torch, no numpy."""

from tinygpt.store.artifact import Artifact, Manifest
from tinygpt.store.checkpoints import Checkpoints
from tinygpt.store.out import Out
from tinygpt.store.store import Store
from tinygpt.store.upkeep import garbage

__all__ = ["Artifact", "Checkpoints", "Manifest", "Out", "Store", "garbage"]
