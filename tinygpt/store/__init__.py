"""Artifacts on disk: found by key, checked by hash, whole or not there. No torch, no numpy."""

from tinygpt.store.artifact import Artifact, Inputs, Manifest
from tinygpt.store.out import Checkpoints, Out
from tinygpt.store.store import Store
