"""The hub: the real client against a stand-in on loopback, and behavior where the network ends."""

import io
import json
import os
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.corpus.fake_hub import COMMIT, FakeHub
from tests.corpus.notes import Notes
from tinygpt.config import DataConfig, HubSource
from tinygpt.corpus import Documents, fingerprint, hub
from tinygpt.errors import InputError, NetworkError
from tinygpt.progress import Reporter, SilentReporter

NO_SERVER = "http://127.0.0.1:9"
"""An address that refuses connections at once."""

TEXTS = [f"Story {number} of a little dog." for number in range(300)]

# Runs in a new process, because `datasets` reads HF_ENDPOINT once. Prints the outcome of each case.
CHILD = """
import json, sys
from tinygpt.config import DataConfig
from tinygpt.corpus import Documents, fingerprint
from tinygpt.errors import TinygptError
from tinygpt.progress import SilentReporter

for case in json.loads(sys.argv[1]):
    try:
        data = DataConfig(**case)
        outcome = {"fingerprint": fingerprint(data)}
        outcome["documents"] = list(Documents(data, SilentReporter()))
    except TinygptError as error:
        outcome = {"code": error.exit_code, "message": error.message, "hint": error.hint}
    print(json.dumps({**outcome, "datasets": "datasets" in sys.modules}))
"""


def parquet_of(texts: list[str]) -> bytes:
    table = pa.table({"text": texts, "length": [len(text) for text in texts]})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=50)
    return buffer.getvalue()


def nested_parquet_of(texts: list[str]) -> bytes:
    """Texts as a field of a struct, in bytes."""
    buffer = io.BytesIO()
    rows = [{"text": text.encode(), "length": len(text)} for text in texts]
    pq.write_table(pa.table({"id": range(len(texts)), "story": rows}), buffer)
    return buffer.getvalue()


