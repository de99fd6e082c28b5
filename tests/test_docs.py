"""The documents say what the program says, and point to what is there."""

import importlib.util
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT

spec = importlib.util.spec_from_file_location("tinygpt_docs", ROOT / ".ci" / "docs.py")
assert spec
assert spec.loader
docs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(docs)

DOCUMENTS = docs.documents()
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)|<img[^>]*\ssrc=\"([^\"]+)\"")
MACHINE_PATH = re.compile(r"(?<![\w.~/:-])/(home|root|work|Users|tmp|mnt|data)/\w")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
class TestEveryDocument:
    def test_generated_blocks_are_what_the_program_says_now(self, path):
        text = path.read_text(encoding="utf-8")
        assert docs.generated(text) == text, "run `make docs`"

    def test_relative_links_lead_to_a_file_and_a_heading(self, path):
        text = path.read_text(encoding="utf-8")
        for match in LINK.finditer(text):
            target, _, anchor = (match[1] or match[2]).partition("#")
            if re.match(r"[a-z]+:", target):
                continue
            file = (path.parent / target).resolve() if target else path
            assert file.exists(), f"{path.name} points to {target}"
            assert file.is_relative_to(ROOT), f"{path.name} points out of the repository: {target}"
            if anchor and file.suffix == ".md":
                assert anchor in headings(file.read_text(encoding="utf-8")), f"{path.name} points to {target}#{anchor}"

    def test_no_path_of_somebodys_machine(self, path):
        assert not MACHINE_PATH.search(path.read_text(encoding="utf-8"))


def headings(text: str) -> set[str]:
    """The anchors that GitHub gives the headings of a document."""
    found = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in found}


def test_the_readme_shows_the_help_and_every_key():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "<!-- help:start -->" in text
    assert "<!-- help:start run -->" in text
    assert "<!-- config:start -->" in text


def test_a_document_that_disagrees_is_found_and_rewritten(monkeypatch, tmp_path):
    (tmp_path / "README.md").write_text("a\n<!-- config:start -->\n~stale~\n<!-- config:end -->\nb\n")
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "README.md").touch()
    (tmp_path / "tinygpt" / "presets").mkdir(parents=True)
    monkeypatch.setattr(docs, "ROOT", tmp_path)
    docs.main()
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "~stale~" not in text
    assert (tmp_path / "tinygpt.toml").read_bytes() == (ROOT / "tinygpt.toml").read_bytes()
    assert "| `max_steps` | `10000` |" in text
    assert text.startswith("a\n")
    assert text.endswith("\nb\n")


@pytest.mark.parametrize("bad", ["[a](nothing.md)", "[a](../README.md#nothing)", "[a](../../elsewhere.md)"])
def test_a_bad_link_is_found(bad, monkeypatch):
    path = ROOT / "docs" / "imagined.md"
    monkeypatch.setattr(type(path), "read_text", lambda self, encoding: bad if self == path else "# a")
    with pytest.raises(AssertionError):
        TestEveryDocument().test_relative_links_lead_to_a_file_and_a_heading(path)


def test_a_path_of_somebodys_machine_is_told_from_a_link():
    assert MACHINE_PATH.search("wrote /home/ada/x")
    assert not MACHINE_PATH.search("https://example.org/home/ada ../work/x a/tmp/b /dev/null")


def test_python_m_tinygpt_prints_the_documented_help():
    command = [sys.executable, "-m", "tinygpt", "--help"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert "Usage:" in result.stdout
