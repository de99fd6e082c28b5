"""`tinygpt import`, and what every other command makes of an imported model."""

import json
import re
import resource
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import CONFIG, command, environment
from tests.imports.folders import CONFIG as GPT2_CONFIG
from tests.imports.folders import ENTRIES, MODEL, gpt2_folder, tokenizer_file, write_weights
from tinygpt.imports.folder import ModelFolder
from tinygpt.lm.tokenizer import ALPHABET, END_OF_TEXT

END = len(ENTRIES) - 1
TEXT = "Once upon a time there was a dog. The dog was red.\n"
TUNE = """
[data]
source = "builtin"
max_documents = 80
[train]
batch_size = 2
grad_accum_steps = 1
warmup_steps = "none"
snapshots = 0
sample_tokens = 8
precision = "fp32"
"""
"""A configuration that leaves the shape and the tokenizer to the model that it continues."""


@pytest.fixture(scope="module")
def imported(tmp_path_factory) -> tuple[Path, str]:
    """A folder with a tinygpt.toml and an imported model in its store, and the model's id."""
    folder = tmp_path_factory.mktemp("imported")
    (folder / "tinygpt.toml").write_text(f"{CONFIG}[eval]\nnum_samples = 2\n")
    (folder / "tune.toml").write_text(TUNE)
    (folder / "my.txt").write_text(TEXT)
    gpt2_folder(folder / "gpt2")
    done = command(folder, "import", "gpt2", "--json")
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)["key"][:12]


@pytest.fixture
def here(imported, tinygpt, monkeypatch):
    """tinygpt(...) in that folder."""
    monkeypatch.chdir(imported[0])
    return tinygpt


@pytest.fixture
def model(imported) -> str:
    return imported[1]


def test_import_shows_both_artifacts_and_what_to_type_next(here, model):
    result = here("import", "gpt2")
    assert result.code == 0
    assert "tokenize " in result.err
    assert f"train {model}  cached" in result.err
    assert f"id {END}" in result.err
    assert f"next: tinygpt sample --model {model}\n" in result.err
    assert f"next: tinygpt eval --model {model} --text my.txt\n" in result.err
    again = json.loads(here("import", "gpt2", "--json").out)
    assert again["cached"] is True
    assert again["stage"] == "train"


def test_errors_have_their_form_and_exit_code(here, tmp_path):
    missing = here("import", "openai-community/gpt2")
    assert missing.code == 2
    assert missing.err.startswith("error: `openai-community/gpt2` is not a folder")
    assert "hf download openai-community/gpt2" in missing.err
    gpt2_folder(tmp_path / "llama", config=lambda config: config.update(model_type="llama"))
    other = here("import", tmp_path / "llama")
    assert other.code == 4
    assert "`model_type` = 'llama'" in other.err
    assert "\nhint: " in other.err
    exact = gpt2_folder(
        tmp_path / "exact", config=lambda config: config.update(activation_function="gelu")
    )
    assert here("import", exact).code == 4
    with_flag = here("import", exact, "--tanh-gelu", "--store", tmp_path / "store")
    assert with_flag.code == 0
    assert "from the exact form" in with_flag.err
    own = here("import", json.loads(here("import", "gpt2", "--json").out)["path"])
    assert own.code == 2
    assert "needs no import" in own.err


def test_sample_continues_a_text_in_its_tokens(here, model):
    line = json.loads(here("sample", "Once", "--model", model, "--seed", "1", "--json").out)
    assert line["text"].startswith("Once")
    assert all(0 <= token_id <= END for token_id in line["token_ids"])
    assert (line["weights"], line["step"]) == ("last", 0)
    result = here("sample", "Once", "--model", model, "--seed", "1")
    assert "weights     as imported" in result.err
    assert here("sample", "--model", model, "--weights", "best", "--seed", "1").code == 2


def test_eval_reads_a_text_without_any_dataset(here, model):
    result = here("eval", "--model", model, "--text", "my.txt", "--json")
    assert result.code == 0, result.err
    record = json.loads(result.out)
    assert record["judged"] == "text"
    assert record["baselines"] == {}
    assert record["documents"] == 1
    assert "weights        as imported" in here("eval", "--model", model, "--text", "my.txt").err


