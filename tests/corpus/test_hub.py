"""The hub: the real client against a stand-in on loopback, and what happens where the network ends."""

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
from tests.corpus.test_files import Notes
from tinygpt.config import DataConfig, HubSource
from tinygpt.corpus import Stories, fingerprint, hub
from tinygpt.errors import InputError, NetworkError
from tinygpt.report import SilentReport

TEXTS = [f"Story {number} of a little dog." for number in range(300)]

# Runs where `datasets` has not been imported: it reads HF_ENDPOINT once. Prints what each case gave, and how long it took.
CHILD = """
import json, sys
from tinygpt.config import DataConfig
from tinygpt.corpus import Stories, fingerprint
from tinygpt.errors import TinygptError
from tinygpt.report import SilentReport

for case in json.loads(sys.argv[1]):
    try:
        data = DataConfig(**case)
        said = {"fingerprint": fingerprint(data), "stories": list(Stories(data, SilentReport()))}
    except TinygptError as error:
        said = {"code": error.exit_code, "message": error.message, "hint": error.hint}
    print(json.dumps({**said, "datasets": "datasets" in sys.modules}))
"""


def stories_parquet(texts: list[str]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": texts, "length": [len(text) for text in texts]}), buffer, row_group_size=50)
    return buffer.getvalue()


def child(url: str, cache: str, *cases: dict[str, object]) -> list[dict[str, object]]:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps(cases)],
        env={**os.environ, "HF_ENDPOINT": url, "HF_HOME": cache}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def address(monkeypatch):
    """Points this process at an address; nothing is remembered of another."""

    def point(url: str) -> None:
        monkeypatch.setenv("HF_ENDPOINT", url)

    forget = hub.commit.cache_clear
    forget()
    yield point
    forget()


def test_the_real_client_streams_through_a_connection_that_is_cut_and_names_what_is_not_there(tmp_path):
    repos = {
        "someone/stories": {"README.md": b"# Stories\n", "data/train-00000-of-00001.parquet": stories_parquet(TEXTS)},
        "someone/nothing": {"README.md": b"# Nothing\n"},
    }
    with FakeHub(repos, cuts=1) as server:
        whole, some, split, field, empty = child(
            server.url,
            str(tmp_path),
            {"source": "someone/stories"},
            {"source": f"someone/stories@{COMMIT}", "max_stories": 7},
            {"source": "someone/stories", "split": "validation"},
            {"source": "someone/stories", "text_field": "story"},
            {"source": "someone/nothing"},
        )
        assert server.cuts == 0
        assert server.requests[0] == "GET /api/datasets/someone/stories"
        assert sum(request == server.requests[0] for request in server.requests) == 1
    assert whole["fingerprint"] == some["fingerprint"] == f"someone/stories@{COMMIT}"
    assert whole["stories"] == TEXTS
    assert some["stories"] == TEXTS[:7]
    assert (split["code"], "`validation`" in split["message"], "train" in split["message"]) == (4, True, True)
    assert field["code"] == 4
    assert field["message"].endswith("no field `story`; fields present: `text`, `length`")
    assert empty["code"] == 4


def test_no_network_is_found_out_before_datasets_is_imported(tmp_path):
    began = time.monotonic()
    (said,) = child("http://127.0.0.1:9", str(tmp_path), {"source": "someone/stories"})
    assert time.monotonic() - began < 10
    assert (said["code"], said["datasets"]) == (7, False)
    assert "--preset demo" in said["hint"]
    assert "stories.txt" in said["hint"]


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("someone/else", InputError, "has no data set `someone/else` for you"),
        ("someone/stories@nope", InputError, "no data set `someone/stories`, revision `nope`, for you"),
        ("someone/gated", InputError, r"for you \(HTTP 401\)"),
        ("someone/down", NetworkError, "answers HTTP 503"),
    ],
)
def test_what_the_hub_refuses_is_said_in_one_request(address, source, error, message):
    with FakeHub({"someone/stories": {}}, refused={"someone/gated": 401, "someone/down": 503}) as server:
        address(server.url)
        with pytest.raises(error, match=message):
            fingerprint(DataConfig(source=source))
        assert len(server.requests) == 1


