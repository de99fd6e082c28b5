"""The benches run and give the keys that they promise.

What they measure is not judged here: machines are noisy.
"""

import json
import math
import shutil

import numpy as np
import pytest
import torch

from benchmarks import learn, matmul, page, sample, tokenize, train, train_contenders
from benchmarks.command import run_command
from benchmarks.peers import ratios
from benchmarks.textbook import TextbookGPT
from tinygpt.config import ModelConfig, TrainConfig
from tinygpt.lm.fast.precision import Precision
from tinygpt.lm.init import init_weights
from tinygpt.lm.model import GPT
from tinygpt.progress import SilentReporter

RATES = ("tokens_per_second", "matrix_rate_share", "peak_rss_ratio_vs_hf")


@pytest.fixture(scope="module")
def stories(tmp_path_factory):
    """Two files of short stories, one to learn from, one held out."""
    folder = tmp_path_factory.mktemp("stories")
    for name, animal in (("train", "cat"), ("heldout", "dog")):
        lines = []
        for n in range(400):
            text = f"Once a {animal} saw {n} birds. The {animal} was happy. " * 3
            lines.append(json.dumps({"text": text}))
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture
def bench(capsys):
    """Runs a bench as a command; returns its exit code, the JSON that it printed, and stderr."""

    def run(module, *arguments):
        with pytest.raises(SystemExit) as stop:
            run_command(module.main, arguments)
        printed = capsys.readouterr()
        return stop.value.code, json.loads(printed.out or "null"), printed.err

    return run


class TestTextbookGPT:
    CONFIG = ModelConfig(d_model=16, n_layers=2, n_heads=2, d_ff=32, context_length=16)

    @pytest.mark.parametrize("config", [ModelConfig(), CONFIG])
    def test_it_has_as_many_parameters_as_ours(self, config):
        counts = []
        for model in (TextbookGPT(config, 300), GPT(config, 300)):
            counts.append(sum(parameter.numel() for parameter in model.parameters()))
        assert counts[0] == counts[1]

    def test_it_computes_the_same_logits_as_ours_from_the_same_weights(self):
        ours = init_weights(GPT(self.CONFIG, 300), 0)
        textbook = TextbookGPT(self.CONFIG, 300).eval()
        pairs = zip(textbook.parameters(), ours.parameters(), strict=True)
        with torch.no_grad():
            for copy, original in pairs:
                copy.copy_(10 * original)  # far from 0, so that a difference would be seen
                original.copy_(copy)
            token_ids = torch.arange(32).view(2, 16)
            expected = ours(token_ids)
            torch.testing.assert_close(textbook(token_ids), expected, rtol=0, atol=1e-3)

    def test_it_drops_out_in_training(self):
        model = TextbookGPT(self.CONFIG.model_copy(update={"dropout": 0.5}), 300)
        token_ids = torch.arange(16).view(1, 16)
        assert not torch.equal(model(token_ids), model(token_ids))


class TestBenchTrain:
    @pytest.mark.parametrize(("unit", "measured"), [("bf16", True), ("fp32", False)])
    def test_hugging_face_in_bf16_is_measured_only_where_a_cpu_multiplies_it(
        self, monkeypatch, unit, measured
    ):
        monkeypatch.setattr(
            train_contenders, "choose_precision", lambda *_: Precision(unit, "for this test")
        )
        monkeypatch.setattr(train_contenders, "find_spec", lambda name: name)
        block = train_contenders.Block
        assert train_contenders.measurable("hf_bf16", block()) == measured
        assert train_contenders.measurable("hf_fp32", block())
        assert not train_contenders.measurable("hf_bf16", block(avx2=True))

    def test_hugging_face_is_not_measured_where_it_is_not_installed(self, monkeypatch):
        monkeypatch.setattr(train_contenders, "find_spec", lambda name: None)
        assert not train_contenders.measurable("hf_fp32", train_contenders.Block())
        assert train_contenders.measurable("plain", train_contenders.Block())
        assert ratios({"tinygpt": 6.0, "plain": 2.0}, ("hf_fp32", "plain")) == {
            "ratio_vs_hf_fp32": None,
            "ratio_vs_plain": 3.0,
        }

    @pytest.mark.full
    def test_the_result_has_the_promised_keys(self, bench):
        code, result, shown = bench(train, "--rounds", "1", "--json")
        assert code == 0
        for block in (result, result["dropout_0_1"], result["fp32_avx2"]):
            promised = {*RATES, "ratio_vs_hf_fp32", "ratio_vs_hf_bf16", "ratio_vs_plain"}
            assert promised <= block.keys()
            assert block["tokens_per_second"] > 0
            assert 0 < block["matrix_rate_share"] < 1
        assert result["fp32_avx2"]["precision"] == "fp32"
        assert "the same model as a textbook PyTorch loop" in shown


class TestBenchSample:
    @pytest.mark.full
    def test_the_result_has_the_promised_keys(self, bench):
        code, result, shown = bench(sample, "--rounds", "1", "--json")
        assert code == 0
        assert {"ratio_vs_hf_batch_1", "ratio_vs_hf_batch_32"} <= result.keys()
        assert result["ratio_vs_plain_batch_1"] > 0
        assert result["tokens_per_second_batch_1"] > 0
        assert result["first_token_ms"] > 0
        assert "ms from a cold start" in shown


