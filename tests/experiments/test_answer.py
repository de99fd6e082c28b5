"""What is said about made-up cells: verdicts, refusals, failures, other texts and tokenizers."""

import math

import numpy as np
import pytest

from tests.experiments.made_up import cell, diverged, made_up_plan, pairs
from tinygpt.experiments.answer import Answer, Measured
from tinygpt.experiments.plan import NthLook
from tinygpt.experiments.records import Result
from tinygpt.experiments.verdict import table

SEEDS = range(1, 7)


def answer(
    cells: list[Measured], *arms: str, look: int = 1, min_effect: float = 0.01, **facts: object
) -> Result:
    """The result of cells of arms 0, 1, ... with as many seeds as they have."""
    plan = made_up_plan(arms or ("pre", "post"), max(one.seed for one in cells), min_effect)
    return Answer(plan, NthLook(look), cells, **facts).result()  # type: ignore[arg-type]


def steady(difference: float, jitter: float = 0.001, documents: int = 30) -> list[Measured]:
    """Pairs that differ by `difference`, a little more or less with the seed."""
    rng = np.random.default_rng(0)
    cells = []
    for seed in SEEDS:
        base = 1 + rng.normal(0, 0.05)
        cells += [cell(0, seed, base, documents)]
        cells += [cell(1, seed, base + difference + rng.normal(0, jitter), documents)]
    return cells


@pytest.mark.parametrize(
    ("difference", "jitter", "expected"),
    [
        (-0.05, 0.001, "better"),
        (0.05, 0.001, "worse"),
        (0.0, 0.001, "no difference"),
        (0.001, 0.03, "cannot tell"),
    ],
)
def test_the_verdict_on_pairs_of_a_known_difference(difference, jitter, expected):
    (one,) = answer(steady(difference, jitter))["comparisons"]
    assert one["verdict"] == expected
    assert one["words"].startswith(f"post against pre: {expected.split()[0]}")
    assert one["difference"] == pytest.approx(difference, abs=2 * jitter)
    low, high = one["intervals"]["95 % over seeds"]
    assert low < one["difference"] < high
    assert one["deviation"] < one["baseline_deviation"] or jitter > 0.01


def test_a_verdict_names_difference_p_value_and_level():
    (one,) = answer(steady(-0.05))["comparisons"]
    assert one["p"] == one["adjusted_p"] == pytest.approx(1 / 32)
    assert "fewer bits per byte (adjusted p 0.03125, level 0.03125)" in one["words"]
    assert one["correlation"] > 0.99
    rows = dict(table(made_up_plan(), answer(steady(-0.05))))
    assert rows["pre"].endswith("2.0 s of training, 0 of 6 failed")
    assert rows["interval over"] == "30 documents"


def test_an_interval_over_documents_that_holds_0_allows_no_verdict():
    rng = np.random.default_rng(0)
    by_document = rng.normal(0.02, 0.2, 30)
    cells = [cell(0, seed, 1.0) for seed in SEEDS]
    cells += [cell(1, seed, 1 + by_document + 0.0001 * seed) for seed in SEEDS]
    (one,) = answer(cells)["comparisons"]
    low, high = one["intervals"]["95 % over documents"]
    assert low < 0 < high
    assert one["p"] == pytest.approx(1 / 32)
    assert one["verdict"] == "cannot tell"
    assert one["words"].endswith("not with seeds: more validation documents are needed")


@pytest.mark.parametrize(
    ("jitter", "look", "advice"),
    [
        (0.013, 1, "a difference of 0.01 takes 42 seeds at the next look"),
        (0.1, 1, "not with seeds: a difference of 0.01 takes more than 50"),
        (0.1, 3, "this was the third look, and there is no fourth"),
    ],
)
def test_who_cannot_tell_says_what_would(jitter, look, advice):
    cells = pairs(np.random.default_rng(4), effect=0.0, seeds=9, spread=jitter, document_spread=0)
    (one,) = answer(cells, look=look)["comparisons"]
    assert one["verdict"] == "cannot tell"
    assert one["words"].endswith(advice)


