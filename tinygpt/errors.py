"""Every error a user can cause or meet, each with the exit code of docs/design.md, section 5.

TinygptError                  1  unexpected failure
├── UsageError                2  wrong flag or argument
│   └── ConfigError           2  wrong key or value in a configuration
├── ArtifactError             3  what the store holds cannot be used
│   ├── MissingArtifactError  3  a stage before this one has not run
│   └── CorruptArtifactError  3  bytes differ from their hash
├── InputError                4  stories, text or tokenizer unusable
├── DivergedError             5  the loss or a gradient is NaN or infinite
├── VerificationError         6  `replay`, `artifacts verify` or `doctor` found a difference
├── NetworkError              7  the network is needed and not there
├── StorageError              8  disk full, read-only, I/O error
├── BusyError                 9  another process holds the lock
├── StoppedEarly             75  `--max-minutes` or `--stop-at-step` reached; resumable
└── Interrupted         130/143  SIGINT or SIGTERM; a checkpoint was saved
"""

import errno
import os
import signal
from pathlib import Path


class TinygptError(Exception):
    """What is wrong, with the values, and what to do about it.

    Args:
        message: one sentence, lower case, no final period, back-ticks round commands, paths and keys.
        hint: what to type or change; None where there is nothing to advise.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(TinygptError):
    """A wrong flag or argument."""

    exit_code = 2


class ConfigError(UsageError):
    """A wrong key or value in a configuration."""


class ArtifactError(TinygptError):
    """What the store holds cannot be used."""

    exit_code = 3


class MissingArtifactError(ArtifactError):
    """A stage before this one has not run."""


class CorruptArtifactError(ArtifactError):
    """Stored bytes differ from the hash recorded for them."""


class InputError(TinygptError):
    """Stories, text or a tokenizer that cannot be used."""

    exit_code = 4


class DivergedError(TinygptError):
    """Training met a NaN or an infinity and stopped before the update."""

    exit_code = 5


class VerificationError(TinygptError):
    """A check that the user asked for found a difference."""

    exit_code = 6


class NetworkError(TinygptError):
    """The network is needed and not there."""

    exit_code = 7


class StorageError(TinygptError):
    """The disk is full, read-only or failing."""

    exit_code = 8

    @classmethod
    def refused(cls, error: OSError, path: Path | str) -> "StorageError":
        """The one sentence for what the operating system refused to do with `path`, and what to do about it."""
        why = os.strerror(error.errno) if error.errno else str(error)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        first = "free some space, e.g., with `tinygpt artifacts gc`," if full else "check the disk and the permissions,"
        return cls(f"cannot use `{path}`: {why.lower()}", hint=f"{first} or choose another store with `--store DIR`")


class BusyError(TinygptError):
    """Another process holds the lock and did not release it in time."""

    exit_code = 9


class StoppedEarly(TinygptError):
    """`--max-minutes` or `--stop-at-step` reached; the run can be continued."""

    exit_code = 75


class Interrupted(TinygptError):
    """A signal arrived; what was finished is saved.

    Args:
        number: the signal, SIGINT or SIGTERM; the exit code is 128 plus it.
    """

    def __init__(self, message: str, hint: str | None = None, *, number: int = signal.SIGINT) -> None:
        super().__init__(message, hint)
        self.exit_code = 128 + number
