"""Artifacts on disk: found by key, checked by hash, whole or not there. No torch, no numpy."""

from tinygpt.store.artifact import Artifact, DamageError, InputRecord, Manifest
from tinygpt.store.checkpoints import Checkpoints, Unfinished
from tinygpt.store.files import FileRecord
from tinygpt.store.gc import Collected, garbage
from tinygpt.store.out import Out
from tinygpt.store.store import Store
from tinygpt.store.verify import Fault

__all__ = [
    "Artifact",
    "Checkpoints",
    "Collected",
    "DamageError",
    "Fault",
    "FileRecord",
    "InputRecord",
    "Manifest",
    "Out",
    "Store",
    "Unfinished",
    "garbage",
]