def test_later_looks_ask_for_more():
    cells = list(steady(-0.05))
    assert answer(cells)["comparisons"][0]["verdict"] == "better"
    later = answer(cells, look=2)
    assert later["comparisons"][0]["verdict"] == "none"
    assert "6 of the 8 seeds that a verdict needs" in later["comparisons"][0]["words"]
    fourth = answer(cells, look=4)
    assert fourth["level"] is None
    assert not fourth["judged"]
    assert "there is no fourth look" in fourth["comparisons"][0]["words"]


def test_one_seed_shows_the_difference_and_no_verdict():
    result = answer([cell(0, 1, 1.0), cell(1, 1, 0.9)])
    (one,) = result["comparisons"]
    assert one["difference"] == pytest.approx(-0.1)
    assert one["verdict"] == "none"
    assert one["p"] is None
    assert one["intervals"] == {}
    assert not result["judged"]
    assert result["arms"][0]["bits_per_byte"] == {"mean": pytest.approx(1.0), "deviation": None}


def test_several_comparisons_are_adjusted_and_need_more_seeds():
    cells = [*steady(-0.05), *(cell(2, seed, 0.9 + 0.001 * seed) for seed in SEEDS)]
    result = answer(cells, "pre", "post", "none")
    assert result["seeds_needed"] == 7
    assert [one["verdict"] for one in result["comparisons"]] == ["none", "none"]
    assert result["comparisons"][0]["adjusted_p"] == pytest.approx(2 / 32)


def test_with_a_failed_cell_there_are_counts_and_medians_and_no_verdict_on_the_loss():
    cells = steady(-0.05)
    cells[3] = diverged(1, 2)
    result = answer(cells)
    (one,) = result["comparisons"]
    first, second = result["arms"]
    assert (first["failures"], second["failures"]) == (0, 1)
    assert first["bits_per_byte"] is not None
    assert second["bits_per_byte"] is None
    assert second["loss"] is None
    reached = sorted(cell.bits_per_byte for cell in cells if cell.arm == 1)
    assert second["median"] == pytest.approx((reached[2] + reached[3]) / 2)
    assert one["difference"] is None
    assert one["p"] is None
    assert one["failure_p"] == 1
    assert one["verdict"] == "cannot tell"
    assert result["failures"] == [
        {"arm": "post", "seed": 2, "kind": "not finite", "step": 3, "last_loss": 9.5}
    ]
    assert ["failed", "post, seed 2, step 3: not finite, last loss 9.5000"] in table(
        made_up_plan(), result
    )


def test_an_arm_that_always_fails_fails_more_often():
    cells = [*(cell(0, seed, 1.0) for seed in SEEDS), *(diverged(1, seed) for seed in SEEDS)]
    result = answer(cells)
    (one,) = result["comparisons"]
    assert one["failure_p"] == pytest.approx(1 / 32)
    assert one["verdict"] == "worse"
    assert "fails more often, 6 failed against 0" in one["words"]
    assert result["arms"][1]["median"] is None


def test_a_final_loss_above_the_unigram_model_is_a_failure():
    usual = cell(1, 1, 1.0)
    cells = [cell(0, 1, 1.0), cell(1, 1, 1.0, unigram=usual.loss - 0.01)]
    result = answer(cells)
    assert [failure["kind"] for failure in result["failures"]] == ["above the unigram baseline"]
    assert result["failures"][0]["last_loss"] == pytest.approx(usual.loss)
    at_the_baseline = [cell(0, 1, 1.0), cell(1, 1, 1.0, unigram=usual.loss)]
    assert answer(at_the_baseline)["failures"] == []


