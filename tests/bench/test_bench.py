"""The measurements run and answer with the keys that they promise; what they say is not judged here: machines are noisy."""

import json
import math

import numpy as np
import pytest

from tinygpt.bench import train
from tinygpt.bench.learn import Replacement, learn, read_data, recipe
from tinygpt.cli import invoke
from tinygpt.config import TrainConfig
from tinygpt.lm.precision import Precision
from tinygpt.report import SilentReport

RATES = ("tokens_per_second", "matrix_rate_share", "peak_rss_ratio_vs_hf")


@pytest.fixture(scope="module")
def stories(tmp_path_factory):
    """Two files of short stories, one to learn from, one held out."""
    folder = tmp_path_factory.mktemp("stories")
    for name, animal in (("train", "cat"), ("heldout", "dog")):
        lines = [json.dumps({"text": f"Once a {animal} saw {n} birds. The {animal} was happy. " * 3}) for n in range(400)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    return folder


@pytest.mark.full
def test_bench_learn_gives_one_curve_per_recipe(stories, capsys):
    assert invoke(["bench", "learn", "--data", str(stories / "train.jsonl"), "--minutes", "0.05", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert list(results) == ["reference", "nanogpt", "laptop"]
    for result in results.values():
        seconds = [point["seconds"] for point in result["curve"]]
        assert seconds == sorted(seconds)
        assert result["ppl_at_end"] == result["curve"][-1]["perplexity"]
    assert results["laptop"]["ppl_at_end"] < results["reference"]["ppl_at_end"]


@pytest.mark.full
def test_a_recipe_ends_its_schedule_within_its_time_and_tells_when_it_passed_25(stories):
    data = read_data(str(stories / "train.jsonl"), None, SilentReport())
    result = learn("laptop", data, 6.0, SilentReport())
    passed = next((point["seconds"] for point in result["curve"] if point["perplexity"] <= 25), None)
    assert passed is not None
    assert result["seconds_to_ppl_25"] == passed
    assert result["curve"][-1]["seconds"] < 12


def test_a_heldout_text_is_judged_instead_of_the_validation_split(stories):
    own = read_data(str(stories / "train.jsonl"), None, SilentReport())
    other = read_data(str(stories / "train.jsonl"), str(stories / "heldout.jsonl"), SilentReport())
    assert own.tokenizer.to_bytes() == other.tokenizer.to_bytes()
    assert np.array_equal(own.train, other.train)
    assert "cat" in own.tokenizer.decode(own.validation.tolist())
    text = other.tokenizer.decode(other.validation.tolist())
    assert "dog" in text
    assert "cat" not in text
    text_bytes = sum(len(json.loads(line)["text"].encode()) for line in (stories / "heldout.jsonl").read_text().splitlines())
    assert math.isclose(other.bytes_per_token * len(other.validation), text_bytes)


def test_nanogpt_draws_windows_with_replacement_from_seed_and_step_alone():
    tokens = np.arange(60, dtype=np.uint16)
    first, again = (Replacement(tokens, 10, 3) for _ in range(2))
    drawn = np.concatenate([first.offsets(step, 12) for step in range(50)])
    assert np.array_equal(drawn[24:36], again.offsets(2, 12))
    assert drawn.min() == 0
    assert drawn.max() == 49  # the last window ends with the last token
    assert recipe("nanogpt").train.learning_rate == 1e-3
    assert recipe("reference").train == TrainConfig()


def test_an_unknown_recipe_is_named(capsys):
    assert invoke(["bench", "learn", "--recipe", "nonogpt"]) == 2
    assert "there is no recipe `nonogpt`" in capsys.readouterr().err


@pytest.mark.parametrize(("unit", "measured"), [("bf16", True), ("fp32", False)])
def test_hugging_face_in_bf16_is_measured_only_where_a_cpu_multiplies_it(monkeypatch, unit, measured):
    monkeypatch.setattr(train, "choose_precision", lambda *_: Precision(unit, "for this test"))
    monkeypatch.setattr(train, "find_spec", lambda name: name)
    assert train.measurable("hf_bf16", train.Block()) == measured
    assert train.measurable("hf_fp32", train.Block())
    assert not train.measurable("hf_bf16", train.Block(avx2=True))


@pytest.mark.full
def test_bench_train_has_the_promised_keys(capsys):
    assert invoke(["bench", "train", "--rounds", "1", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    for block in (report, report["dropout_0_1"], report["fp32_avx2"]):
        assert {*RATES, "ratio_vs_hf_fp32", "ratio_vs_hf_bf16", "ratio_vs_plain"} <= block.keys()
        assert block["tokens_per_second"] > 0
        assert 0 < block["matrix_rate_share"] < 1
    assert report["fp32_avx2"]["precision"] == "fp32"


@pytest.mark.full
def test_bench_sample_has_the_promised_keys(capsys):
    assert invoke(["bench", "sample", "--rounds", "1", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {"ratio_vs_hf_batch_1", "ratio_vs_hf_batch_32"} <= report.keys()
    assert report["tokens_per_second_batch_1"] > 0
    assert report["first_token_ms"] > 0
