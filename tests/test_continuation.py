"""Continuing a finished model: what a new run takes from it, and what must be equal."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.helpers import Notes, with_settings
from tinygpt.config import Config, ModelConfig
from tinygpt.continuation import FREE, find_tokenizer, tables_of_model, tokenizer_digest
from tinygpt.errors import ConfigError, MissingArtifactError, UsageError
from tinygpt.project import Project
from tinygpt.store import Artifact


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    """A copy of the finished project, which a test may change."""
    root = shutil.copytree(finished.store.root, tmp_path / "artifacts")
    return Project(finished.config, root, reporter=Notes())


@pytest.fixture
def model(project: Project) -> Artifact:
    """The model of that project."""
    return project.artifacts("train")[0]


def continuing(project: Project, origin: Artifact, **tables: Mapping[str, object]) -> Project:
    """The project of a run that continues a model, with some settings changed."""
    train = {"init_from": origin.id, **tables.pop("train", {})}
    return project.with_config(with_settings(project.config, train=train, **tables))


def test_the_tables_of_a_model_are_the_configuration_that_made_it(
    project: Project, model: Artifact
) -> None:
    config = Config.model_validate(tables_of_model(project.store, model.id[:5]))
    for table in ("data", "tokenizer", "dataset", "model", "train"):
        assert getattr(config, table) == getattr(project.config, table), table


def test_of_a_model_without_its_data_only_its_own_tables_are_known(
    project: Project, model: Artifact
) -> None:
    for stage in ("corpus", "tokenize"):
        shutil.rmtree(project.store.root / stage)
    assert tables_of_model(project.store, model.id).keys() == {"model", "train"}


@pytest.mark.parametrize("key", sorted(ModelConfig.model_fields))
def test_every_key_of_the_shape_must_be_that_of_the_model(
    project: Project, model: Artifact, key: str
) -> None:
    others = {"d_model": 8, "norm": "post", "activation": "relu", "positions": "none"}
    others |= {"tie_embeddings": False, "weight_init": "copying", "dropout": 0.5}
    here = others.get(key, 1)
    other = continuing(project, model, model={key: here})
    there = model.manifest.tables["model"][key]
    assert here != there
    if key in FREE:
        assert other.plan("train")["train"].key is not None
        return
    with pytest.raises(ConfigError, match=rf"`model\.{key}` = .* cannot continue") as caught:
        other.plan("corpus")  # before anything is made
    shown = [str(value).lower() for value in (here, there)]
    assert all(value in caught.value.message for value in shown)
    assert f"set `model.{key}` = " in str(caught.value.hint)
    assert caught.value.exit_code == 2


def test_another_tokenizer_of_as_many_entries_is_refused_as_soon_as_it_is_made(
    project: Project, model: Artifact
) -> None:
    other = continuing(project, model, data={"source": "builtin@9"})
    made = {entry.stage for entry in other.artifacts()}
    with pytest.raises(ConfigError, match="cannot continue model") as caught:
        other.run("train")
    tokenize = other.artifacts("tokenize")[0]
    assert tokenize.manifest.inputs["corpus"]["digest"] != project.artifacts("corpus")[1].digest
    assert tokenize.read_json("statistics.json")["vocab_size"] == 300
    for digest in (tokenizer_digest(tokenize), tokenizer_digest(model)):
        assert digest[:19] in caught.value.message
    assert f"--set tokenizer.from={model.id}`" in str(caught.value.hint)
    assert {entry.stage for entry in other.artifacts()} == made
    assert len(other.artifacts("build-dataset")) == 1


def test_training_itself_checks_the_tokenizer_too(project: Project, model: Artifact) -> None:
    elsewhere = project.with_config(with_settings(project.config, data={"source": "builtin@9"}))
    elsewhere.run("build-dataset")
    other = continuing(project, model, data={"source": "builtin@9"})
    with pytest.raises(ConfigError, match="cannot continue model"):
        other.make("train", elsewhere.inputs("train"))


def test_a_model_continues_on_other_text_with_its_own_tokenizer(
    project: Project, model: Artifact
) -> None:
    reused = {"from_": model.id}
    other = continuing(project, model, data={"source": "builtin@9"}, tokenizer=reused)
    outcomes = other.run("sample")
    tokenize = outcomes["tokenize"].artifact
    assert tokenize.read("tokenizer.json") == model.read("tokenizer.json")
    assert tokenize.manifest.tables["tokenizer"]["from"] == tokenizer_digest(model)
    corpus = outcomes["corpus"].artifact
    assert tokenize.manifest.inputs["corpus"]["digest"] == corpus.digest
    assert outcomes["train"].artifact.manifest.tables["train"]["init_from"] == model.digest
    assert [outcome.cached for outcome in other.run("sample").values()] == [True] * 6
    # measured on the new text, not copied with the tokenizer
    statistics = tokenize.read_json("statistics.json")
    old = project.artifacts("tokenize")[-1].read_json("statistics.json")
    assert statistics["train"] != old["train"]
    rows = dict(tokenize.read_json("summary.json")["rows"])
    assert rows["entries"] == "300 (of `tokenizer.from`, not learned here)"


def test_a_model_and_its_tokenize_artifact_name_one_tokenizer(
    project: Project, model: Artifact
) -> None:
    keys = set()
    for name in (model.id, f"tokenize/{project.artifacts('tokenize')[0].id}"):
        config = with_settings(project.config, tokenizer={"from_": name})
        keys.add(project.with_config(config).plan("tokenize")["tokenize"].key)
    assert len(keys) == 1
    assert keys != {project.plan("tokenize")["tokenize"].key}


def test_a_model_that_was_continued_with_a_reused_tokenizer_can_be_continued_again(
    project: Project, model: Artifact
) -> None:
    reused = {"from_": model.id}
    data = {"source": "builtin@9"}
    first = continuing(project, model, data=data, tokenizer=reused).run("train")["train"].artifact
    config = Config.model_validate(tables_of_model(project.store, first.id))
    assert config.tokenizer.from_ == first.id
    assert config.data.source == "builtin@9"
    train = config.train.model_copy(update={"init_from": first.id})
    second = project.with_config(config.model_copy(update={"train": train}))
    assert second.plan("train")["build-dataset"].why == "cached"
    assert second.make("train").artifact.manifest.tables["train"]["init_from"] == first.digest


def test_what_holds_no_tokenizer_is_refused(project: Project) -> None:
    corpus = project.artifacts("corpus")[0]
    with pytest.raises(UsageError, match="is a `corpus` artifact"):
        find_tokenizer(project.store, corpus.id)
    with pytest.raises(MissingArtifactError):
        find_tokenizer(project.store, "00000000")
