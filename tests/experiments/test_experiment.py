"""A grid from its plan to its answer: cached, interrupted, changed, failing, elsewhere."""

import dataclasses
import json
import signal

import pytest

from tests.experiments.conftest import Grid
from tests.helpers import publish, seal, with_settings
from tinygpt.errors import CorruptArtifactError, Interrupted, MissingArtifactError, UsageError
from tinygpt.experiments import experiment as module
from tinygpt.experiments.cells import find_cell, make_cell
from tinygpt.experiments.comparison import compare_runs
from tinygpt.experiments.estimate import estimate
from tinygpt.experiments.experiment import look_ahead
from tinygpt.experiments.plan import look_at, plan_hash
from tinygpt.progress import Limits
from tinygpt.project import Project
from tinygpt.store import Store, upkeep

BOTH = ["norm=pre", "norm=post"]


def names(*seeds: int, cached: int = 0) -> list[str]:
    """The cells of both arms, seed by seed; the first `cached` of them come from the store."""
    cells = [f"{arm}, seed {seed}" for seed in seeds for arm in BOTH]
    return [name + " cached" * (place < cached) for place, name in enumerate(cells)]


@pytest.fixture(scope="module")
def ran(grid_config, tmp_path_factory):
    """A finished experiment of two seeds; tests must not change its store."""
    grid = Grid(grid_config, tmp_path_factory.mktemp("ran"))
    experiment, cached = grid.run(grid.wanted([1, 2]))
    assert not cached
    return grid, experiment


def test_an_experiment_holds_its_plan_its_result_and_a_page(ran):
    grid, experiment = ran
    plan = experiment.read_json("plan.json")
    result = experiment.read_json("result.json")
    assert grid.cells == names(1, 2)
    assert (plan, plan_hash(plan)) == (grid.planned[0][0], result["plan"])
    assert plan["question"] == "model.norm: pre or post"
    assert plan["seeds"] == [1, 2]
    assert plan["conditions"]["threads"] == "1"
    assert [arm["precision"] for arm in plan["arms"]] == ["fp32", "fp32"]
    assert "lm/model.py" in plan["code"]
    assert [arm["cells"] for arm in result["arms"]] == [2, 2]
    assert result["comparisons"][0]["seeds"] == [1, 2]
    assert experiment.read("page.html").startswith(b"<!DOCTYPE html>")
    assert {made["stage"] for made in experiment.manifest.inputs.values()} == {
        *("plan", "train", "eval")
    }
    assert len(experiment.manifest.inputs) == 1 + 2 * 4


def test_cells_are_the_runs_of_run_and_their_loss_is_that_of_the_last_weights(ran):
    grid, experiment = ran
    first = experiment.read_json("result.json")["cells"][0]
    config = with_settings(grid.config, train={"seed": 1})
    outcomes = Project(config, grid.project.store).run("eval")
    assert all(outcome.cached for outcome in outcomes.values())
    assert first["train"] == outcomes["train"].artifact.id
    evaluated = outcomes["eval"].artifact.read_json("eval.json")
    assert evaluated["weights"] == "last"
    assert first["bits_per_byte"] == pytest.approx(evaluated["bits_per_byte"])
    assert first["loss"] == pytest.approx(evaluated["loss"])


def test_a_plan_of_something_else_is_refused_and_written_again_if_forced(grid):
    first, _ = grid.run(grid.wanted([1]))
    (plan,) = grid.project.store.list("plan")
    path = plan.path("plan.json")
    for key, value in (("seeds", [2]), ("arms", []), ("min_effect", 0.5)):
        path.chmod(0o644)
        path.write_text(json.dumps(plan.read_json("plan.json") | {key: value}))
        seal(plan.folder)
        with pytest.raises(CorruptArtifactError, match="plan of something else") as caught:
            grid.run(grid.wanted([1]))
        assert "with `--force`" in caught.value.hint
        again, _ = grid.run(grid.wanted([1]), force=True)
        (plan,) = grid.project.store.list("plan")
        assert again.read_json("plan.json") == first.read_json("plan.json")


