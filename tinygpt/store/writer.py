"""What a stage writes its files with.

.partial/<stage>-<key12>.<random>/   the files of an artifact until it is published
"""

from pathlib import Path

from tinygpt.store.new_folder import NewFolder
from tinygpt.store.unfinished import UnfinishedRun


class ArtifactWriter(NewFolder):
    """The files of an artifact that is not published yet.

    Args:
        folder: where the files are written; publishing renames it.
        unfinished_run: what an interrupted run of the same key left, and where this one saves its
            own checkpoints.
    """

    def __init__(self, folder: Path, unfinished_run: UnfinishedRun) -> None:
        super().__init__(folder)
        self.unfinished_run = unfinished_run
        self.facts: dict[str, object] = {}

    def provenance(self, **facts: object) -> None:
        """Record where, when and how fast the artifact was made; no fact enters key or digest."""
        self.facts.update(facts)
