"""Artifacts on disk: found by key, checked by hash, whole or not there. No torch, no numpy."""

from tinygpt.store.artifact import Artifact, DamageError, InputRecord, Manifest
from tinygpt.store.checkpoints import Checkpoints, Unfinished
from tinygpt.store.files import FileRecord
from tinygpt.store.out import Out
from tinygpt.store.store import Store

__all__ = ["Artifact", "Checkpoints", "DamageError", "FileRecord", "InputRecord", "Manifest", "Out", "Store", "Unfinished"]