def outcomes(url: str, cache: str, *cases: dict[str, object]) -> list[dict[str, object]]:
    """What reading each of several [data] tables from a hub at `url` gave."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps(cases)],
        env={**os.environ, "HF_ENDPOINT": url, "HF_HOME": cache},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def address(monkeypatch):
    """Points this process at an address; commits that another one gave are forgotten."""

    def point(url: str) -> None:
        monkeypatch.setenv("HF_ENDPOINT", url)

    forget = hub.commit.cache_clear
    forget()
    yield point
    forget()


# The real client


def test_the_real_client_reads_everything_through_a_connection_that_is_cut(tmp_path):
    repos = {
        "someone/stories": {
            "README.md": b"# Stories\n",
            "data/train-00000-of-00001.parquet": parquet_of(TEXTS),
        }
    }
    with FakeHub(repos, cuts=1) as server:
        whole, some = outcomes(
            server.url,
            str(tmp_path),
            {"source": "someone/stories"},
            {"source": f"someone/stories@{COMMIT}", "max_documents": 7},
        )
        assert server.cuts == 0
        assert server.requests[0] == "GET /api/datasets/someone/stories"
        assert server.requests.count(server.requests[0]) == 1
    assert whole["fingerprint"] == f"someone/stories@{COMMIT}"
    assert whole["documents"] == TEXTS
    assert some["fingerprint"] == f"someone/stories@{COMMIT}"
    assert some["documents"] == TEXTS[:7]


def test_the_real_client_reads_a_nested_field_and_names_what_does_not_exist(tmp_path):
    repos = {
        "someone/stories": {"data/train-00000-of-00001.parquet": parquet_of(TEXTS)},
        "someone/nested": {"data/train-00000-of-00001.parquet": nested_parquet_of(TEXTS)},
        "someone/nothing": {"README.md": b"# Nothing\n"},
    }
    with FakeHub(repos) as server:
        split, field, nested, empty = outcomes(
            server.url,
            str(tmp_path),
            {"source": "someone/stories", "split": "validation"},
            {"source": "someone/stories", "text_field": "story"},
            {"source": "someone/nested", "text_field": "story.text"},
            {"source": "someone/nothing"},
        )
        assert server.requests.count("GET /api/datasets/someone/stories") == 1
    assert split["code"] == 4
    assert "`validation`" in split["message"]
    assert "train" in split["message"]
    assert field["code"] == 4
    assert field["message"].endswith("no field `story`; fields present: `text`, `length`")
    assert nested["documents"] == TEXTS
    assert empty["code"] == 4


def test_a_missing_network_is_found_out_before_datasets_is_imported(tmp_path):
    began = time.monotonic()
    (outcome,) = outcomes(NO_SERVER, str(tmp_path), {"source": "someone/stories"})
    assert time.monotonic() - began < 10
    assert outcome["code"] == 7
    assert outcome["datasets"] is False
    assert "--preset demo" in outcome["hint"]
    assert "my.txt" in outcome["hint"]


# The first request


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("someone/else", InputError, r"has no dataset `someone/else`, or denies access to it"),
        ("someone/stories@nope", InputError, r"`someone/stories` at revision `nope`, or denies"),
        ("someone/gated", InputError, r"denies access to it \(HTTP 401\)"),
        ("someone/down", NetworkError, r"answers HTTP 503"),
    ],
)
def test_a_refusal_of_the_hub_is_reported_after_one_request(address, source, error, message):
    refused = {"someone/gated": 401, "someone/down": 503}
    with FakeHub({"someone/stories": {}}, refused=refused) as server:
        address(server.url)
        with pytest.raises(error, match=message):
            fingerprint(DataConfig(source=source))
        assert len(server.requests) == 1


def test_a_revision_is_resolved_to_its_commit_once(address):
    data = DataConfig(source="someone/stories@main")
    with FakeHub({"someone/stories": {}}) as server:
        address(server.url)
        for _ in range(2):
            assert fingerprint(data) == f"someone/stories@{COMMIT}"
        assert server.requests == ["GET /api/datasets/someone/stories/revision/main"]


def test_the_fingerprint_of_a_full_commit_needs_no_network(address):
    address(NO_SERVER)
    source = f"someone/stories@{COMMIT}"
    assert fingerprint(DataConfig(source=source)) == source


def test_a_silent_server_is_given_up(address, monkeypatch):
    monkeypatch.setattr(hub, "ASK_SECONDS", 0.2)
    with FakeHub({}, silent="/api/") as server:
        address(server.url)
        began = time.monotonic()
        with pytest.raises(NetworkError, match=r"cannot reach http://127\.0\.0\.1"):
            fingerprint(DataConfig(source="someone/stories"))
        assert time.monotonic() - began < 5


def test_a_server_that_does_not_answer_like_a_hub_is_a_network_error(address):
    with FakeHub({"someone/stories": {}}) as server:
        server.sha = "<html>log in to this hotel</html>"
        address(server.url)
        with pytest.raises(NetworkError, match="does not answer like a hub"):
            fingerprint(DataConfig(source="someone/stories"))


@pytest.mark.parametrize("url", ["not an address", "http://127.0.0.1:99999", "http://[::1"])
def test_a_malformed_address_is_a_network_error(address, url):
    address(url)
    with pytest.raises(NetworkError):
        fingerprint(DataConfig(source="someone/stories"))


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"])
def test_a_variable_that_forbids_the_network_is_respected(monkeypatch, name):
    monkeypatch.setenv(name, "1")
    with pytest.raises(NetworkError, match=name):
        fingerprint(DataConfig(source="someone/stories"))


# Streams that break


class Rows:
    """Plays a dataset of `datasets`.

    Args:
        rows: what it holds; a list among the rows stands for a place where the stream breaks, once
            with each of its errors.
        skipped: rows at the start that are not given.
    """

    column_names = None

    def __init__(self, rows: list[object], skipped: int = 0) -> None:
        self.rows = rows
        self.skipped = skipped

    def skip(self, count: int) -> "Rows":
        return Rows(self.rows, count)

    def __iter__(self):
        for number, row in enumerate(self.rows):
            if isinstance(row, list):
                if row:
                    raise row.pop()
            elif number >= self.skipped:
                yield {"text": row}


@pytest.fixture
def stream(monkeypatch, address):
    """Reads the documents of a dataset that Rows plays."""

    def play(rows: list[object], reporter: Reporter) -> list[str]:
        monkeypatch.setattr(hub, "commit", lambda source: COMMIT)
        monkeypatch.setattr(hub, "_open", lambda repo, revision, split: Rows(rows))
        return list(hub.documents(HubSource("someone/stories", None), "train", "text", reporter))

    return play


def test_a_broken_stream_goes_on_where_it_broke(stream):
    reporter = Notes()
    breaks = [ConnectionResetError("reset"), TimeoutError("slow")]
    more_breaks = [OSError("again")]
    assert stream(["a", "b", "c", breaks, more_breaks], reporter) == ["a", "b", "c"]
    assert len(reporter.notes) == 3
    for note in reporter.notes:
        assert note.endswith(" broke at document 4; opening it again")


def test_a_stream_that_breaks_again_and_again_is_given_up(stream):
    breaks = [ConnectionResetError("reset") for _ in range(hub.TRIES + 1)]
    with pytest.raises(NetworkError, match="lost at document 2: reset"):
        stream(["a", breaks], SilentReporter())


def test_errors_that_do_not_come_from_the_network_are_not_tried_again(stream):
    reporter = Notes()
    with pytest.raises(InputError, match="row 2: the field `text` holds 5, not text"):
        stream(["a", 5], reporter)
    assert reporter.notes == []


def test_a_hub_that_falls_silent_later_is_given_up(monkeypatch, address):
    monkeypatch.setattr(hub, "OPEN_SECONDS", 0.2)
    monkeypatch.setattr(hub, "commit", lambda source: COMMIT)
    monkeypatch.setattr(hub, "_open", lambda *_: time.sleep(5))
    with pytest.raises(NetworkError, match=r"no answer within 0.2 s"):
        list(Documents(DataConfig(source="someone/stories"), SilentReporter()))