def test_a_revision_is_resolved_to_its_commit_once(address):
    with FakeHub({"someone/stories": {}}) as server:
        address(server.url)
        for _ in range(2):
            assert fingerprint(DataConfig(source="someone/stories@main")) == f"someone/stories@{COMMIT}"
        assert server.requests == ["GET /api/datasets/someone/stories/revision/main"]


def test_a_whole_commit_needs_no_network_for_its_fingerprint(address):
    address("http://127.0.0.1:9")
    assert fingerprint(DataConfig(source=f"someone/stories@{COMMIT}")) == f"someone/stories@{COMMIT}"


def test_a_silent_server_is_given_up(address, monkeypatch):
    monkeypatch.setattr(hub, "ASK_SECONDS", 0.2)
    with FakeHub({}, silent="/api/") as server:
        address(server.url)
        began = time.monotonic()
        with pytest.raises(NetworkError, match=r"cannot reach http://127\.0\.0\.1"):
            fingerprint(DataConfig(source="someone/stories"))
        assert time.monotonic() - began < 5


def test_an_answer_that_is_no_hub_is_no_network(address):
    with FakeHub({"someone/stories": {}}) as server:
        server.sha = "<html>log in to this hotel</html>"
        address(server.url)
        with pytest.raises(NetworkError, match="does not answer like a hub"):
            fingerprint(DataConfig(source="someone/stories"))


@pytest.mark.parametrize("url", ["not an address", "http://127.0.0.1:99999", "http://[::1"])
def test_an_address_that_is_none_is_no_network(address, url):
    address(url)
    with pytest.raises(NetworkError):
        fingerprint(DataConfig(source="someone/stories"))


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"])
def test_a_wish_to_stay_offline_is_kept(monkeypatch, name):
    monkeypatch.setenv(name, "1")
    with pytest.raises(NetworkError, match=name):
        fingerprint(DataConfig(source="someone/stories"))


# A stream that breaks: `datasets` is played by a list of rows, some of which are errors


class Rows:
    column_names = None

    def __init__(self, rows: list[object], skipped: int = 0) -> None:
        self.rows, self.skipped = rows, skipped

    def skip(self, count: int) -> "Rows":
        return Rows(self.rows, count)

    def __iter__(self):
        for number, row in enumerate(self.rows):
            if isinstance(row, list) and row:
                raise row.pop()
            if number >= self.skipped and not isinstance(row, list):
                yield {"text": row}


@pytest.fixture
def stream(monkeypatch, address):
    def play(rows: list[object], report: SilentReport) -> list[str]:
        monkeypatch.setattr(hub, "commit", lambda source: COMMIT)
        monkeypatch.setattr(hub, "_open", lambda repo, revision, split: Rows(rows))
        return list(hub.stories(HubSource("someone/stories", None), "train", "text", report))

    return play


def test_a_broken_stream_goes_on_where_it_broke(stream):
    report = Notes()
    breaks = [[ConnectionResetError("reset"), TimeoutError("slow")], [OSError("again")]]
    assert stream(["a", "b", "c", breaks[0], breaks[1]], report) == ["a", "b", "c"]
    assert [note.split(" broke ")[1] for note in report.notes] == ["at story 4; opening it again"] * 3


def test_a_stream_that_breaks_again_and_again_is_given_up(stream):
    with pytest.raises(NetworkError, match="lost at story 2: reset"):
        stream(["a", [ConnectionResetError("reset") for _ in range(hub.TRIES + 1)]], SilentReport())


def test_errors_that_are_not_of_the_network_are_not_tried_again(stream):
    with pytest.raises(InputError, match="row 2: the field `text` holds 5, not text"):
        stream(["a", 5], SilentReport())


def test_a_hub_that_falls_silent_later_is_given_up(monkeypatch, address):
    monkeypatch.setattr(hub, "OPEN_SECONDS", 0.2)
    monkeypatch.setattr(hub, "commit", lambda source: COMMIT)
    monkeypatch.setattr(hub, "_open", lambda *_: time.sleep(5))
    with pytest.raises(NetworkError, match=r"no answer within 0.2 s"):
        list(Stories(DataConfig(source="someone/stories"), SilentReport()))
