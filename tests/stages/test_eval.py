"""Stage `eval`: the numbers of lm.evaluation and lm.ngrams, named and kept."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from tests.stages.stories import run_stage, tokenized
from tests.stages.training import run_training
from tinygpt.config import Config
from tinygpt.errors import InputError
from tinygpt.lm import weights
from tinygpt.lm.dataset import story_spans
from tinygpt.lm.evaluation import mean_loss
from tinygpt.lm.model import GPT, initialise
from tinygpt.lm.tokenizer import Tokenizer
from tinygpt.stages import eval as stage
from tinygpt.stages.eval import encode_text, judge
from tinygpt.store import Artifact, Store

Trained = tuple[Store, dict[str, Artifact]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_config: Config) -> Trained:
    store, inputs = tokenized(tmp_path_factory.mktemp("store"), tiny_config, label="template stories, not comparable")
    inputs["train"] = run_training(store, {name: inputs[name] for name in ("build-dataset", "tokenize")}, tiny_config).artifact
    return store, {name: inputs[name] for name in ("train", "build-dataset", "tokenize")}


def judged(trained: Trained, config: Config, **changes: object) -> Artifact:
    config = config.model_copy(update={"eval": config.eval.model_copy(update=changes)})
    return run_stage(trained[0], "eval", config, trained[1], stage.run)


def test_eval_json_holds_score_and_baselines(trained: Trained, tiny_config: Config) -> None:
    facts, (_, inputs) = judged(trained, tiny_config).read_json("eval.json"), trained
    tokens = np.frombuffer(inputs["build-dataset"].read("val.bin"), "<u2")
    model = weights.read_model(inputs["train"].read("config.json"), inputs["train"].read("model.safetensors"))
    loss = mean_loss(model, tokens)
    size = inputs["build-dataset"].read_json("meta.json")["val"]
    assert facts["loss"] == loss
    assert facts["perplexity"] == pytest.approx(math.exp(loss))
    assert facts["bits_per_byte"] == pytest.approx(loss * facts["tokens"] / math.log(2) / facts["bytes"])
    assert facts["tokens"] == size["tokens"] - 1
    assert size["bytes"] - 10 < facts["bytes"] < size["bytes"]  # the first token is not predicted
    assert facts["stories"] == size["stories"]
    assert facts["standard_error"] > 0
    assert (facts["judged"], facts["step"], facts["label"]) == ("validation split", 4, "template stories, not comparable")
    assert set(facts["baselines"]) == {"uniform", "unigram", "bigram", "trigram", "untrained"}
    assert facts["baselines"]["uniform"]["perplexity"] == pytest.approx(model.vocab_size)
    untrained = initialise(GPT(tiny_config.model, model.vocab_size), tiny_config.train.seed)
    assert facts["baselines"]["untrained"]["loss"] == mean_loss(untrained, tokens)
    assert facts["baselines"]["trigram"]["loss"] < facts["baselines"]["unigram"]["loss"]


def test_the_last_training_evaluation_is_the_same_number(trained: Trained, tiny_config: Config) -> None:
    rows = [json.loads(line) for line in trained[1]["train"].read("metrics.jsonl").splitlines()]
    last = [row for row in rows if row["kind"] == "eval"][-1]
    assert judged(trained, tiny_config, baselines=False).read_json("eval.json")["loss"] == last["val_loss"]


def test_the_summary_names_what_was_judged_the_baselines_and_the_label(trained: Trained, tiny_config: Config) -> None:
    rows = dict(judged(trained, tiny_config).read_json("summary.json")["rows"])
    assert rows["judged on"].startswith("validation split: ")
    assert "standard error" in rows["loss"]
    assert {"perplexity", "bits per byte", "perplexity of trigram", "perplexity of untrained"} <= set(rows)
    assert rows["note"] == "template stories, not comparable"


def test_a_text_is_judged_instead(trained: Trained, tiny_config: Config, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_bytes("Tom saw a cat.\r\n<|endoftext|>\r\nZoë was sad.\n".encode("utf-8-sig"))
    facts = judged(trained, tiny_config, text=str(text)).read_json("eval.json")
    assert (facts["judged"], facts["stories"]) == ("text", 2)
    assert facts["bytes"] == len("om saw a cat.") + len("Zoë was sad.".encode()) or facts["bytes"] < 26
    assert set(facts["baselines"]) == {"uniform", "unigram", "bigram", "trigram", "untrained"}
    assert str(tmp_path) not in json.dumps(facts)


@pytest.mark.parametrize(
    ("data", "what"),
    [(b"", "is empty"), (b" \n<|endoftext|>\n\n", "is empty"), (b"a \xff b", "not UTF-8 at byte 2"), (None, "cannot read")],
)
def test_a_text_that_cannot_be_judged_is_an_input_error(
    data: bytes | None, what: str, trained: Trained, tiny_config: Config, tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    if data is not None:
        text.write_bytes(data)
    with pytest.raises(InputError, match=what):
        judged(trained, tiny_config, text=str(text))


def test_only_whole_lines_separate_the_stories_of_a_text(tiny_config: Config) -> None:
    tokenizer = Tokenizer.train([], tiny_config.tokenizer)
    one = "It says <|endoftext|> in the middle."
    assert encode_text(one, tokenizer).tolist() == [*tokenizer.encode(one), 0]
    two = encode_text("a\n\n <|endoftext|> \n\nb\n<|endoftext|>", tokenizer)
    assert two.tolist() == [*tokenizer.encode("a"), 0, *tokenizer.encode("b"), 0]


def test_the_report_card_stands_beside_that_of_as_many_held_out_stories(trained: Trained, tiny_config: Config) -> None:
    artifact, (_, inputs) = judged(trained, tiny_config, baselines=False, stories=5), trained
    card = artifact.read_json("eval.json")["report_card"]
    assert (card["count"], card["temperature"], card["max_tokens"]) == (5, 0.8, 256)
    assert set(card["told"]) == set(card["validation"])
    for measures in (card["told"], card["validation"]):
        assert all(set(estimate) == {"value", "low", "high"} for estimate in measures.values())
    assert card["validation"]["ended"]["value"] == 1
    assert card["validation"]["longest_match"]["value"] > card["told"]["longest_match"]["value"]  # the model learned for 4 steps
    longest = card["longest"]
    assert longest["text"] in longest["told"]
    assert longest["text"] in longest["training"]
    tokenizer = Tokenizer.from_bytes(inputs["tokenize"].read("tokenizer.json"))
    train = np.frombuffer(inputs["build-dataset"].read("train.bin"), "<u2")
    spans = story_spans(train, tokenizer.end_of_story)
    assert tokenizer.decode(train[slice(*spans[longest["origin"]])].tolist()) == longest["training"]
    rows = artifact.read_json("summary.json")["rows"]
    assert [name for name, _ in rows][:4] == ["judged on", "loss", "perplexity", "bits per byte"]
    assert dict(rows)["stories"].startswith("5 told")
    assert "ended" in dict(rows)["coherence"]


def test_a_training_story_told_again_is_found_whole_with_its_number(trained: Trained) -> None:
    _, inputs = trained
    tokenizer = Tokenizer.from_bytes(inputs["tokenize"].read("tokenizer.json"))
    train, held_out = (np.frombuffer(inputs["build-dataset"].read(name), "<u2") for name in ("train.bin", "val.bin"))
    spans = story_spans(train, tokenizer.end_of_story)
    copy = train[slice(*spans[20])].tolist()
    own = [*tokenizer.encode("Zorbs!"), tokenizer.end_of_story]
    card = judge([own, copy], [held_out[slice(*span)].tolist() for span in story_spans(held_out, 0)[:2]], train, tokenizer)
    longest = card["longest"]
    assert (longest["tokens"], longest["story"], longest["origin"]) == (len(copy) - 1, 1, 20)
    assert longest["text"] == longest["told"] == longest["training"] == tokenizer.decode(copy)
    assert card["unseen"] == ["zorbs"]


def test_equal_seeds_tell_equal_stories_and_none_are_told_on_demand(
    trained: Trained, tiny_config: Config, tmp_path: Path
) -> None:
    again = Store(tmp_path), trained[1]
    first, second = (judged(run, tiny_config, stories=3, baselines=False) for run in (trained, again))
    assert first.digest == second.digest
    silent = judged(trained, tiny_config, stories=None, baselines=False)
    assert silent.read_json("eval.json")["report_card"] is None
    assert "coherence" not in dict(silent.read_json("summary.json")["rows"])


def test_no_more_stories_are_told_than_are_held_out(trained: Trained, tiny_config: Config) -> None:
    facts = judged(trained, tiny_config, stories=1_000).read_json("eval.json")
    assert facts["report_card"]["count"] == facts["stories"] < 1_000
