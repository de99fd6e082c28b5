"""Datasets of the Hugging Face hub, streamed: the only module of tinygpt that uses the network.

One request with the standard library comes first: it resolves the revision to a commit, and shows
within seconds whether there is a network at all. Only then is `datasets` imported, whose retries
would hide a missing network for many minutes.
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
from tinygpt.corpus.fields import column_of, reason, text_of
from tinygpt.errors import InputError, NetworkError, TinygptError
from tinygpt.progress import Reporter

ASK_SECONDS = 5.0
"""Limit of the first request for its connection, and for each silence in the answer; three times
that for all of it."""

OPEN_SECONDS = 60.0
"""Limit for `datasets` to find the files of a dataset."""

READ_SECONDS = 6
"""A silence after which `huggingface_hub` considers a connection lost. It tries six times in all,
within a minute."""

TRIES = 3
"""How many times in a row a broken stream is opened again where it broke."""

WITHOUT_NETWORK = "without a network, use `--preset demo`, or a file: `--source my.txt`"

T = TypeVar("T")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def fingerprint(source: HubSource) -> str:
    """`org/name@commit`; a revision that is a full commit already is not looked up.

    Raises:
        NetworkError, InputError: as commit.
    """
    if source.revision and _COMMIT.fullmatch(source.revision):
        return f"{source.repo}@{source.revision}"
    return f"{source.repo}@{commit(source)}"


def documents(source: HubSource, split: str, field: str, reporter: Reporter) -> Iterator[str]:
    """The texts of a dataset, in order, empty ones included.

    A connection that breaks is opened again, and the rows already read are skipped, so that every
    row comes once.

    Args:
        source: the dataset.
        split: e.g., "train".
        field: the column that holds the text.
        reporter: receives a note when a connection broke.

    Raises:
        NetworkError: there is no network, or none for longer than a minute.
        InputError: there is no such dataset, split or field, or no access to it.
    """
    revision = commit(source)
    done = 0
    failures = 0
    last_success = time.monotonic()
    while True:
        try:
            rows = _within(OPEN_SECONDS, functools.partial(_open, source.repo, revision, split))
            rest = rows.skip(done) if done else rows
            for text in _texts(rest, field, f"`{source.repo}`"):
                yield text
                done += 1
                failures = 0
                last_success = time.monotonic()
            return
        except _network_errors() as error:
            failures += 1
            silence = time.monotonic() - last_success
            if failures > TRIES or silence > OPEN_SECONDS / 2:
                raise _lost(
                    f"the connection to {endpoint()} was lost at document {done + 1:,}", error
                ) from error
            broke = f"the connection to {endpoint()} broke at document {done + 1:,}"
            reporter.note(f"{broke}; opening it again")


def endpoint() -> str:
    """The hub's address: HF_ENDPOINT, else the public one."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


@functools.cache
def commit(source: HubSource) -> str:
    """The commit that a dataset's revision stands for, looked up once per process.

    Raises:
        NetworkError: the hub cannot be reached, or HF_HUB_OFFLINE forbids it.
        InputError: it has no such dataset or revision, or does not give access to it.
    """
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE"):
            raise NetworkError(
                f"`{source.repo}` is on the hub, and {name} forbids using the network",
                hint=WITHOUT_NETWORK,
            )
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
    raise NetworkError(f"{endpoint()} does not answer like a hub of datasets", hint=WITHOUT_NETWORK)


def _get(url: str) -> object:
    request = Request(url, headers={"User-Agent": "tinygpt"})
    token = os.environ.get("HF_TOKEN")
    if token:
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    with urlopen(request, timeout=ASK_SECONDS) as response:
        return json.load(response)


def _refused(error: HTTPError, source: HubSource) -> TinygptError:
    """Our error for an HTTP status other than success."""
    if error.code not in (401, 403, 404):
        message = f"{endpoint()} answers HTTP {error.code} ({error.reason})"
        return NetworkError(message, hint=WITHOUT_NETWORK)
    wanted = f"`{source.repo}`"
    if source.revision:
        wanted += f" at revision `{source.revision}`"
    return InputError(
        f"{endpoint()} has no dataset {wanted}, or denies access to it (HTTP {error.code})",
        hint="check the name; private and gated datasets need access and HF_TOKEN; "
        f"a folder is written `./{source.repo}`",
    )


def _open(repo: str, revision: str, split: str) -> Any:
    os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", str(READ_SECONDS))
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", str(READ_SECONDS))
    datasets = _import_datasets()
    # huggingface_hub retries within each read, and `documents` opens the stream again
    datasets.config.STREAMING_READ_MAX_RETRIES = 1
    datasets.config.STREAMING_OPEN_MAX_RETRIES = 1
    try:
        return datasets.load_dataset(repo, split=split, streaming=True, revision=revision)
    # no data files, no such split, a dataset that is a script
    except (FileNotFoundError, ValueError, RuntimeError, ImportError) as error:
        raise InputError(
            f"cannot read the dataset `{repo}`, split `{split}`: {reason(error)}",
            hint=f"its splits and files: {endpoint()}/datasets/{repo}",
        ) from error


def _import_datasets() -> Any:
    """The `datasets` library without its progress bars, logs and download counts.

    It counts every use by a request to its server, unless that is switched off before it is
    imported.
    """
    os.environ["HF_UPDATE_DOWNLOAD_COUNTS"] = "0"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    import datasets
    import huggingface_hub

    datasets.disable_progress_bars()
    for library in (datasets, huggingface_hub):
        # critical messages only: every failure reaches the user as an error of our own
        library.utils.logging.set_verbosity(50)
    return datasets


def _texts(dataset: Any, field: str, name: str) -> Iterator[str]:
    """One column of a `datasets.IterableDataset` as texts."""
    rows = dataset
    columns = dataset.column_names  # None if the first row decides
    if columns:
        # `story.text` is a field of column `story`, unless a column has this very name
        column = field if field in columns else field.partition(".")[0]
        column_of(columns, column, name)
        # other columns may need a decoder (images, audio), so they are never read
        rows = dataset.select_columns([column])
    for number, row in enumerate(rows, 1):
        yield text_of(row, field, f"{name}, row {number}")


def _network_errors() -> tuple[type[Exception], ...]:
    """What the HTTP clients raise that `datasets` has loaded; httpx's errors are not OSErrors."""
    clients = (sys.modules.get(name) for name in ("httpx", "httpx2"))
    return (OSError, *(client.HTTPError for client in clients if client is not None))


def _lost(message: str, error: Exception) -> NetworkError:
    wrapped = getattr(error, "reason", None)  # urllib's URLError wraps the error that says why
    cause = wrapped if isinstance(wrapped, Exception) else error
    return NetworkError(f"{message}: {reason(cause)}", hint=WITHOUT_NETWORK)


def _within(seconds: float, call: Callable[[], T]) -> T:
    """The result of `call`.

    No library's timeout covers the look-up of a name, or all of several requests.

    Raises:
        TimeoutError: it took longer than `seconds`; it goes on in a thread that nobody waits for.
    """
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