@pytest.mark.full
def test_eval_and_plot_read_the_configured_text_in_its_tokens(here, model, imported):
    before = here("plot", "--model", model)
    assert before.code == 3  # as for every model, eval comes first
    assert f"`tinygpt eval --model {model}`" in before.err
    result = here("eval", "--model", model, "--json")
    assert result.code == 0, result.err
    assert "was imported: the text is that of builtin" in result.err
    record = json.loads(result.out)
    assert record["judged"] == "validation split"
    assert set(record["baselines"]) == {"uniform", "unigram", "bigram", "trigram"}
    datasets = json.loads(here("artifacts", "ls", "build-dataset", "--json").out)
    meta = json.loads((Path(datasets[0]["path"]) / "meta.json").read_text())
    assert (meta["vocab_size"], meta["end_of_text"]) == (len(ENTRIES), END)
    plotted = here("plot", "--model", model, "--out", imported[0] / "pictures")
    assert plotted.code == 0, plotted.err
    names = {path.name for path in (imported[0] / "pictures").rglob("*")}
    assert "report.html" in names
    assert "overview.png" in names
    assert not any(name.startswith("training_curves") for name in names)


@pytest.mark.full
@pytest.mark.parametrize("flag", [("--text", "Once upon"), ("--text-file", "my.txt")])
def test_plot_of_a_given_text_needs_nothing_else(here, model, tmp_path, flag):
    result = here("plot", "--model", model, *flag, "--out", tmp_path)
    assert result.code == 0, result.err
    assert "weights                   as imported" in result.err
    header = (tmp_path / "weight_distributions" / "singular_values.csv").read_text().splitlines()[0]
    assert header == "layer,matrix,index,trained"


def test_page_leaves_training_out(here, model, tmp_path):
    result = here("page", "--model", model, "--out", tmp_path / "page.html")
    assert result.code == 0, result.err
    assert f"model      {model}, as imported" in result.err
    assert '"step":0' in (tmp_path / "page.html").read_text().replace(" ", "")


def test_replay_says_why_it_cannot(here, model):
    result = here("replay", model)
    assert result.code == 2
    assert f"model {model} was imported: the steps of its training are not known" in result.err


def test_the_store_knows_it_as_imported(here, model):
    listed = here("artifacts", "ls", "train")
    assert "imported from gpt2" in listed.out
    record = json.loads(here("artifacts", "ls", "train", "--json").out)[-1]
    assert (record["key"][:12], record["imported"]) == (model, "gpt2")
    shown = here("artifacts", "show", model)
    assert "inputs.folder.digest" in shown.out
    digest = ModelFolder(Path("gpt2")).as_input().digest
    tree = here("artifacts", "lineage", model)
    lines = [line.split() for line in tree.out.splitlines()]
    assert [line[0] for line in lines] == ["train", "import", "tokenize", "import"]
    assert lines[1][-1] == digest[:12]
    assert "gone" not in tree.out
    assert here("artifacts", "verify").code == 0
    assert here("artifacts", "gc", "--dry-run").code == 0
    assert here("doctor").code == 0


def test_without_a_model_named_the_newest_is_used_and_described(here, model):
    result = here("sample", "Once", "--seed", "2")
    assert result.code == 0, result.err
    assert f"using imported model {model} (from gpt2, " in result.err


@pytest.mark.full
def test_compare_shows_it_beside_a_run_and_beside_another(here, model, tmp_path, imported):
    trained = json.loads(here("run", "--until", "train", "--json").out)["stages"][-1]["key"][:12]
    both = here("compare", model, trained, "--json", "--out", tmp_path)
    assert both.code == 0, both.err
    found = json.loads(both.out)
    assert found["runs"][model]["model.d_model"] == MODEL.d_model
    assert found["runs"][model]["train.max_steps"] is None
    assert found["runs"][trained]["final_perplexity"] > 1
    assert Path(found["picture"]).is_file()
    assert here("compare", model, trained, "--out", tmp_path).code == 0
    second = gpt2_folder(tmp_path / "other", config=lambda config: config.update(more=1))
    other = json.loads(here("import", second, "--json").out)["key"][:12]
    alike = json.loads(here("compare", model, other, "--json").out)
    assert alike["picture"] is None
    assert here("compare", model, other).out.startswith("what differs")


