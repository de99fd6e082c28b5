"""Data sets of the Hugging Face hub, streamed: the only module of tinygpt that meets the network.

One request by the standard library comes first: it turns the revision into a commit, and tells in seconds whether there is a
network at all. Only then is `datasets` imported, whose own retries would hide that for many minutes.
"""

import functools
import http.client
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from typing import Any, TypeVar
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

from tinygpt.config.source import HubSource
from tinygpt.corpus.readers import import_datasets, reason, texts_of
from tinygpt.errors import InputError, NetworkError, TinygptError
from tinygpt.report import Report

ASK_SECONDS = 5.0
"""For the connection, and again for each silence in the answer, of the first request; three times that for all of it."""

OPEN_SECONDS = 60.0
"""For `datasets` to find the files of a data set."""

READ_SECONDS = 6
"""A silence that `huggingface_hub` takes for a lost connection; it asks six times in all, within a minute."""

TRIES = 3
"""Times in a row that a stream which broke is opened again where it broke."""

WITHOUT_NETWORK = "without a network, use `--preset demo`, or a file: `--source stories.txt`"

T = TypeVar("T")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def fingerprint(source: HubSource) -> str:
    """`org/name@commit`; a revision that is a whole commit already is not asked for.

    Raises:
        NetworkError, InputError: as commit.
    """
    whole = source.revision and _COMMIT.fullmatch(source.revision)
    return f"{source.repo}@{source.revision if whole else commit(source)}"


def stories(source: HubSource, split: str, field: str, report: Report) -> Iterator[str]:
    """The texts of a data set, in order, empty ones included.

    A connection that breaks is opened again, and what was read already is skipped: every row comes once.

    Raises:
        NetworkError: no network, or it went away for longer than a minute.
        InputError: no such data set, split or field, or no access to it.
    """
    revision = commit(source)
    read, failures = 0, 0
    heard = time.monotonic()
    while True:
        try:
            rows = _within(OPEN_SECONDS, functools.partial(_open, source.repo, revision, split))
            for text in texts_of(rows.skip(read) if read else rows, field, f"`{source.repo}`"):
                yield text
                read += 1
                failures, heard = 0, time.monotonic()
            return
        except _network_errors() as error:
            failures += 1
            if failures > TRIES or time.monotonic() - heard > OPEN_SECONDS / 2:
                raise _lost(f"the connection to {endpoint()} was lost at story {read + 1:,}", error) from error
            report.note(f"the connection to {endpoint()} broke at story {read + 1:,}; opening it again")


def endpoint() -> str:
    """The hub's address: HF_ENDPOINT, else the public one."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


@functools.cache
def commit(source: HubSource) -> str:
    """The commit a data set's revision stands for, asked once per process.

    Raises:
        NetworkError: the hub cannot be reached, or HF_HUB_OFFLINE forbids it.
        InputError: it has no such data set or revision, or does not show it to you.
    """
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE"):
            raise NetworkError(f"`{source.repo}` is on the hub, and {name} forbids to use the network", hint=WITHOUT_NETWORK)
    revision = f"/revision/{quote(source.revision, safe='')}" if source.revision else ""
    url = f"{endpoint()}/api/datasets/{quote(source.repo)}{revision}"
    try:
        answer = _within(3 * ASK_SECONDS, functools.partial(_get, url))
    except HTTPError as error:
        raise _refused(error, source) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _lost(f"cannot reach {endpoint()}", error) from error
    match answer:
        case {"sha": str(sha)} if _COMMIT.fullmatch(sha):
            return sha
    raise NetworkError(f"{endpoint()} does not answer like a hub of data sets", hint=WITHOUT_NETWORK)


def _get(url: str) -> object:
    request = Request(url, headers={"User-Agent": "tinygpt"})
    if token := os.environ.get("HF_TOKEN"):
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    with urlopen(request, timeout=ASK_SECONDS) as response:
        return json.load(response)


def _refused(error: HTTPError, source: HubSource) -> TinygptError:
    """What an HTTP status other than success means."""
    if error.code in (401, 403, 404):
        asked = f"`{source.repo}`" + (f", revision `{source.revision}`," if source.revision else "")
        hint = f"check the name; a private or gated one needs access and HF_TOKEN; a folder is written `./{source.repo}`"
        return InputError(f"{endpoint()} has no data set {asked} for you (HTTP {error.code})", hint=hint)
    return NetworkError(f"{endpoint()} answers HTTP {error.code} ({error.reason})", hint=WITHOUT_NETWORK)


def _open(repo: str, revision: str, split: str) -> Any:
    os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", str(READ_SECONDS))
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", str(READ_SECONDS))
    datasets = import_datasets()
    datasets.config.STREAMING_READ_MAX_RETRIES = 1  # huggingface_hub retries within each read, and `stories` opens again
    datasets.config.STREAMING_OPEN_MAX_RETRIES = 1
    try:
        return datasets.load_dataset(repo, split=split, streaming=True, revision=revision)
    except (FileNotFoundError, ValueError, RuntimeError, ImportError) as error:  # no stories there, no such split, a script
        message = f"cannot read the data set `{repo}`, split `{split}`: {reason(error)}"
        raise InputError(message, hint=f"its splits and files: {endpoint()}/datasets/{repo}") from error


def _network_errors() -> tuple[type[Exception], ...]:
    """What the clients raise that `datasets` uses, of those that are loaded; httpx's errors are no OSErrors."""
    clients = (sys.modules.get(name) for name in ("httpx", "httpx2"))
    return (OSError, *(client.HTTPError for client in clients if client is not None))


def _lost(message: str, error: Exception) -> NetworkError:
    cause = getattr(error, "reason", None)  # urllib's URLError wraps the error that says why
    return NetworkError(f"{message}: {reason(cause if isinstance(cause, Exception) else error)}", hint=WITHOUT_NETWORK)


def _within(seconds: float, call: Callable[[], T]) -> T:
    """The result of `call`, or TimeoutError: no library's timeout covers the look-up of a name, or all of several requests."""
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001  (raised again below)
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    if not wait([future], seconds).done:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return future.result()