ROW = {"document": 0, "nats": 2.0, "tokens": 3, "bytes": 4}


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([], "do not fit together"),
        ([ROW | {"document": 1}], "do not fit together"),
        ([ROW, ROW | {"document": 2}], "do not fit together"),
        ([ROW | {"document": 2**40}], "do not fit together"),
        ([ROW | {"bytes": 0}], "do not fit together"),
        ([ROW | {"nats": 0.0}], "do not fit together"),
        ([ROW | {"tokens": 2**62}], "do not fit together"),
        ([ROW | {"nats": -1.0}], "do not fit together"),
        ([ROW | {"nats": 1e308}], "`0.nats`"),
        ([{**ROW, "tokens": 1.5}], "`0.tokens`"),
    ],
)
def test_documents_that_no_evaluation_has_are_refused(tmp_path, rows, problem):
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    store = Store(tmp_path)
    with pytest.raises(CorruptArtifactError, match=problem):
        module.read_parts(publish(store, "eval", {"documents.jsonl": lines}))
    whole = "".join(json.dumps(row) + "\n" for row in [ROW, ROW, ROW | {"document": 1}]).encode()
    parts = module.read_parts(publish(store, "eval", {"documents.jsonl": whole}, name="whole"))
    assert parts.document.tolist() == [0, 0, 1]


def test_asked_again_it_comes_from_the_store(ran):
    grid, experiment = ran
    again, cached = grid.run(grid.wanted([1, 2]))
    assert cached
    assert again.id == experiment.id
    assert grid.cells == []


def test_what_a_dry_run_shows_is_what_the_store_has(ran):
    grid, experiment = ran
    before = sorted(path.name for path in grid.project.store.folders())
    ahead = look_ahead(grid.project, grid.wanted([1, 2]))
    assert [why for _, _, why in ahead.cells] == ["cached"] * 4
    assert ahead.experiment is not None
    assert ahead.experiment.id == experiment.id
    more = look_ahead(grid.project, grid.wanted([1, 2, 3]))
    assert [why for _, _, why in more.cells] == ["cached"] * 4 + ["to run"] * 2
    assert more.experiment is None
    left = estimate(grid.project, more.cells)
    assert left.cells == 2
    assert left.source == "runs in this store"
    runs = grid.project.store.list("train")
    assert left.bytes == pytest.approx(2 * runs[0].size, rel=0.05)
    assert 0 < left.seconds < 600
    assert sorted(path.name for path in grid.project.store.folders()) == before


def test_without_runs_steps_are_measured_and_without_a_dataset_nothing_is_known(grid):
    wanted = grid.wanted([1])
    assert estimate(grid.project, look_ahead(grid.project, wanted).cells).seconds is None
    module.make_datasets(grid.project, wanted.arms)
    left = estimate(grid.project, look_ahead(grid.project, wanted).cells)
    assert left.source == "measured steps"
    assert left.seconds > 0
    assert grid.project.store.list("train") == []
    imported = publish(grid.project.store, "train", {})
    digests = {"key": "0" * 64, "digest": "0" * 64}
    seal(imported.folder, inputs={"folder": {"stage": "import", **digests}})
    left = estimate(grid.project, look_ahead(grid.project, wanted).cells)
    assert left.source == "measured steps"  # nothing is known of the training of an imported model