@pytest.mark.full
def test_training_goes_on_from_it_with_a_learning_rate_that_is_given(here, model):
    tune = ("--config", "tune.toml")
    refused = here("train", "--from", model, "--max-steps", "2", *tune)
    assert refused.code == 2
    assert f"model {model} was imported" in refused.err
    assert "`train.learning_rate` has to be set" in refused.err
    hint = refused.err.split("`")[-2]
    assert "train.optimizer=adamw" in hint
    assert "train.learning_rate=5e-5" in hint
    no_dataset = here(*shlex.split(hint)[1:])
    assert no_dataset.code == 3
    makes_it = no_dataset.err.split("`")[-2]
    assert here(*shlex.split(makes_it)[1:]).code == 0
    done = here(*shlex.split(hint)[1:])
    assert done.code == 0, done.err
    assert f"model {model} was imported: its weights go on with a fresh optimizer" in done.err
    first = float(re.search(r"step 1: validation loss ([\d.]+)", done.err)[1])
    before = json.loads(here("eval", "--model", model, "--json", *tune).out)["loss"]
    assert abs(first - before) < 0.02  # not that of random weights of another seed


def test_muon_needs_its_own_learning_rate(here, model):
    settings = ("--set", "train.optimizer=muon", "--set", "train.learning_rate=1e-4")
    refused = here("train", "--from", model, *settings)
    assert refused.code == 2
    assert "`train.muon_learning_rate` has to be set" in refused.err


def test_resuming_and_planning_do_not_stumble_over_it(here, model):
    plan = here("run", "--dry-run", "--set", "train.seed=99")
    assert plan.code == 0
    assert "to run" in plan.out
    resumed = here("train", "--resume", "--set", "train.seed=98")
    assert "Traceback" not in resumed.err


def test_a_copy_of_it_is_used_by_its_folder(here, model, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    source = Path(here("artifacts", "path", f"train/{model}").out.strip())
    for name in ("manifest.json", "config.json", "model.safetensors", "probe.safetensors"):
        (copy / name).write_bytes((source / name).read_bytes())
    (copy / "tokenizer.json").write_bytes((source / "tokenizer.json").read_bytes())
    elsewhere = ("--store", tmp_path / "store")
    assert here("sample", "--model", copy, "--seed", "1", *elsewhere).code == 0
    assert here("eval", "--model", copy, "--text", "my.txt", *elsewhere).code == 0
    refused = here("eval", "--model", copy, *elsewhere)
    assert refused.code == 3
    assert "cannot be encoded with its tokenizer" in refused.err


IMPORT = """
import resource, sys
from tinygpt.cli import invoke
for line in ("import big", "sample Hello --seed 1 --max-new-tokens 3 --json"):
    if code := invoke(line.split()):
        sys.exit(code)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.full
def test_gpt2_itself_imports_within_3_gb_and_samples(tmp_path):
    """Its shape with random weights: 124 M parameters, 50,257 entries."""
    from tinygpt.config import ModelConfig
    from tinygpt.exports.gpt2_layout import to_gpt2
    from tinygpt.lm.weights import parameter_shapes

    torch = pytest.importorskip("torch")
    folder = tmp_path / "big"
    folder.mkdir()
    shape = {"n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024, "vocab_size": 50_257}
    (folder / "config.json").write_text(json.dumps({**GPT2_CONFIG, **shape}))
    merges = [(left, right) for left in ALPHABET for right in ALPHABET][:50_000]
    entries = [*ALPHABET, *map("".join, merges), END_OF_TEXT]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_file(entries, merges)))
    config = ModelConfig(d_model=768, n_layers=12, n_heads=12, d_ff=3072, context_length=1024)
    weights = {
        name: torch.zeros(shape).normal_(std=0.02).numpy()
        for name, shape in parameter_shapes(config, 50_257).items()
    }
    tensors = {name: torch.from_numpy(array) for name, array in to_gpt2(weights).items()}
    assert sum(tensor.numel() for tensor in tensors.values()) == 124_439_808
    write_weights(folder / "model.safetensors", tensors)
    limit = 6 << 30  # of address space, most of which is never touched

    done = subprocess.run(
        [sys.executable, "-c", IMPORT],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)),
    )
    assert done.returncode == 0, done.stderr
    sample, peak = done.stdout.splitlines()
    assert len(json.loads(sample)["token_ids"]) == 3
    assert int(peak) * 1024 < 3e9