class TestBenchLearn:
    def test_an_unknown_recipe_is_named(self, bench):
        code, _, shown = bench(learn, "--recipe", "nonogpt")
        assert code == 2
        assert "error: there is no recipe `nonogpt`" in shown
        assert "hint: recipes: reference, nanogpt, laptop" in shown

    def test_heldout_documents_replace_the_validation_split(self, stories):
        train_file = str(stories / "train.jsonl")
        heldout_file = stories / "heldout.jsonl"
        own = learn.read_data(train_file, None, SilentReporter())
        other = learn.read_data(train_file, str(heldout_file), SilentReporter())
        assert own.tokenizer.to_bytes() == other.tokenizer.to_bytes()
        assert np.array_equal(own.train, other.train)
        assert "cat" in own.tokenizer.decode(own.validation.tolist())
        text = other.tokenizer.decode(other.validation.tolist())
        assert "dog" in text
        assert "cat" not in text
        lines = heldout_file.read_text().splitlines()
        text_bytes = sum(len(json.loads(line)["text"].encode()) for line in lines)
        assert math.isclose(other.bytes_per_token * len(other.validation), text_bytes)

    def test_nanogpt_draws_windows_with_replacement_from_seed_and_step_alone(self):
        tokens = np.arange(60, dtype=np.uint16)
        batches = learn.BatchesWithReplacement(tokens, 10, 3)
        drawn = np.concatenate([batches.offsets(step, 12) for step in range(50)])
        again = learn.BatchesWithReplacement(tokens, 10, 3)
        assert np.array_equal(drawn[24:36], again.offsets(2, 12))
        assert drawn.min() == 0
        assert drawn.max() == 49  # the last window ends with the last token

    def test_a_recipe_is_a_preset_or_nanogpt(self):
        assert learn.recipe_config("nanogpt").train.learning_rate == 1e-3
        assert learn.recipe_config("reference").train == TrainConfig()

    @pytest.mark.full
    def test_the_result_is_one_curve_for_each_recipe(self, stories, bench):
        data = str(stories / "train.jsonl")
        code, results, shown = bench(learn, "--data", data, "--minutes", "0.05", "--json")
        assert code == 0
        assert list(results) == ["reference", "nanogpt", "laptop"]
        for result in results.values():
            seconds = [point["seconds"] for point in result["curve"]]
            assert seconds == sorted(seconds)
            assert result["ppl_at_end"] == result["curve"][-1]["perplexity"]
        assert results["laptop"]["ppl_at_end"] < results["reference"]["ppl_at_end"]
        assert "bits per byte" in shown

    @pytest.mark.full
    def test_a_recipe_ends_its_schedule_within_its_time_and_says_when_it_passed_25(self, stories):
        data = learn.read_data(str(stories / "train.jsonl"), None, SilentReporter())
        result = learn.learn("laptop", data, 6.0, SilentReporter())
        passed = [point["seconds"] for point in result["curve"] if point["perplexity"] <= 25]
        assert passed
        assert result["seconds_to_ppl_25"] == passed[0]
        assert result["curve"][-1]["seconds"] < 12


class TestBenchTokenize:
    @pytest.mark.full
    def test_the_result_has_the_promised_keys(self, stories, bench):
        documents = str(stories / "train.jsonl")
        code, result, shown = bench(tokenize, documents, "--repeat", "3", "--rounds", "1", "--json")
        assert code == 0
        assert result["tokens"] > 3 * 400
        assert result["dataset_tokens_per_second"] > 0
        assert result["bare_tokens_per_second"] > 0
        assert result["ratio"] > 0
        assert result["dataset_peak_mib"] >= result["dataset_base_mib"] > 0
        assert "the bare loop" in shown


class TestBenchMatmul:
    @pytest.mark.full
    def test_the_result_has_the_promised_keys(self, bench):
        code, result, shown = bench(matmul, "--rounds", "1", "--json")
        assert code == 0
        assert result["step_ms"] > 0
        assert 0 < result["share"] < 2
        assert "of the fp32 matrix rate" in shown


@pytest.mark.full
class TestBenchPage:
    FIGURES = (
        *("file_mb", "ready_ms", "tokens_per_second", "keystroke_ms", "first_letter_ms"),
        "memory_mb",
    )

    def test_figures_are_those_promised(self, bench):
        pytest.importorskip("selenium")
        if not (shutil.which("chromium") and shutil.which("chromedriver")):
            pytest.skip("needs chromium and chromedriver (apt install chromium chromium-driver)")
        code, result, printed = bench(page, "--rounds", "1", "--json")
        assert code == 0
        assert set(self.FIGURES) <= set(result)
        assert ("node_tokens_per_second" in result) == (shutil.which("node") is not None)
        assert all(value > 0 for value in result.values())
        assert result["file_mb"] <= 6
        assert "keystroke_ms" in printed

    def test_missing_chromium_is_named(self, bench, monkeypatch):
        monkeypatch.setattr(page.shutil, "which", lambda name: None)
        code, result, printed = bench(page, "--rounds", "1")
        assert (code, result) == (2, None)
        assert "not installed" in printed
