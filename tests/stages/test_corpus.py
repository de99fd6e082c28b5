"""Stage `corpus`: the artifact it leaves, and the cases in which it leaves none."""

import json
import tracemalloc
from pathlib import Path

import pytest

from tinygpt.config import Config, DataConfig
from tinygpt.corpus import builtin, fingerprint, read_documents
from tinygpt.errors import ConfigError, InputError
from tinygpt.pipeline import STAGES, Outcome, execute
from tinygpt.progress import Reporter, SilentReporter
from tinygpt.stages import corpus
from tinygpt.store import Artifact, Store


def make(
    store: Path,
    source: Path | str,
    *,
    force: bool = False,
    reporter: Reporter | None = None,
    **data: object,
) -> Outcome:
    config = Config(data=DataConfig(source=str(source), **data))
    return execute(
        STAGES["corpus"],
        config,
        {},
        store=Store(store),
        external_digests={"data.source": fingerprint(config.data)},
        runner=corpus.run,
        reporter=reporter or SilentReporter(),
        force=force,
        lock_timeout=0,
    )


def documents_of(artifact: Artifact) -> list[str]:
    with artifact.open("documents.jsonl.gz") as stream:
        return list(read_documents(stream))


def test_the_artifact_holds_the_documents_and_describes_them(tmp_path):
    lines = '{"text": "Onc\u00e9."}\n{"text": ""}\n{"text": "Two\\nlines."}\n'
    (tmp_path / "a.jsonl").write_text(lines)
    artifact = make(tmp_path / "store", tmp_path / "a.jsonl").artifact
    assert documents_of(artifact) == ["Oncé.", "Two\nlines."]
    assert artifact.read_json("meta.json") == {
        "documents": 2,
        "bytes": 16,
        "empty": 1,
        "source": {"kind": "files", "files": 1},
    }
    assert artifact.read_json("summary.json")["rows"] == [
        ["source", "1 file"],
        ["documents", "2"],
        ["length", "shortest 5, median 5, longest 10 characters"],
        ["text", "16 bytes"],
        ["empty", "1 dropped"],
    ]
    source = str(tmp_path / "a.jsonl")
    assert artifact.manifest.provenance["source"] == source
    assert artifact.manifest.provenance["fingerprint"] == fingerprint(DataConfig(source=source))


def test_the_result_says_how_a_text_is_divided(tmp_path):
    (tmp_path / "a.txt").write_text("\n\n".join(f"Speech {n:03d}." for n in range(120)))
    artifact = make(tmp_path / "store", tmp_path / "a.txt").artifact
    assert artifact.read_json("meta.json") == {
        "documents": 120,
        "bytes": 120 * 11,
        "empty": 0,
        "unit": "paragraph",
        "source": {"kind": "files", "files": 1},
    }
    assert artifact.read_json("summary.json")["rows"] == [
        ["source", "1 file"],
        ["documents", "120"],
        ["separated", "blank lines separate documents"],
        ["length", "shortest 11, median 11, longest 11 characters"],
        ["text", "1,320 bytes"],
    ]
    as_one = make(tmp_path / "store", tmp_path / "a.txt", separator="file").artifact
    assert documents_of(as_one) == [(tmp_path / "a.txt").read_text()]


@pytest.mark.parametrize("source", ["a.jsonl", "a.csv", "a*", "builtin", f"org/name@{'0' * 40}"])
def test_a_separator_is_refused_where_every_document_is_a_record(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jsonl").write_text('{"text": "Once."}')
    (tmp_path / "a.csv").write_text("text\nOnce.\n")
    with pytest.raises(ConfigError, match="where each record is a document"):
        make(tmp_path / "store", source, separator="lines")
    assert Store(tmp_path / "store").list("corpus") == []


def test_equal_texts_give_the_same_artifact_wherever_the_files_are(tmp_path):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.txt").write_text("Once.")
    first = make(tmp_path / "store", tmp_path / "here" / "here.txt")
    second = make(tmp_path / "store", tmp_path / "there" / "there.txt")
    assert second.cached
    again = make(tmp_path / "other", tmp_path / "there" / "there.txt").artifact
    assert first.artifact.digest == again.digest


def test_numbers_of_builtin_stories_are_labeled(tmp_path):
    artifact = make(tmp_path / "store", "builtin@2", max_documents=5).artifact
    expected = {"kind": "builtin", "seed": 2, "label": builtin.LABEL}
    assert artifact.read_json("meta.json")["source"] == expected
    assert builtin.LABEL in artifact.read_json("summary.json")["rows"][0][1]
    assert documents_of(artifact) == [builtin.story(2, index) for index in range(5)]


def test_a_corpus_is_reproduced_to_the_byte(tmp_path):
    first = make(tmp_path / "store", "builtin", max_documents=50)
    again = make(tmp_path / "store", "builtin", max_documents=50, force=True)
    assert again.reproduced
    assert again.artifact.digest == first.artifact.digest


@pytest.mark.parametrize("text", ["", "\n\n  \n", "<|endoftext|>\n<|endoftext|>\n"])
def test_an_empty_corpus_is_an_input_error_and_leaves_nothing(tmp_path, text):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(InputError, match="contains no documents"):
        make(tmp_path / "store", tmp_path / "a.txt")
    assert Store(tmp_path / "store").list("corpus") == []


def test_a_source_that_changes_while_it_is_read_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("Once.")

    class Changing(SilentReporter):
        def advance(self, amount: int = 1, **figures: float) -> None:
            (tmp_path / "a.txt").write_text("Once, and once more.")

    with pytest.raises(InputError, match="changed while it was read"):
        make(tmp_path / "store", tmp_path / "a.txt", reporter=Changing())
    assert Store(tmp_path / "store").list("corpus") == []


def test_memory_does_not_grow_with_the_corpus(tmp_path):
    line = json.dumps({"text": "Once upon a time there was a dog. " * 50}) + "\n"
    peaks = []
    for count in (500, 5_000):
        path = tmp_path / f"{count}.jsonl"
        path.write_text(line * count)
        tracemalloc.start()
        make(tmp_path / "store", path, max_documents=None)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 1_000_000  # the second file is 8 MB


def test_real_stories_are_all_there(tmp_path, stories_7k):
    artifact = make(tmp_path / "store", stories_7k).artifact
    with stories_7k.open(encoding="utf-8") as lines:
        assert documents_of(artifact) == [json.loads(line)["text"] for line in lines]
