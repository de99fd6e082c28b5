"""Standard input, output and error that are missing, or that cannot be written."""

import os
import sys

from tinygpt import ui


def replace_missing() -> None:
    """Put the null device in the place of every standard stream that is closed.

    Otherwise the next file to be opened would get its number, and what a library prints.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            free = os.open(os.devnull, os.O_RDWR)  # the lowest free number is that of the stream
            setattr(sys, name, os.fdopen(free, mode))


def drop_unwritten() -> None:
    """Send what an output stream refuses to the null device, so that Python can end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            ui.silence(stream)
