"""`tinygpt compare`."""

import json
import re
from pathlib import Path


def test_compare_lists_differences_and_draws_all_curves(project, here, tmp_path):
    one = json.loads(here("train", "--json").out)["key"][:12]
    other = here(
        "run",
        "--until",
        "train",
        "--set",
        "train.max_steps=4",
        "--set",
        "tokenizer.vocab_size=290",
        "--json",
    )
    two = json.loads(other.out)["stages"][-1]["key"][:12]
    result = here("compare", one[:7], two, "--out", tmp_path / "new", "--json")
    assert result.code == 0, result.err
    said = json.loads(result.out)
    assert list(said["runs"]) == [one, two]
    first, second = said["runs"].values()
    assert (first["train.max_steps"], second["train.max_steps"]) == (3, 4)
    assert (first["tokenizer.vocab_size"], second["tokenizer.vocab_size"]) == (300, 290)
    assert "model.d_model" not in first
    assert first["final_perplexity"] >= first["best_perplexity"] > 1
    judged = json.loads(here("eval", "--json").out)
    assert (first["bits_per_byte"], second["bits_per_byte"]) == (judged["bits_per_byte"], None)
    assert Path(said["picture"]).read_bytes().startswith(b"\x89PNG")
    assert said["picture"] == str(tmp_path / "new" / "compare.png")
    table = here("compare", one, two)
    assert re.search(r"^  train.max_steps +3 +4$", table.out, re.MULTILINE)
    assert table.out.splitlines()[-1] == str(project[0] / "artifacts" / "latest" / "compare.png")
    assert here("artifacts", "verify").code == 0
    assert here("compare", one, one[:6]).code == 2
    assert here("compare", one, "0000000").code == 3
    (tmp_path / "file").write_text("")
    assert here("compare", one, two, "--out", tmp_path / "file").code == 8
