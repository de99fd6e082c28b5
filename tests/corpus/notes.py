"""A reporter for tests that check what is noted."""

from tinygpt.progress import SilentReporter


class Notes(SilentReporter):
    """Keeps every note.

    Attributes:
        notes: the notes so far.
    """

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)
