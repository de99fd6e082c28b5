"""Artifacts on disk: found by key, checked by hash, never half written. No torch, no numpy."""

from tinygpt.store.artifact import Artifact, Inputs
from tinygpt.store.manifest import Manifest
from tinygpt.store.stage_names import IMPORT_STAGE
from tinygpt.store.store import Store
from tinygpt.store.unfinished import UnfinishedRun
from tinygpt.store.writer import ArtifactWriter
