"""A Project: it plans once, makes what is missing, and finds what is there."""

import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.helpers import Notes, with_settings
from tinygpt.config import Config, DataConfig
from tinygpt.corpus.given import given_fingerprint
from tinygpt.errors import (
    CorruptArtifactError,
    InputError,
    MissingArtifactError,
    NetworkError,
    StoppedEarly,
    UsageError,
)
from tinygpt.hashing import Key
from tinygpt.pipeline import STAGES, Outcome
from tinygpt.progress import Limits
from tinygpt.project import Project
from tinygpt.stages import tokenize
from tinygpt.store import Artifact, ArtifactWriter, Store
from tinygpt.store.artifact import MODEL_FILES
from tinygpt.store.manifest import MANIFEST
from tinygpt.trained_models import describe_run, validation_perplexities


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    """A copy of the finished project, which a test may change."""
    root = shutil.copytree(finished.store.root, tmp_path / "artifacts")
    return Project(finished.config, root, reporter=Notes())


@pytest.fixture
def empty(pipeline_config: Config, tmp_path: Path) -> Project:
    """A project in which nothing has been made."""
    return Project(pipeline_config, tmp_path / "empty", reporter=Notes())


@pytest.fixture
def lookups(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each stage's artifact has been looked up in a store."""
    counts = Counter[str]()
    find = Store.find

    def counting_find(self: Store, stage: str, key: Key) -> Artifact | None:
        counts[stage] += 1
        return find(self, stage, key)

    monkeypatch.setattr(Store, "find", counting_find)
    return counts


def notes(project: Project) -> list[str]:
    assert isinstance(project.reporter, Notes)
    return project.reporter.notes


def changed(project: Project, **tables: dict[str, object]) -> Project:
    """The same project with some settings changed."""
    return project.with_config(with_settings(project.config, **tables))


def leave_unfinished(project: Project, **train: object) -> Project:
    """The project of another run, which was stopped after step 2."""
    other = changed(project, train=train)
    with pytest.raises(StoppedEarly):
        other.run("train", limits=Limits(stop_at_step=2))
    return other


class TestPlan:
    def test_each_stage_is_looked_up_once(self, project: Project, lookups: Counter[str]) -> None:
        planned = project.plan()
        why = {name: one.why for name, one in planned.items()}
        assert why == dict.fromkeys(STAGES, "cached") | {
            "plot": "not made yet",
            "page": "runs after `plot`",
        }
        once = dict.fromkeys(STAGES, 1)
        del once["page"]  # its key is not known before the digest of `plot`
        assert lookups == once
        assert project.plan() == planned
        assert list(project.plan("train")) == ["corpus", "tokenize", "build-dataset", "train"]
        project.inputs("sample")
        project.find_model()
        assert lookups == once

    def test_what_is_made_enters_the_plan_without_planning_anew(
        self, empty: Project, lookups: Counter[str]
    ) -> None:
        assert empty.plan()["corpus"].artifact is None
        assert empty.plan()["tokenize"].key is None
        corpus = empty.make("corpus").artifact
        lookups.clear()
        planned = empty.plan("train")
        assert planned["corpus"].artifact == corpus
        assert planned["corpus"].why == "cached"
        assert planned["tokenize"].key is not None
        assert planned["tokenize"].why == "not made yet"
        assert planned["build-dataset"].why == "runs after `tokenize`"
        assert lookups == {"tokenize": 1}

    def test_after_a_stage_gave_other_bytes_the_later_ones_are_planned_anew(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert project.plan()["train"].artifact is not None
        run = tokenize.run

        def run_differently(
            config: Config, inputs: dict[str, Artifact], out: ArtifactWriter, reporter: Notes
        ) -> None:
            run(config, inputs, out, reporter)
            out.bytes("more.txt", b"more")

        monkeypatch.setattr(tokenize, "run", run_differently)
        artifact = project.make("tokenize", force=True).artifact
        planned = project.plan()
        assert planned["tokenize"].artifact == artifact
        assert planned["build-dataset"].artifact is None
        assert planned["build-dataset"].why.startswith("input tokenize ")
        assert planned["train"].key is None

    def test_a_stage_made_from_other_inputs_does_not_enter_the_plan(self, project: Project) -> None:
        other = changed(project, train={"seed": 97})
        train = other.make("train").artifact
        viewing = changed(project, eval={"num_samples": 2})
        before = viewing.plan()
        assert before["eval"].key is not None
        assert before["eval"].artifact is None
        outcome = viewing.make("eval", viewing.inputs_of_model("eval", train))
        assert outcome.artifact.manifest.inputs["train"]["digest"] == train.digest
        assert viewing.plan() == before

    def test_an_unknown_stage_is_refused(self, empty: Project) -> None:
        for call in (empty.plan, empty.run, empty.make):
            with pytest.raises(UsageError, match="`trian` is not a stage") as caught:
                call("trian")
            assert caught.value.hint == "did you mean `train`?"
            with pytest.raises(UsageError) as caught:
                call("models")
            stages = f"the stages are {', '.join(STAGES)}"
            assert caught.value.hint == f"{stages}; `train` makes the models"
        assert empty.artifacts() == []


class TestRunning:
    def test_it_runs_until_a_stage_and_reports_every_outcome_in_order(
        self, pipeline_config: Config, tmp_path: Path
    ) -> None:
        reported: list[Outcome] = []
        project = Project(
            pipeline_config,
            tmp_path / "artifacts",
            on_outcome=reported.append,
            provenance={"command": ["run"]},
        )
        outcomes = project.run("build-dataset")
        assert list(outcomes) == ["corpus", "tokenize", "build-dataset"]
        assert list(outcomes.values()) == reported
        assert not any(outcome.cached for outcome in reported)
        for artifact in project.artifacts():
            assert artifact.manifest.provenance["command"] == ["run"]
        assert len(project.artifacts()) == 3
        assert project.artifacts("tokenize") == [outcomes["tokenize"].artifact]

    def test_the_second_time_everything_is_cached(self, project: Project) -> None:
        outcomes = project.run("train")
        assert [outcome.cached for outcome in outcomes.values()] == [True] * 4

    def test_only_the_named_stages_are_forced(self, project: Project) -> None:
        outcomes = project.run("train", force=["tokenize"])
        ran = {name for name, outcome in outcomes.items() if not outcome.cached}
        assert ran == {"tokenize"}
        assert outcomes["tokenize"].reproduced

    def test_limits_stop_training_and_running_again_continues_it(self, project: Project) -> None:
        leave_unfinished(project, seed=96)
        other = changed(project, train={"seed": 96})
        assert not other.run("train")["train"].cached
        assert "continuing at step 2 of 4" in notes(project)

    def test_training_continues_from_another_model(self, project: Project) -> None:
        model = project.artifacts("train")[0]
        further = changed(project, train={"init_from": model.id}).make("train").artifact
        assert further.digest != model.digest
        assert further.manifest.tables["train"]["init_from"] == model.digest

    def test_config_and_store_come_from_the_working_directory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "tinygpt.toml").write_text('[data]\nsource = "builtin"\nmax_documents = 40\n')
        monkeypatch.chdir(tmp_path)
        project = Project()
        assert project.config.data == DataConfig(source="builtin", max_documents=40)
        assert project.store.root == tmp_path / "artifacts"
        assert project.make("corpus").artifact.folder.is_relative_to(tmp_path / "artifacts")


class TestSource:
    def test_the_corpus_is_made_when_an_input_needs_it(self, empty: Project) -> None:
        assert empty.inputs("tokenize").keys() == {"corpus"}
        assert [artifact.stage for artifact in empty.artifacts()] == ["corpus"]

    def test_the_corpus_is_not_made_if_the_source_may_not_be_read(
        self, pipeline_config: Config, tmp_path: Path
    ) -> None:
        project = Project(pipeline_config, tmp_path / "artifacts", may_read_source=False)
        with pytest.raises(MissingArtifactError, match="no result of `corpus`") as caught:
            project.inputs("tokenize")
        assert caught.value.hint == "run `tinygpt run --until corpus`"
        assert project.artifacts() == []

    def test_missing_inputs_beside_the_corpus_are_named(self, empty: Project) -> None:
        with pytest.raises(MissingArtifactError, match="no result of `build-dataset`"):
            empty.make("train")

    def test_a_source_that_is_gone_is_taken_as_unchanged(
        self, empty: Project, tmp_path: Path
    ) -> None:
        source = tmp_path / "my.txt"
        source.write_text("Once.\n<|endoftext|>\nTwice.\n")
        on_file = changed(empty, data={"source": str(source)})
        corpus = on_file.make("corpus").artifact
        source.unlink()
        later = Project(on_file.config, empty.store, reporter=Notes())
        assert later.plan()["corpus"].artifact == corpus
        (note,) = notes(later)
        assert note.endswith("; using the corpus that was read from it earlier")
        with pytest.raises(InputError, match=r"never\.txt"):
            changed(empty, data={"source": "never.txt"}).plan()

    def test_a_source_that_changes_before_it_is_read_gets_the_key_of_what_is_read(
        self, empty: Project, tmp_path: Path
    ) -> None:
        source = tmp_path / "my.txt"
        source.write_text("Once.\n")
        project = changed(empty, data={"source": str(source)})
        before = project.plan()["corpus"].key
        source.write_text("Twice.\n")
        corpus = project.make("corpus").artifact
        assert corpus.key != before
        assert project.plan()["corpus"].artifact == corpus
        source.write_text("Once.\n")
        again = Project(project.config, project.store)
        assert again.plan()["corpus"].key == before
        assert again.plan()["corpus"].artifact is None

    @pytest.mark.parametrize(
        ("may_read_source", "refresh_source", "known", "asked"),
        [
            (True, False, False, True),
            (True, False, True, False),
            (True, True, True, True),
            (False, False, False, False),
            (False, True, True, False),
        ],
    )
    def test_the_hub_is_asked_before_a_corpus_is_made_or_if_it_is_to_be_refreshed(
        self,
        pipeline_config: Config,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        may_read_source: bool,
        refresh_source: bool,
        known: bool,
        asked: bool,
    ) -> None:
        monkeypatch.setattr("tinygpt.corpus.fingerprint", lambda data: "org/name@new")
        store = Store(tmp_path / "artifacts")
        if known:
            out = store.begin("corpus", Key("0" * 64))
            out.provenance(source="org/name", fingerprint="org/name@old")
            store.publish(out)
        project = Project(
            with_settings(pipeline_config, data={"source": "org/name"}),
            store,
            may_read_source=may_read_source,
            refresh_source=refresh_source,
        )
        expected = "org/name@old" if known else "org/name"
        assert project.external_digests == {"data.source": "org/name@new" if asked else expected}


class TestOtherConfiguration:
    def test_it_has_a_plan_of_its_own(self, project: Project) -> None:
        planned = project.plan("train")
        other = changed(project, train={"max_steps": 5})
        assert other.plan("train")["train"].why == "train.max_steps 4 -> 5"
        assert other.plan("train")["build-dataset"] == planned["build-dataset"]
        assert project.plan("train") == planned
        assert project.config.train.max_steps == 4

    def test_external_digests_are_kept_as_long_as_the_names_stay(
        self, project: Project, tmp_path: Path
    ) -> None:
        digests = project.external_digests
        same = changed(project, train={"max_steps": 5}, sample={"prompt": "Tom"})
        assert same.external_digests is digests
        text = tmp_path / "text.txt"
        text.write_text("Tom saw a cat.")
        with_text = changed(project, eval={"text": str(text)})
        assert with_text.external_digests == digests | {
            "eval.text": given_fingerprint(str(text), project.config.data)
        }
        otherwise = changed(project, eval={"text": str(text)}, data={"text_field": "story"})
        assert otherwise.external_digests["eval.text"] != with_text.external_digests["eval.text"]
        model = project.artifacts("train")[0]
        with_model = changed(project, train={"init_from": model.id[:6]})
        assert with_model.external_digests == digests | {"train.init_from": model.digest}
        other_source = changed(project, data={"source": "builtin@7"})
        assert other_source.external_digests != digests
        assert project.external_digests is digests

    def test_a_text_that_cannot_be_read_is_an_input_error(
        self, project: Project, tmp_path: Path
    ) -> None:
        missing = tmp_path / "missing.txt"
        with pytest.raises(InputError, match=r"missing\.txt` does not exist") as caught:
            changed(project, eval={"text": str(missing)}).plan()
        assert caught.value.hint == "name a file or folder with text in it"


class TestFindingModels:
    def test_the_configured_model_is_found_without_a_note(self, project: Project) -> None:
        assert project.find_model() == project.artifacts("train")[0]
        assert notes(project) == []

    def test_without_a_network_the_newest_stands_in_for_one_of_a_hub_dataset(
        self, project: Project
    ) -> None:
        hub = changed(project, data={"source": "roneneldan/TinyStories"})
        with pytest.raises(NetworkError):
            hub.plan()
        assert hub.find_model() == project.artifacts("train")[0]
        with pytest.raises(NetworkError):
            hub.find_model(or_newest=False)

    def test_an_id_its_beginning_and_a_folder_name_a_model(
        self, project: Project, tmp_path: Path
    ) -> None:
        train = project.artifacts("train")[0]
        for name in (train.id, train.key, train.id[:5], f"train/{train.id}"):
            assert project.find_model(name) == train
        copy = shutil.copytree(train.folder, tmp_path / "copy")
        assert project.find_model(str(copy)).digest == train.digest

    def test_a_name_that_is_no_model_is_refused(self, project: Project, empty: Project) -> None:
        train = project.artifacts("train")[0]
        with pytest.raises(MissingArtifactError, match="no trained model `0000`") as caught:
            project.find_model("0000")
        assert caught.value.hint == f"trained models here: `{train.id}`"
        with pytest.raises(MissingArtifactError) as caught:
            empty.find_model("0000")
        assert caught.value.hint == "train one with `tinygpt run`"
        with pytest.raises(UsageError, match="not the id of an artifact"):
            project.find_model("my-model")

    def test_a_folder_that_is_no_whole_model_is_refused(
        self, project: Project, tmp_path: Path
    ) -> None:
        with pytest.raises(UsageError, match="holds a `corpus` artifact"):
            project.find_model(str(project.artifacts("corpus")[0].folder))
        train = project.artifacts("train")[0]
        copy = shutil.copytree(train.folder, tmp_path / "copy")
        (copy / "model.safetensors").write_bytes(b"")
        with pytest.raises(CorruptArtifactError, match=r"model\.safetensors") as caught:
            project.find_model(str(copy))
        assert caught.value.hint == (
            "a copy of a model takes these files from its store: `manifest.json`, `config.json`, "
            "`model.safetensors`, `probe.safetensors`, `tokenizer.json`"
        )
        (copy / "manifest.json").unlink()
        with pytest.raises(MissingArtifactError, match="there is no model in") as missing:
            project.find_model(str(copy))
        assert missing.value.hint == caught.value.hint

    def test_a_copy_of_the_essential_files_alone_is_a_model(
        self, project: Project, tmp_path: Path
    ) -> None:
        train = project.artifacts("train")[0]
        copy = tmp_path / "copy"
        copy.mkdir()
        for name in (MANIFEST, *MODEL_FILES):
            shutil.copy(train.path(name), copy)
        found = project.find_model(str(copy))
        assert (found.digest, found.stage) == (train.digest, "train")
        assert "optimizer.safetensors" in found.missing()
        for name in MODEL_FILES:
            (copy / name).rename(tmp_path / "aside")
            with pytest.raises(CorruptArtifactError, match=f"`{name}` is missing"):
                project.find_model(str(copy))
            (tmp_path / "aside").rename(copy / name)
        (copy / "metrics.jsonl").write_bytes(b"damaged, and not needed")
        assert project.find_model(str(copy)) == found

    def test_the_newest_stands_in_for_the_configured_one_with_a_note_if_it_may(
        self, project: Project
    ) -> None:
        other = changed(project, train={"max_steps": 7})
        with pytest.raises(MissingArtifactError, match="no result of `train`"):
            other.find_model(or_newest=False)
        train = project.artifacts("train")[0]
        assert other.find_model() == train
        expected = f"using run {describe_run(train)}, the newest in `{project.store.root}`"
        assert notes(project) == [expected]

    def test_the_checkpoint_of_the_configured_run_comes_before_the_newest_model(
        self, project: Project
    ) -> None:
        unfinished = leave_unfinished(project, seed=95)
        notes(project).clear()
        model = unfinished.find_model()
        assert (model.stage, model.manifest.provenance["step"]) == ("checkpoint", 2)
        assert notes(project) == [f"run {model.id} is not finished: using its checkpoint of step 2"]

    def test_a_run_is_described_by_preset_age_and_perplexity(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        train = project.artifacts("train")[0]
        perplexity = validation_perplexities(train)[-1]
        assert len(validation_perplexities(train)) == 3
        text = describe_run(train)
        assert text.startswith(f"{train.id} (")
        assert text.endswith(f" old, perplexity {perplexity:.3g})")
        monkeypatch.setattr(
            "tinygpt.trained_models.validation_perplexities", lambda train: [1234.5]
        )
        assert describe_run(train).endswith(" old, perplexity 1,234)")
        train.manifest.provenance["preset"] = "demo"
        assert describe_run(train).startswith(f"{train.id} (preset demo, ")


class TestInputsOfModels:
    def test_they_are_what_the_model_was_made_from(self, project: Project) -> None:
        train = project.artifacts("train")[0]
        # Another configuration, which has made none of these
        other = changed(project, data={"source": "builtin@7"})
        inputs = other.inputs_of_model("eval", train)
        assert list(inputs) == list(STAGES["eval"].inputs)
        for name in ("tokenize", "build-dataset"):
            assert inputs[name].digest == train.manifest.inputs[name]["digest"]
        evaluation = other.make("eval", inputs).artifact
        assert other.inputs_of_model("plot", train)["eval"] == evaluation

    def test_a_model_from_elsewhere_has_its_tokenizer_with_it(
        self, project: Project, empty: Project
    ) -> None:
        train = project.artifacts("train")[0]
        assert empty.inputs_of_model("sample", train) == {"train": train, "tokenize": train}
        message = f"model `{train.id}` was made from"
        with pytest.raises(MissingArtifactError, match=message) as caught:
            empty.inputs_of_model("plot", train)
        again = "make it again with `tinygpt run --until build-dataset`"
        assert caught.value.hint == again
        with pytest.raises(MissingArtifactError, match=message) as caught:
            empty.inputs_of_model("eval", train, "my model")
        on_text = "or evaluate it on a text: `tinygpt eval --model 'my model' --text my.txt`"
        assert caught.value.hint == f"{again}, {on_text}"

    def test_a_text_is_evaluated_without_the_data_of_the_model(
        self, project: Project, empty: Project, tmp_path: Path
    ) -> None:
        text = tmp_path / "text.txt"
        text.write_text("Once there was a cat.\nShe was happy.\n")
        train = project.artifacts("train")[0]
        evaluations = []
        for where in (project, empty):
            judging = changed(where, eval={"text": str(text)})
            outcome = judging.make("eval", judging.inputs_of_model("eval", train))
            evaluations.append(outcome.artifact.read_json("eval.json"))
        full, alone = evaluations
        assert full["baselines"]
        assert full["generation_metrics"]
        without = {"baselines": {}, "generation_metrics": None}
        assert alone == {**full, **without, "label": None}
        assert notes(empty)[0] == (
            f"model `{train.id}` was made from `build-dataset/"
            f"{train.manifest.inputs['build-dataset']['key'][:12]}`, which is not in "
            f"`{empty.store.root}`: no baselines, no generation quality"
        )

    def test_a_missing_evaluation_names_the_command_that_makes_it(self, project: Project) -> None:
        train = project.artifacts("train")[0]
        other = changed(project, eval={"num_samples": 2})
        with pytest.raises(MissingArtifactError, match="no result of `eval`") as caught:
            other.inputs_of_model("plot", train)
        assert caught.value.hint == "run `tinygpt eval`"
        with pytest.raises(MissingArtifactError) as caught:
            other.inputs_of_model("plot", train, "my models/1")
        assert caught.value.hint == "run `tinygpt eval --model 'my models/1'`"


class TestPreparingTraining:
    def test_without_inputs_it_is_refused(self, empty: Project) -> None:
        with pytest.raises(MissingArtifactError, match="no result of `build-dataset`"):
            empty.prepare_training(resume=True, fresh=False)

    def test_fresh_sets_an_unfinished_run_aside(self, project: Project) -> None:
        unfinished = leave_unfinished(project, seed=94)
        notes(project).clear()
        unfinished.prepare_training(resume=False, fresh=True)
        assert project.store.unfinished_runs() == []
        (note,) = notes(project)
        assert note.startswith("the unfinished run ")
        assert ".trash" in note

    def test_resume_accepts_an_unfinished_run_and_an_empty_store_of_runs(
        self, project: Project
    ) -> None:
        other = changed(project, train={"seed": 93})
        other.prepare_training(resume=True, fresh=False)
        assert notes(project) == ["nothing to resume: starting a new run"]
        leave_unfinished(project, seed=93)
        notes(project).clear()
        other.prepare_training(resume=True, fresh=False)
        assert notes(project) == []
        assert len(project.store.unfinished_runs()) == 1

    def test_resume_refuses_the_unfinished_run_of_another_configuration(
        self, project: Project
    ) -> None:
        leave_unfinished(project, seed=92)
        (run,) = project.store.unfinished_runs()
        with pytest.raises(UsageError) as caught:
            changed(project, train={"seed": 91}).prepare_training(resume=True, fresh=False)
        expected = f"run {run.key12} (step 2) differs in train.seed 92 -> 91"
        assert caught.value.message.endswith(expected)

    def test_resume_of_a_finished_run_names_the_command_that_continues_it(
        self, project: Project
    ) -> None:
        train = project.artifacts("train")[0]
        longer = changed(project, train={"max_steps": 10})
        with pytest.raises(UsageError, match="is finished after 4 steps") as caught:
            longer.prepare_training(resume=True, fresh=False)
        command = f"`tinygpt train --from {train.id} --max-steps 6`"
        assert str(caught.value.hint).startswith(command)
