"""Each exit code of docs/design.md, section 5, with a command that ends in it."""

import inspect
import re
import signal
from collections.abc import Callable

import pytest

from tests.cli.conftest import CONFIG, Result
from tests.cli.test_streams import shell
from tinygpt import errors
from tinygpt.store import Store

TYPED = {
    0: "tokenize",
    2: "train --lr 1",
    3: "artifacts show 00000000",
    4: "tokenize --source nosuch.txt",
    5: "train --set train.learning_rate=1e30",
    7: "tokenize --source org/name",
    8: "tokenize --store tinygpt.toml",
    75: "train --stop-at-step 1",
}
FROM_SIGNALS = {signal.SIGHUP: 129, signal.SIGINT: 130, signal.SIGTERM: 143}


@pytest.fixture
def prepared(tinygpt, tmp_path) -> Callable[..., Result]:
    """tinygpt(...) in a folder with a dataset."""
    (tmp_path / "tinygpt.toml").write_text(CONFIG)
    assert tinygpt("run", "--until", "build-dataset").code == 0
    return tinygpt


def test_each_code_has_a_command_that_ends_in_it(prepared):
    for code, command in TYPED.items():
        result = prepared(*command.split())
        assert result.code == code, f"{command}: {result.err}"
        assert ("\n\nhint: " in result.err) == (code != 0), command


def test_1_is_for_what_nobody_has_foreseen(prepared, monkeypatch):
    monkeypatch.setattr("tinygpt.stages.train.run", lambda *_, **__: 1 / 0)
    result = prepared("train")
    assert result.code == 1
    assert "error: unexpected ZeroDivisionError: division by zero" in result.err


def test_6_is_for_a_difference(prepared, tmp_path):
    (corpus,) = Store(tmp_path / "artifacts").list("corpus")
    path = corpus.path("meta.json")
    path.chmod(0o644)
    path.write_bytes(path.read_bytes() + b" ")
    assert prepared("artifacts", "verify").code == 6


def test_9_is_for_a_lock_that_another_process_holds(prepared, tmp_path):
    store = Store(tmp_path / "artifacts")
    (corpus,) = store.list("corpus")
    corpus_again = ["run", "--until", "corpus", "--force", "--set", "runtime.lock_timeout=0"]
    assert prepared(*corpus_again).code == 0
    with store.lock("corpus", corpus.key, timeout=0, on_wait=print):
        assert prepared(*corpus_again).code == 9


@pytest.mark.parametrize("number", FROM_SIGNALS)
def test_a_signal_gives_128_and_its_number(prepared, monkeypatch, number):
    monkeypatch.setattr("tinygpt.stages.train.run", lambda *_, **__: signal.raise_signal(number))
    result = prepared("train")
    assert result.code == FROM_SIGNALS[number]
    assert f"stopped by {number.name}" in result.err
    assert "`tinygpt train` continues" in result.err


def test_141_is_for_a_reader_that_has_gone(tmp_path):
    done = shell(tmp_path, "tinygpt config show --preset demo | true; echo ${PIPESTATUS[0]}")
    assert (done.stdout, done.stderr) == ("141\n", "")


def test_the_tables_of_exit_codes_agree(root):
    section = (root / "docs" / "design.md").read_text().partition("## 5. Errors")[2]
    rows = re.findall(r"^\| ([\d, ]+) \| \S", section, re.MULTILINE)
    documented = {int(code) for row in rows for code in row.split(",")}
    listed = set(re.findall(r"\b\d+\b", "\n".join(re.findall(r"  [\d/]+  ", str(errors.__doc__)))))
    classes = [value for _, value in inspect.getmembers(errors, inspect.isclass)]
    raised = {value.exit_code for value in classes if hasattr(value, "exit_code")}
    assert documented == {*TYPED, 1, 6, 9, 141, *FROM_SIGNALS.values()}
    assert {int(code) for code in listed} == documented - {0, 141}
    assert raised <= documented
