"""Stage `eval`: the numbers of lm.evaluation and analysis, named and stored."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import Inputs, prepare, run_stage, run_training, with_settings
from tinygpt.config import Config
from tinygpt.errors import InputError
from tinygpt.lm import weights
from tinygpt.lm.dataset import document_spans
from tinygpt.lm.evaluation import mean_loss
from tinygpt.lm.init import init_weights
from tinygpt.lm.model import GPT
from tinygpt.lm.tokenizer import Tokenizer
from tinygpt.stages import eval as stage
from tinygpt.stages.eval import encode_text, generation_quality
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


def test_the_summary_names_the_evaluated_text_the_baselines_and_the_label(
    trained: Trained, tiny_config: Config
) -> None:
    rows = dict(evaluate(trained, tiny_config).read_json("summary.json")["rows"])
    assert rows["evaluated on"].startswith("validation split: ")
    assert "standard error" in rows["loss"]
    expected = {"perplexity", "bits per byte", "perplexity of trigram", "perplexity of untrained"}
    assert expected <= set(rows)
    assert rows["note"] == LABEL


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
        (b"", "is empty"),
        (b" \n<|endoftext|>\n\n", "is empty"),
        (b"a \xff b", "not UTF-8 at byte 2"),
        (None, "cannot read"),
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


def test_only_whole_lines_separate_the_documents_of_a_text(tiny_config: Config) -> None:
    tokenizer = Tokenizer.train([], tiny_config.tokenizer)
    one = "It says <|endoftext|> in the middle."
    assert encode_text(one, tokenizer).tolist() == [*tokenizer.encode(one), 0]
    two = encode_text("a\n\n <|endoftext|> \n\nb\n<|endoftext|>", tokenizer)
    assert two.tolist() == [*tokenizer.encode("a"), 0, *tokenizer.encode("b"), 0]


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
