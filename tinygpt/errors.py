"""Every error a user can cause or meet, each with the exit code of docs/design.md, section 5.

TinygptError                  1  unexpected failure
├── LostProcessError          1  another process of a torchrun job has ended
├── UsageError                2  wrong flag or argument
│   └── ConfigError           2  wrong key or value in a configuration
├── ArtifactError             3  an artifact cannot be used
│   ├── MissingArtifactError  3  an artifact is not in the store
│   └── CorruptArtifactError  3  stored bytes do not match their hash
├── InputError                4  documents, text or tokenizer cannot be used
├── DivergedError             5  a loss, gradient or weight is NaN or infinite, or absurd
├── VerificationError         6  `replay`, `artifacts verify`, `doctor` or an export differs
├── NetworkError              7  the network is needed and not available
├── StorageError              8  disk full, read-only, or I/O error
├── BusyError                 9  another process holds the lock
├── StoppedEarly             75  `--max-minutes` or `--stop-at-step` reached; resumable
└── Interrupted     129/130/143  SIGHUP, SIGINT or SIGTERM; a training run has saved a checkpoint
"""

import errno
import os
import signal
from pathlib import Path


class TinygptError(Exception):
    """What is wrong, with the values, and what to do about it.

    Args:
        message: one sentence in lower case, without a final period; backticks round commands, paths
            and keys.
        hint: what to type or change; None where there is nothing to advise.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class LostProcessError(TinygptError):
    """Another process of the same torchrun job has ended."""


class UsageError(TinygptError):
    """A wrong flag or argument."""

    exit_code = 2


class ConfigError(UsageError):
    """A wrong key or value in a configuration."""


class PageError(ConfigError):
    """A model that a page of the configured format cannot hold, or would compute wrongly."""


class ArtifactError(TinygptError):
    """An artifact cannot be used."""

    exit_code = 3


class MissingArtifactError(ArtifactError):
    """An artifact is not in the store, e.g., because the stage that makes it has not run."""


class CorruptArtifactError(ArtifactError):
    """Stored bytes do not match the hash recorded for them."""


class InputError(TinygptError):
    """Documents, text or a tokenizer cannot be used."""

    exit_code = 4


class DivergedError(TinygptError):
    """A loss, a gradient or a weight is NaN, infinite or absurd; nothing of it is saved.

    Attributes:
        step: the last whole one; 0 if there was none.
        last_loss: the training loss of that step [nats per token].
    """

    exit_code = 5
    step = 0
    last_loss: float | None = None


class VerificationError(TinygptError):
    """A check that the user asked for found a difference."""

    exit_code = 6


class NetworkError(TinygptError):
    """The network is needed and not available."""

    exit_code = 7


class StorageError(TinygptError):
    """The disk is full, read-only or failing."""

    exit_code = 8

    @classmethod
    def refused(cls, error: OSError, path: Path | str) -> "StorageError":
        """The error for an operation on `path` that the operating system refused with `error`."""
        reason = os.strerror(error.errno) if error.errno else str(error)
        hint = "check the disk and the permissions, or choose another store with `--store DIR`"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "free some space, e.g., with `tinygpt artifacts gc`, or use `--store DIR`"
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            hint = (
                "check the permissions, or choose another store with `--store DIR`; "
                "there, `--model FOLDER` can name a model of this one"
            )
        return cls(f"cannot use `{path}`: {reason.lower()}", hint=hint)


class BusyError(TinygptError):
    """Another process holds the lock and did not release it in time."""

    exit_code = 9


class StoppedEarly(TinygptError):
    """The run reached `--max-minutes` or `--stop-at-step`, and can be resumed."""

    exit_code = 75


class Interrupted(TinygptError):
    """A signal stopped the command; finished work is saved.

    Args:
        number: the signal: SIGHUP, SIGINT or SIGTERM; the exit code is 128 plus it.
    """

    def __init__(
        self, message: str, hint: str | None = None, *, number: int = signal.SIGINT
    ) -> None:
        super().__init__(message, hint)
        self.exit_code = 128 + number