def test_the_plan_is_in_the_store_before_the_first_cell(grid, monkeypatch):
    def stop(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(module, "make_cells", stop)
    with pytest.raises(ZeroDivisionError):
        grid.run(grid.wanted([1, 2]))
    (plan,) = grid.project.store.list("plan")
    assert plan.read_json("plan.json") == grid.planned[0][0]
    assert grid.project.store.list("train") == []


class StopAfter:
    """Limits that a signal ends after some questions."""

    def __init__(self, questions: int) -> None:
        self.left = questions

    def __call__(self) -> int | None:
        self.left -= 1
        return signal.SIGINT if self.left < 0 else None


@pytest.mark.full
def test_an_experiment_interrupted_twice_gives_the_same_result(ran, grid):
    _, whole = ran
    wanted = grid.wanted([1, 2])
    steps = grid.config.train.max_steps
    with pytest.raises(Interrupted, match="checkpoint saved"):
        grid.run(wanted, Limits(interrupted=StopAfter(steps // 2)))
    assert grid.cells == []
    assert grid.project.store.unfinished_runs()[0].step == steps // 2 + 1
    with pytest.raises(Interrupted):
        grid.run(wanted, Limits(interrupted=StopAfter(2 * steps)))
    finished = len(grid.cells)
    assert grid.cells == names(1, 2)[:finished] != []
    assert finished < 4
    experiment, _ = grid.run(wanted)
    assert grid.cells == names(1, 2, cached=finished)
    expected, result = whole.read_json("result.json"), experiment.read_json("result.json")
    for of_whole, cell in zip(expected["cells"], result["cells"], strict=True):
        assert {**of_whole, "seconds": 0} == {**cell, "seconds": 0}
    assert result["plan"] == expected["plan"]


def test_a_changed_grid_reuses_the_finished_cells(ran, grid_config, tmp_path):
    grid = Grid(grid_config, tmp_path)
    grid.project = Project(grid.config, ran[0].project.store)
    wanted = grid.wanted([1], vary="model.norm=post,pre")
    grid.run(wanted)
    assert grid.cells == ["norm=post, seed 1 cached", "norm=pre, seed 1 cached"]


@pytest.mark.full
def test_a_cached_cell_under_other_conditions_is_computed_again_and_replaced(grid):
    grid.run(grid.wanted([1]))
    before = {run.id: run.manifest.provenance for run in grid.project.store.list("train")}
    grid.config = with_settings(grid.config, runtime={"threads": 2})
    wanted = grid.wanted([1])
    ahead = look_ahead(grid.project, wanted)
    assert [why for _, _, why in ahead.cells] == ["again: threads 1 -> 2"] * 2
    grid.run(wanted)
    assert grid.cells == names(1)
    for run in grid.project.store.list("train"):
        same_bytes = run.manifest.provenance["created"] == before[run.id]["created"]
        assert same_bytes or run.manifest.provenance["threads"] == "2"
    assert len(grid.project.store.list("plan")) == 2


def test_a_cell_that_other_code_trained_is_computed_again(ran, monkeypatch):
    grid, _ = ran
    plan = grid.planned[0][0]
    other = {**plan, "code": {**plan["code"], "lm/model.py": "0" * 16}}
    arms = grid.wanted([1]).arms
    cell = module.cells_of(arms, plan)[0]
    assert find_cell(grid.project, plan, cell)[1] == "cached"
    assert find_cell(grid.project, other, cell)[1] == "again: code"


@pytest.mark.full
def test_a_checkpoint_of_other_conditions_is_not_continued(grid):
    wanted = grid.wanted([1])
    with pytest.raises(Interrupted):
        grid.run(wanted, Limits(interrupted=StopAfter(20)))
    grid.config = with_settings(grid.config, runtime={"threads": 2})
    grid.run(grid.wanted([1]))
    runs = grid.project.store.list("train")
    assert [run.manifest.provenance["exact"] for run in runs] == [True, True]
    assert {run.manifest.provenance["threads"] for run in runs} == {"2"}


@pytest.mark.full
def test_a_run_that_diverges_is_recorded_and_not_tried_again_unless_forced(grid, monkeypatch):
    grid.config = with_settings(grid.config, train={"grad_clip": None, "optimizer": "adamw"})
    wanted = grid.wanted([1, 2], vary="train.learning_rate=0.03,1e30")
    experiment, _ = grid.run(wanted)
    result = experiment.read_json("result.json")
    assert [(one["arm"], one["kind"]) for one in result["failures"]] == [
        ("learning_rate=1e30", "not finite")
    ] * 2
    assert all(one["step"] < 40 for one in result["failures"])
    assert result["arms"][1]["median"] is None
    store = grid.project.store
    assert len(store.list("train")) == 2
    assert len(store.list("failure")) == 2
    assert store.unfinished_runs() == []
    grid.run(grid.wanted([1, 2, 3], vary="train.learning_rate=0.03,1e30"))
    assert [name for name in grid.cells if "1e30" in name and "cached" in name] == [
        "learning_rate=1e30, seed 1 cached",
        "learning_rate=1e30, seed 2 cached",
    ]
    again, cached = grid.run(wanted, force=True)
    assert not cached
    assert not any("cached" in name for name in grid.cells)
    assert again.read_json("result.json")["failures"] == result["failures"]


@pytest.mark.full
def test_gc_keeps_all_that_an_experiment_is_made_from(grid):
    old, _ = grid.run(grid.wanted([1]))
    new, _ = grid.run(grid.wanted([1, 2]))
    store = grid.project.store
    upkeep.gc(store)
    kept = {(artifact.stage, artifact.digest) for artifact in store.list()}
    for experiment in (old, new):
        assert (experiment.stage, experiment.digest) in kept
        for made in experiment.manifest.inputs.values():
            assert (made["stage"], made["digest"]) in kept
    assert upkeep.verify(store) == []


@pytest.mark.full
def test_cells_side_by_side_are_the_cells_of_one_process_with_the_threads_divided(ran, grid):
    grid.config = with_settings(grid.config, runtime={"threads": 2})
    experiment, _ = grid.run(grid.wanted([1, 2], jobs=2))
    alone = ran[1].read_json("result.json")
    result = experiment.read_json("result.json")
    plan = experiment.read_json("plan.json")
    assert (plan["jobs"], plan["conditions"]["threads"]) == (2, "1")
    assert sorted(grid.cells) == sorted(names(1, 2))
    assert [cell["bits_per_byte"] for cell in result["cells"]] == [
        cell["bits_per_byte"] for cell in alone["cells"]
    ]
    provenance = [run.manifest.provenance for run in grid.project.store.list("train")]
    assert {facts["threads"] for facts in provenance} == {"1"}


@pytest.mark.full
def test_an_error_in_one_of_several_processes_is_that_of_the_experiment(grid, monkeypatch):
    grid.config = with_settings(grid.config, runtime={"threads": 2})
    wanted = grid.wanted([1, 2], jobs=2)
    module.make_datasets(grid.project, wanted.arms)
    (dataset,) = grid.project.store.list("build-dataset")
    dataset.path("val.bin").chmod(0o644)
    dataset.path("val.bin").write_bytes(b"")
    with pytest.raises(Exception, match="damaged"):
        grid.run(wanted)


def test_keys_that_change_together_are_two_arms_and_several_vary_all_combinations(grid):
    together = grid.wanted([1], "model.norm+train.learning_rate=pre+0.03,post+0.01")
    rates = [(arm.config.model.norm, arm.config.train.learning_rate) for arm in together.arms]
    assert rates == [("pre", 0.03), ("post", 0.01)]
    assert [arm.name for arm in together.arms] == [
        "norm=pre, learning_rate=0.03",
        "norm=post, learning_rate=0.01",
    ]
    apart = grid.wanted([1], "model.norm=pre,post train.learning_rate=0.03,0.01")
    assert len(apart.arms) == 4
    swapped = grid.wanted([1], "train.learning_rate=0.03,0.01 model.norm=pre,post")
    ids = {look_ahead(grid.project, one).plan["question_id"] for one in (apart, swapped)}
    assert len(ids) == 1
    with pytest.raises(UsageError, match="varied twice"):
        grid.wanted([1], "model.norm=pre,post model.norm+train.beta1=pre+0.8,post+0.9")


class TestBudgets:
    def steps(self, grid: Grid, **facts: object) -> list[int]:
        ahead = look_ahead(grid.project, grid.wanted([1], "train.batch_size=16,32,6", **facts))
        return [arm["max_steps"] for arm in ahead.plan["arms"]]

    def test_equal_tokens_are_fewer_steps_of_larger_batches(self, grid):
        assert self.steps(grid) == [40, 20, 107]

    def test_equal_steps(self, grid):
        assert self.steps(grid, budget="steps") == [40, 40, 40]

    def test_warmup_keeps_its_share(self, grid):
        grid.config = with_settings(grid.config, train={"warmup_steps": 10})
        ahead = look_ahead(grid.project, grid.wanted([1], "train.batch_size=16,32"))
        recipes = [arm["recipe"] for arm in ahead.plan["arms"]]
        assert [found["train.warmup_steps"] for found in recipes] == [10, 5]

    @pytest.mark.full
    def test_equal_seconds_are_measured_once_and_are_in_the_plan(self, grid, monkeypatch):
        measured = []

        def measure(project, arms):
            measured.append(len(arms))
            return [0.02, 0.01]

        monkeypatch.setattr(module, "measure_arms", measure)
        wanted = grid.wanted([1], "model.norm=pre,post", budget="seconds")
        grid.run(wanted)
        plan = grid.planned[0][0]
        assert [arm["step_seconds"] for arm in plan["arms"]] == [0.02, 0.01]
        assert [arm["max_steps"] for arm in plan["arms"]] == [40, 80]
        grid.run(wanted)
        assert measured == [2]
        grid.run(grid.wanted([1, 2], "model.norm=pre,post", budget="seconds"))
        assert measured == [2, 2]
        assert grid.cells[:2] == names(1, cached=2)

    @pytest.mark.full
    def test_step_times_are_measured_in_turns(self, grid, monkeypatch):
        turns = []
        real = module.measure_seconds

        def noting(run):
            turns.append(run.config.model.norm)
            return real(run)

        monkeypatch.setattr(module, "measure_seconds", noting)
        wanted = grid.wanted([1])
        module.make_datasets(grid.project, wanted.arms)
        times = module.measure_arms(grid.project, wanted.arms)
        assert turns == ["pre", "post"] * module.ROUNDS
        assert all(0 < time < 10 for time in times)

    def test_varied_steps_have_no_budget(self, grid):
        wanted = grid.wanted([1], "train.max_steps=40,60")
        ahead = look_ahead(grid.project, wanted)
        assert ahead.plan["budget"] == "varied"
        assert [arm["max_steps"] for arm in ahead.plan["arms"]] == [40, 60]
        with pytest.raises(UsageError, match="which is varied"):
            grid.wanted([1], "train.max_steps=40,60", budget="steps")

    @pytest.mark.parametrize(
        ("facts", "message"),
        [
            ({"budget": "joules"}, "`--budget joules` is not known"),
            ({"budget": "seconds", "jobs": 2}, "cannot be combined with `--jobs`"),
            ({"jobs": 64}, "needs as many threads; there are 1"),
            ({"min_effect": 0.0}, "not a difference"),
            ({"min_effect": float("nan")}, "not a difference"),
        ],
    )
    def test_what_is_not_possible_is_refused(self, grid, facts, message):
        with pytest.raises(UsageError, match=message):
            grid.wanted([1], **facts)


class TestLooks:
    """Made-up manifests: only what is counted matters."""

    def publish(self, grid: Grid, plan, *, judged: bool, cells: str = "") -> None:
        from tinygpt.experiments.plan import plan_tables, publish
        from tinygpt.hashing import Key, hash_json

        tables = plan_tables(plan)
        tables["experiment"] |= {"judged": judged, "cells": cells}
        key = Key(hash_json("x", tables))
        publish(grid.project.store, "experiment", key, {"x": 1}, {}, tables)

    def test_looks_are_counted_by_question_not_by_plan(self, grid):
        store = grid.project.store
        plans = [
            look_ahead(grid.project, grid.wanted(range(1, 7 + more))).plan for more in range(4)
        ]
        for number, plan in enumerate(plans, 1):
            look = look_at(store, plan)
            assert look.number == number
            assert (look.level is None) == (number > 3)
            self.publish(grid, plan, judged=True, cells=str(number))
        assert look_at(store, plans[0]).number == 1  # made again
        assert look_at(store, {**plans[0], "min_effect": 0.02}).number == 5
        assert look_at(store, {**plans[0], "min_effect": 0.02}, cells="2").number == 2
        reversed_arms = look_ahead(grid.project, grid.wanted([1], "model.norm=post,pre")).plan
        assert look_at(store, reversed_arms).number == 5
        another = look_ahead(grid.project, grid.wanted([1], "model.norm=pre,post", budget="steps"))
        assert another.plan["question_id"] == plans[0]["question_id"]
        other = look_ahead(grid.project, grid.wanted([1], "model.activation=gelu,relu")).plan
        assert look_at(store, other).number == 1

    def test_an_answer_without_a_verdict_is_no_look(self, grid):
        plan = look_ahead(grid.project, grid.wanted([1])).plan
        self.publish(grid, plan, judged=False)
        assert look_at(grid.project.store, {**plan, "seeds": [1, 2]}).number == 1

    def test_another_recipe_is_another_question_and_a_longer_run_is_not(self, grid):
        asked = look_ahead(grid.project, grid.wanted([1])).plan["question_id"]
        grid.config = with_settings(grid.config, train={"max_steps": 50, "eval_every": 7})
        assert look_ahead(grid.project, grid.wanted([1])).plan["question_id"] == asked
        grid.config = with_settings(grid.config, model={"d_ff": 48})
        assert look_ahead(grid.project, grid.wanted([1])).plan["question_id"] != asked


@pytest.mark.full
class TestRunsThatAreThere:
    def test_they_give_the_result_of_the_experiment(self, ran):
        grid, experiment = ran
        wanted = experiment.read_json("result.json")
        runs = [grid.project.store.resolve(cell["train"], "train") for cell in wanted["cells"]]
        compared = compare_runs(grid.project, "model.norm", runs, 0.01, "tinygpt compare")
        result = compared.read_json("result.json")
        plan = compared.read_json("plan.json")
        assert not plan["planned"]
        assert plan["question_id"] == experiment.read_json("plan.json")["question_id"]
        (expected,), (found,) = wanted["comparisons"], result["comparisons"]
        assert found["differences"] == expected["differences"]
        assert found["intervals"] == expected["intervals"]
        assert result["arms"] == wanted["arms"]
        assert any("chosen after they were made" in note for note in result["notes"])

    def words(self, grid: Grid, runs: list) -> str:
        compared = compare_runs(grid.project, "model.norm", runs, 0.01, "")
        (one,) = compared.read_json("result.json")["comparisons"]
        assert one["verdict"] == "none"
        return one["words"]

    def run_of(self, grid: Grid, **train: object):
        config = with_settings(grid.config, train={"max_steps": 5, **train.pop("train", {})})
        config = with_settings(config, model=train)
        return Project(config, grid.project.store).run("eval")["train"].artifact

    def test_other_differences_and_conditions_allow_no_verdict(self, grid, monkeypatch):
        pre = self.run_of(grid)
        longer = self.run_of(grid, norm="post", train={"max_steps": 6})
        assert "the runs also differ in train.max_steps" in self.words(grid, [pre, longer])
        other_seed = self.run_of(grid, norm="post", train={"seed": 5})
        assert "the arms have different seeds" in self.words(grid, [pre, other_seed])
        post = self.run_of(grid, norm="post")
        changed = post.manifest.model_copy(
            update={
                "provenance": {
                    **post.manifest.provenance,
                    "threads": "7",
                    "exact": False,
                    "code": {"modules": {}},
                }
            }
        )
        elsewhere = dataclasses.replace(post, manifest=changed)
        words = self.words(grid, [pre, elsewhere])
        assert "different conditions: threads 7 -> 1, code, exact: false" in words

    def test_what_cannot_be_compared_is_refused(self, grid):
        pre, post = self.run_of(grid), self.run_of(grid, norm="post")
        with pytest.raises(UsageError, match="no key of these runs"):
            compare_runs(grid.project, "model.nrm", [pre, post], 0.01, "")
        with pytest.raises(UsageError, match=r"all these runs have `model\.norm` = pre"):
            compare_runs(grid.project, "model.norm", [pre], 0.01, "")
        made = {**pre.manifest.inputs["tokenize"], "stage": "import"}
        imported = pre.manifest.model_copy(update={"inputs": {"folder": made}})
        other = dataclasses.replace(pre, manifest=imported)
        with pytest.raises(UsageError, match="which was imported"):
            compare_runs(grid.project, "model.norm", [other, post], 0.01, "")
        twice = self.run_of(grid, train={"max_steps": 6})
        with pytest.raises(UsageError, match=r"two runs have `model\.norm` = pre and seed 1337"):
            compare_runs(grid.project, "model.norm", [pre, twice, post], 0.01, "")
        bare = Project(with_settings(grid.config, train={"max_steps": 7}), grid.project.store)
        with pytest.raises(MissingArtifactError, match="no evaluation") as caught:
            compare_runs(
                grid.project, "model.norm", [bare.run("train")["train"].artifact, post], 0.01, ""
            )
        assert "tinygpt eval --model" in str(caught.value.hint)


def test_the_result_is_json_and_the_same_for_the_same_cells(ran):
    grid, experiment = ran
    plan = grid.planned[0][0]
    arms = grid.wanted([1, 2]).arms
    made = [
        make_cell(grid.project, plan, cell, Limits(), force=False)
        for cell in module.cells_of(arms, plan)
    ]
    assert all(one.cached for one in made)
    measured = [
        module.measure(grid.project.store, one, place % 2) for place, one in enumerate(made)
    ]
    answer = module.Answer(plan, look_at(grid.project.store, plan), measured)
    assert json.loads(json.dumps(answer.result())) == experiment.read_json("result.json")