def test_failures_are_counted_by_each_of_two_keys():
    arms = ("pre 1e-3", "pre 1e-1", "post 1e-3", "post 1e-1")
    cells = [cell(arm, seed, 1.0) for arm in range(3) for seed in SEEDS]
    cells += [diverged(3, seed) for seed in SEEDS]
    by_norm, by_rate = answer(cells, *arms)["failures_by_value"]
    assert by_norm["key"] == "model.norm"
    assert by_norm["failures"] == {"pre": [0, 12], "post": [6, 12]}
    assert by_norm["p"] == {"post": pytest.approx(1 / 32)}
    assert by_rate["failures"] == {"1e-3": [0, 12], "1e-1": [6, 12]}
    together = [one._replace(arm=one.arm // 3) for one in cells if one.arm in (0, 3)]
    assert answer(together, "pre 1e-3", "post 1e-1")["failures_by_value"] == []


def test_other_tokenizers_are_compared_in_bits_per_byte_alone():
    cells = [
        one._replace(tokenizer=f"of arm {one.arm}") if one.arm else one for one in steady(-0.05)
    ]
    result = answer(cells)
    assert [arm["loss"] for arm in result["arms"]] == [None, None]
    assert result["comparisons"][0]["verdict"] == "better"
    assert "only bits per byte can be compared" in " ".join(result["notes"])


def test_other_validation_texts_allow_no_verdict():
    cells = [one if one.arm == 0 else cell(1, one.seed, 0.9, documents=31) for one in steady(-0.05)]
    result = answer(cells)
    assert [arm["loss"] for arm in result["arms"]] == [None, None]
    assert result["comparisons"][0]["verdict"] == "none"
    assert result["comparisons"][0]["intervals"]["95 % over documents"] is None
    assert "evaluated on different texts" in result["comparisons"][0]["words"]


def test_one_text_is_resampled_in_contiguous_blocks_or_not_at_all():
    def in_blocks(count: int) -> list[Measured]:
        cells = steady(-0.05, documents=count)
        zeros = np.zeros(count, int)
        return [one._replace(parts=one.parts._replace(document=zeros)) for one in cells]

    many = answer(in_blocks(40))
    assert many["documents"] == "40 blocks of one text"
    assert many["comparisons"][0]["intervals"]["95 % over documents"] is not None
    few = answer(in_blocks(8))
    assert few["documents"] == "this text only"
    assert few["comparisons"][0]["intervals"]["95 % over documents"] is None
    assert few["comparisons"][0]["verdict"] == "better"
    paragraphs = [one._replace(unit="paragraph") for one in steady(-0.05, documents=200)]
    assert answer(paragraphs)["documents"] == "50 blocks of one text"


def test_neighboring_paragraphs_that_resemble_each_other_widen_the_interval():
    """The control: resampled one by one, they would promise too much."""
    waves = 0.2 * np.sin(np.arange(400) / 400 * 20 * math.pi)
    cells = [cell(0, seed, 1.0, 400) for seed in SEEDS]
    cells += [cell(1, seed, 1 + waves + 0.001 * seed, 400) for seed in SEEDS]
    width = {}
    for unit in (None, "paragraph"):
        (one,) = answer([a._replace(unit=unit) for a in cells])["comparisons"]
        low, high = one["intervals"]["95 % over documents"]
        width[unit] = high - low
    assert width["paragraph"] > 2 * width[None]


def test_a_key_that_changes_nothing_is_said():
    result = answer([cell(arm, seed, 1 + 0.01 * seed) for arm in (0, 1) for seed in SEEDS])
    assert "post and pre reached the same losses to the bit" in " ".join(result["notes"])
    assert "model.norm changes nothing here" in " ".join(result["notes"])
    assert result["comparisons"][0]["verdict"] == "no difference"
    assert result["comparisons"][0]["p"] == 1


def test_refusals_of_the_runs_are_in_the_words():
    result = answer(steady(-0.05), refusals=["the runs were made by different code"])
    (one,) = result["comparisons"]
    assert one["verdict"] == "none"
    assert one["words"].endswith("no verdict: the runs were made by different code")
    assert one["intervals"]["95 % over seeds"] is not None
