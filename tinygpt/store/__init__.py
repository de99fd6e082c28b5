"""Artifacts on disk: found by key, checked by hash, whole or not there. No torch, no numpy."""

from tinygpt.store.artifact import Artifact, Inputs, Manifest
from tinygpt.store.checkpoints import Checkpoints
from tinygpt.store.out import Out
from tinygpt.store.store import Store
