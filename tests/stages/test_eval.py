"""Stage `eval`: the numbers of lm.evaluation and analysis, named and stored."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from tests.helpers import (
    STORIES,
    WORSENING,
    Inputs,
    prepare,
    run_stage,
    run_training,
    with_settings,
)
from tinygpt.analysis.generation_metrics import generation_metrics
from tinygpt.analysis.ngrams import ngram_losses
from tinygpt.config import Config
from tinygpt.config.tables import EvalConfig
from tinygpt.errors import ConfigError, InputError
from tinygpt.lm import weights
from tinygpt.lm.dataset import document_spans
from tinygpt.lm.evaluation import mean_loss
from tinygpt.lm.init import init_weights
from tinygpt.lm.model import GPT
from tinygpt.lm.tokenizer import Tokenizer
from tinygpt.stages import eval as stage
from tinygpt.stages.eval import encode, generation_quality
from tinygpt.store import Artifact, Store

Trained = tuple[Store, Inputs]
LABEL = "template stories, not comparable"
BASELINES = {"uniform", "unigram", "bigram", "trigram", "untrained"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_config: Config) -> Trained:
    store, inputs = prepare(tmp_path_factory.mktemp("store"), tiny_config, label=LABEL)
    train = run_training(store, inputs, tiny_config).artifact
    return store, {**inputs, "train": train}


def evaluate(trained: Trained, config: Config, **settings: object) -> Artifact:
    store, inputs = trained
    return run_stage(
        store, "eval", with_settings(config, eval=settings), inputs, stage.run
    ).artifact


def tokens_of(inputs: Inputs, split: str) -> np.ndarray:
    return np.frombuffer(inputs["build-dataset"].read(f"{split}.bin"), "<u2")


def tokenizer_of(inputs: Inputs) -> Tokenizer:
    return Tokenizer.from_bytes(inputs["tokenize"].read("tokenizer.json"))


def test_eval_json_holds_scores_and_baselines(trained: Trained, tiny_config: Config) -> None:
    _, inputs = trained
    evaluation = evaluate(trained, tiny_config).read_json("eval.json")
    tokens = tokens_of(inputs, "val")
    train = inputs["train"]
    model = weights.read_model(train.read("config.json"), train.read("model.safetensors"))
    loss = mean_loss(model, tokens)
    size = inputs["build-dataset"].read_json("meta.json")["val"]
    assert evaluation["loss"] == loss
    assert evaluation["perplexity"] == pytest.approx(math.exp(loss))
    bits = loss * evaluation["tokens"] / math.log(2)
    assert evaluation["bits_per_byte"] == pytest.approx(bits / evaluation["bytes"])
    assert evaluation["tokens"] == size["tokens"] - 1
    # The first token is not predicted
    assert size["bytes"] - 10 < evaluation["bytes"] < size["bytes"]
    assert evaluation["documents"] == size["documents"]
    assert evaluation["standard_error"] > 0
    assert evaluation["judged"] == "validation split"
    assert evaluation["step"] == 4
    assert evaluation["label"] == LABEL
    baselines = evaluation["baselines"]
    assert set(baselines) == BASELINES
    assert baselines["uniform"]["perplexity"] == pytest.approx(model.vocab_size)
    untrained = init_weights(GPT(tiny_config.model, model.vocab_size), tiny_config.train.seed)
    assert baselines["untrained"]["loss"] == mean_loss(untrained, tokens)
    assert baselines["trigram"]["loss"] < baselines["unigram"]["loss"]


def test_the_last_evaluation_of_training_has_the_same_loss(
    trained: Trained, tiny_config: Config
) -> None:
    _, inputs = trained
    rows = inputs["train"].read_rows("metrics.jsonl")
    last = [row for row in rows if row["kind"] == "eval"][-1]
    evaluation = evaluate(trained, tiny_config, baselines=False).read_json("eval.json")
    assert evaluation["loss"] == last["val_loss"]


@pytest.fixture(scope="module")
def worsening(tmp_path_factory: pytest.TempPathFactory, tiny_config: Config) -> Trained:
    """A run whose last weights are worse than its best."""
    config = with_settings(tiny_config, train=WORSENING)
    store, inputs = prepare(tmp_path_factory.mktemp("worsening"), config)
    return store, {**inputs, "train": run_training(store, inputs, config).artifact}


@pytest.mark.parametrize("which", ["auto", "best", "last"])
def test_documents_are_those_of_the_last_weights_whichever_are_evaluated(
    worsening: Trained, tiny_config: Config, which: str
) -> None:
    artifact = evaluate(worsening, tiny_config, weights=which, baselines=False, num_samples=None)
    rows = artifact.read_rows("documents.jsonl")
    last = [row for row in worsening[1]["train"].read_rows("metrics.jsonl") if "best" in row][-1]
    size = worsening[1]["build-dataset"].read_json("meta.json")["val"]
    tokens = sum(row["tokens"] for row in rows)
    assert tokens == size["tokens"] - 1
    assert sum(row["nats"] for row in rows) / tokens == pytest.approx(last["val_loss"])
    evaluation = artifact.read_json("eval.json")
    assert sum(row["bytes"] for row in rows) == evaluation["bytes"]
    assert len({row["document"] for row in rows}) == evaluation["documents"]
    assert (evaluation["loss"] == pytest.approx(last["val_loss"])) == (which == "last")


@pytest.mark.parametrize(("which", "expected"), [("auto", "best"), ("best", "best"), ("last",) * 2])
def test_best_and_last_weights_are_both_evaluated(
    worsening: Trained, tiny_config: Config, which: str, expected: str
) -> None:
    artifact = evaluate(worsening, tiny_config, weights=which, baselines=False, num_samples=None)
    rows = [row for row in worsening[1]["train"].read_rows("metrics.jsonl") if "best" in row]
    best = min(rows, key=lambda row: row["val_loss"])
    losses = {"best": (best["step"], best["val_loss"]), "last": (12, rows[-1]["val_loss"])}
    evaluation = artifact.read_json("eval.json")
    other = evaluation["other_weights"]
    assert evaluation["weights"] == expected
    assert {evaluation["weights"], other["weights"]} == {"best", "last"}
    for score in (evaluation, other):
        assert (score["step"], score["loss"]) == losses[score["weights"]]
    bits = other["loss"] * evaluation["tokens"] / math.log(2)
    assert other["bits_per_byte"] == pytest.approx(bits / evaluation["bytes"])
    table = dict(artifact.read_json("summary.json")["rows"])
    chosen = "chosen on this split"
    assert (chosen in table["weights"]) == (expected == "best")
    (label,) = {"best weights", "last weights"} & set(table)
    assert (chosen in table[label]) == (expected == "last")


def test_the_best_weights_were_not_chosen_on_a_text_that_is_given(
    worsening: Trained, tiny_config: Config, tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("Tom saw a cat. Tom was sad.")
    artifact = evaluate(worsening, tiny_config, text=str(text), num_samples=None)
    table = dict(artifact.read_json("summary.json")["rows"])
    assert table["weights"].endswith("chosen on the validation split")


def test_weights_that_are_best_and_last_are_evaluated_once(
    trained: Trained, tiny_config: Config
) -> None:
    artifact = evaluate(trained, tiny_config, baselines=False, num_samples=None)
    assert artifact.read_json("eval.json")["other_weights"] is None
    table = dict(artifact.read_json("summary.json")["rows"])
    assert table["weights"] == "last, of step 4"
    assert not {"best weights", "last weights"} & set(table)


def test_the_summary_names_the_evaluated_text_the_baselines_and_the_label(
    trained: Trained, tiny_config: Config
) -> None:
    rows = dict(evaluate(trained, tiny_config).read_json("summary.json")["rows"])
    assert rows["evaluated on"].startswith("validation split: ")
    assert "standard error" in rows["loss"]
    expected = {"perplexity", "bits per byte", "perplexity of trigram", "perplexity of untrained"}
    assert expected <= set(rows)
    assert rows["note"] == LABEL


def test_the_test_split_is_evaluated_with_its_own_baselines_and_documents(
    tmp_path: Path, tiny_config: Config
) -> None:
    config = with_settings(tiny_config, dataset={"val_fraction": 0.1, "test_fraction": 0.2})
    store, inputs = prepare(tmp_path, config)
    inputs = {**inputs, "train": run_training(store, inputs, config).artifact}
    on = {
        split: evaluate((store, inputs), config, split=split, num_samples=8).read_json("eval.json")
        for split in ("val", "test")
    }
    train = inputs["train"]
    model = weights.read_model(train.read("config.json"), train.read("model.safetensors"))
    tokenizer = tokenizer_of(inputs)
    for split, evaluation in on.items():
        tokens = tokens_of(inputs, split)
        assert evaluation["loss"] == mean_loss(model, tokens)
        trigram = ngram_losses(tokens_of(inputs, "train"), tokens, tokenizer.vocab_size)["trigram"]
        assert evaluation["baselines"]["trigram"]["loss"] == trigram
        expected = stage.beginnings(tokens, tokenizer, 8)
        texts = [tokenizer.decode(token_ids) for token_ids in expected]
        distinct = generation_metrics(texts, ended=[True] * 8, copied=[0] * 8, unseen=set())[
            "distinct_1"
        ].value
        measured = evaluation["generation_metrics"]["validation"]["distinct_1"]["value"]
        assert measured == distinct
    assert on["val"]["judged"] == "validation split"
    assert on["test"]["judged"] == "test split"
    assert on["test"]["documents"] == 30
    assert on["val"]["loss"] != on["test"]["loss"]


def test_a_test_split_that_was_not_held_out_is_refused_before_anything_is_computed(
    trained: Trained, tiny_config: Config
) -> None:
    with pytest.raises(ConfigError, match=r"`eval\.split` = test, but no test split") as caught:
        evaluate(trained, tiny_config, split="test")
    assert caught.value.exit_code == 2
    assert caught.value.hint == (
        "`tinygpt run --until eval --set dataset.test_fraction=0.05 --set eval.split=test` trains "
        "one that has not seen it"
    )


def test_one_evaluation_judges_a_text_or_the_test_split_not_both() -> None:
    with pytest.raises(ValidationError, match="are both set; leave one of them out"):
        EvalConfig(text="my.txt", split="test")


@pytest.mark.parametrize(
    ("lengths", "count", "expected"),
    [
        ([10, 300, 20], 3, [10, 256, 20]),
        ([10, 300, 20], 2, [10, 256]),
        ([1_000], 64, [256, 256, 256]),  # one text is compared piece by piece
        ([1_000], 2, [256, 256]),
        ([10, 512, 20], 64, [10, 256, 256, 20]),
        ([5], 64, [5]),
    ],
)
def test_held_out_documents_are_compared_or_pieces_of_few_long_ones(
    lengths: list[int], count: int, expected: list[int], tiny_config: Config
) -> None:
    tokens = np.concatenate([[7] * (length - 1) + [0] for length in lengths])
    texts = stage.beginnings(tokens, Tokenizer.train([], tiny_config.tokenizer), count)
    assert [len(text) for text in texts] == expected


def test_a_text_is_evaluated_instead_of_the_validation_split(
    trained: Trained, tiny_config: Config, tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_bytes("Tom saw a cat.\r\n<|endoftext|>\r\nZoë was sad.\n".encode("utf-8-sig"))
    evaluation = evaluate(trained, tiny_config, text=str(text)).read_json("eval.json")
    assert evaluation["judged"] == "text"
    assert evaluation["documents"] == 2
    first = tokenizer_of(trained[1]).encode("Tom saw a cat.")[0]
    not_predicted = tokenizer_of(trained[1]).byte_lengths[first]
    size = len("Tom saw a cat.") + len("Zoë was sad.".encode())
    assert evaluation["bytes"] == size - not_predicted
    assert set(evaluation["baselines"]) == BASELINES
    assert str(tmp_path) not in json.dumps(evaluation)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "contains no text"),
        (b" \n<|endoftext|>\n\n", "contains no text"),
        (b"a \xff b", "line 1: not UTF-8"),
        (None, "does not exist"),
    ],
)
def test_a_text_that_cannot_be_evaluated_is_an_input_error(
    data: bytes | None, message: str, trained: Trained, tiny_config: Config, tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    if data is not None:
        text.write_bytes(data)
    with pytest.raises(InputError, match=message):
        evaluate(trained, tiny_config, text=str(text))


def test_each_document_of_a_text_ends_with_the_end_of_text_token(tiny_config: Config) -> None:
    tokenizer = Tokenizer.train([], tiny_config.tokenizer)
    token_ids = encode(["a ", "\nb"], tokenizer).tolist()
    assert token_ids == [*tokenizer.encode("a "), 0, *tokenizer.encode("\nb"), 0]


FORMS_OF_A_TEXT = {
    "marked.txt": "".join(f"{story}\n<|endoftext|>\n" for story in STORIES),
    "blank.txt": "\n\n".join(STORIES) + "\n",
    "records.jsonl": "".join(json.dumps({"text": story}) + "\n" for story in STORIES),
    "table.csv": "n;text\r\n" + "".join(f'1;"{story}"\r\n' for story in STORIES),
}
"""The same documents; the model was trained on documents of their own."""


def test_the_same_documents_give_the_same_loss_in_every_format(
    trained: Trained, tiny_config: Config, tmp_path: Path
) -> None:
    losses = set()
    for name, text in FORMS_OF_A_TEXT.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        evaluation = evaluate(trained, tiny_config, text=str(tmp_path / name), num_samples=None)
        record = evaluation.read_json("eval.json")
        losses.add((record["loss"], record["bytes"], record["documents"]))
    assert len(losses) == 1
    assert losses.pop()[2] == len(STORIES)


def test_bytes_between_the_documents_of_a_text_are_stored_and_shown(
    trained: Trained, tiny_config: Config, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_bytes(b"\n\nA cat.\r\n<|endoftext|>\r\nA dog.<|endoftext|>\n")
    artifact = evaluate(trained, tiny_config, text=str(tmp_path / "a.txt"), num_samples=None)
    record = artifact.read_json("eval.json")
    assert record["text"] == "1 file: `<|endoftext|>` separates documents"
    assert record["left_out"] == len("\n\n\n<|endoftext|>\n<|endoftext|>\n")
    rows = dict(artifact.read_json("summary.json")["rows"])
    assert rows["text"] == record["text"]
    assert rows["left out"] == "31 bytes between documents"


def test_a_validation_split_has_no_bytes_left_out(trained: Trained, tiny_config: Config) -> None:
    assert "left_out" not in evaluate(trained, tiny_config).read_json("eval.json")


def test_generation_metrics_are_measured_on_generated_and_on_as_many_validation_texts(
    trained: Trained, tiny_config: Config
) -> None:
    _, inputs = trained
    artifact = evaluate(trained, tiny_config, baselines=False, num_samples=5)
    quality = artifact.read_json("eval.json")["generation_metrics"]
    assert (quality["count"], quality["temperature"], quality["max_tokens"]) == (5, 0.8, 256)
    assert set(quality["generated"]) == set(quality["validation"])
    for measures in (quality["generated"], quality["validation"]):
        assert all(set(estimate) == {"value", "low", "high"} for estimate in measures.values())
    assert quality["validation"]["ended"]["value"] == 1
    # The model learned for 4 steps, so it hardly copies
    copied = quality["generated"]["longest_match"]["value"]
    assert quality["validation"]["longest_match"]["value"] > copied
    longest = quality["longest"]
    assert longest["text"] in longest["generated"]
    assert longest["text"] in longest["training"]
    tokenizer = tokenizer_of(inputs)
    train = tokens_of(inputs, "train")
    start, stop = document_spans(train, tokenizer.end_of_text)[longest["origin"]]
    assert tokenizer.decode(train[start:stop].tolist()) == longest["training"]
    rows = artifact.read_json("summary.json")["rows"]
    labels = [label for label, _ in rows]
    assert labels[:4] == ["evaluated on", "loss", "perplexity", "bits per byte"]
    assert dict(rows)["samples"].startswith("5 generated")
    assert "ended" in dict(rows)["coherence"]


def test_a_training_document_generated_again_is_found_whole_with_its_number(
    trained: Trained,
) -> None:
    _, inputs = trained
    tokenizer = tokenizer_of(inputs)
    train, validation = tokens_of(inputs, "train"), tokens_of(inputs, "val")
    start, stop = document_spans(train, tokenizer.end_of_text)[20]
    copy = train[start:stop].tolist()
    own = [*tokenizer.encode("Zorbs!"), tokenizer.end_of_text]
    spans = document_spans(validation, tokenizer.end_of_text)[:2]
    held_out = [validation[start:stop].tolist() for start, stop in spans]
    quality = generation_quality([own, copy], held_out, train, tokenizer)
    longest = quality["longest"]
    assert longest["tokens"] == len(copy) - 1
    assert longest["sample"] == 1
    assert longest["origin"] == 20
    assert longest["text"] == longest["generated"] == longest["training"] == tokenizer.decode(copy)
    assert quality["unseen"] == ["zorbs"]


def test_equal_seeds_generate_equal_samples(
    trained: Trained, tiny_config: Config, tmp_path: Path
) -> None:
    again = Store(tmp_path), trained[1]
    first = evaluate(trained, tiny_config, num_samples=3, baselines=False)
    second = evaluate(again, tiny_config, num_samples=3, baselines=False)
    assert first.digest == second.digest


def test_no_samples_are_generated_if_none_are_asked_for(
    trained: Trained, tiny_config: Config
) -> None:
    silent = evaluate(trained, tiny_config, num_samples=None, baselines=False)
    assert silent.read_json("eval.json")["generation_metrics"] is None
    assert "coherence" not in dict(silent.read_json("summary.json")["rows"])


def test_no_more_samples_are_generated_than_there_are_validation_documents(
    trained: Trained, tiny_config: Config
) -> None:
    evaluation = evaluate(trained, tiny_config, num_samples=1_000).read_json("eval.json")
    assert evaluation["generation_metrics"]["count"] == evaluation["documents"] < 1_000
