"""Where values come from, and who wins."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from tinygpt.config import (
    PRESETS,
    Config,
    FileSource,
    SampleConfig,
    TrainConfig,
    find_config,
    load_config,
    parse_source,
    store_root,
)
from tinygpt.config.fields import FIELDS, read_text, requirement


def test_nothing_given_is_the_reference(load):
    loaded = load()
    assert loaded.config == Config() == load(preset="reference").config
    assert set(loaded.origins.values()) == {"default"}
    assert set(loaded.origins) == set(FIELDS)
    assert (loaded.preset, loaded.notes) == (None, ())


def test_each_place_wins_over_the_one_below(load):
    places: list[tuple[str, dict]] = [
        ("preset laptop", {"text": 'preset = "laptop"'}),
        ("tinygpt.toml", {"text": 'preset = "laptop"\n[train]\nmax_steps = 11'}),
        ("environment TINYGPT_TRAIN_MAX_STEPS", {"environ": {"TINYGPT_TRAIN_MAX_STEPS": "12"}}),
        ("--set", {"sets": ["train.max_steps=1", "train.max_steps=13"]}),
        ("--max-steps", {"flags": {"train.max_steps": ("--max-steps", 14)}}),
    ]
    given: dict = {}
    values = [Config().train.max_steps]
    for origin, addition in places:
        given |= addition
        loaded = load(**given)
        assert loaded.origins["train.max_steps"] == origin
        values.append(loaded.config.train.max_steps)
    assert values[2:] == [11, 12, 13, 14]
    assert len(set(values)) == len(values)
    assert loaded.origins["train.schedule"] == "preset laptop"
    assert loaded.origins["train.beta1"] == "default"


def test_the_file_is_found_upwards_and_is_the_nearest(tmp_path):
    (tmp_path / "tinygpt.toml").write_text("[train]\nmax_steps = 3")
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    assert load_config(cwd=deep, environ={}).config.train.max_steps == 3
    (tmp_path / "a" / "tinygpt.toml").write_text("[train]\nmax_steps = 4")
    assert load_config(cwd=deep, environ={}).config.train.max_steps == 4
    assert find_config(deep) == tmp_path / "a" / "tinygpt.toml"


@pytest.mark.parametrize("how", [{"preset": "demo"}, {"environ": {"TINYGPT_PRESET": "demo"}}], ids=["flag", "environment"])
def test_a_preset_replaces_a_file_that_was_only_found_and_says_so(load, how):
    loaded = load("[train]\nmax_steps = 3", **how)
    assert loaded.preset == "demo"
    assert loaded.config.train.max_steps != 3
    assert len(loaded.notes) == 1
    assert "tinygpt.toml" in loaded.notes[0]


def test_an_explicit_file_lies_over_the_preset(load):
    loaded = load("[train]\nmax_steps = 3", name="mine.toml", preset="demo")
    assert (loaded.config.train.max_steps, loaded.config.data.source, loaded.notes) == (3, "builtin", ())
    named = load('preset = "laptop"\n[train]\nmax_steps = 3', name="mine.toml", preset="demo")
    assert named.config == loaded.config
    assert "laptop" in named.notes[0]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_loads_and_trains_for_any_number_of_steps(load, preset):
    for steps in (1, 2, 10**9):
        assert load(preset=preset, sets=[f"train.max_steps={steps}"]).config.train.max_steps == steps


def test_demo_and_laptop_say_only_what_differs_from_reference(load):
    for preset in ("demo", "laptop"):
        loaded = load(preset=preset)
        for name, origin in loaded.origins.items():
            table, key = name.split(".")
            differs = getattr(getattr(loaded.config, table), key) != getattr(getattr(Config(), table), key)
            assert differs == (origin == f"preset {preset}"), name


def test_relative_paths_start_from_the_file_that_sets_them_else_from_the_working_directory(load, tmp_path):
    (tmp_path / "project").mkdir()
    text = '[data]\nsource = "../stories/*.txt"\n[eval]\ntext = "judge.txt"'
    config = load(text, name="project/mine.toml").config
    assert config.data.source == str(tmp_path / "stories" / "*.txt")
    assert config.eval.text == str(tmp_path / "project" / "judge.txt")
    for given in (
        {"sets": ["data.source=a.txt"]},
        {"flags": {"data.source": ("--source", "a.txt")}},
        {"environ": {"TINYGPT_DATA_SOURCE": "a.txt"}},
    ):
        assert load(**given).config.data.source == str(tmp_path / "a.txt")


@pytest.mark.parametrize("source", ["builtin", "builtin@7", "roneneldan/TinyStories", "a/b@main", "-"])
def test_sources_that_are_no_files_stay_as_written(load, source):
    assert load(sets=[f"data.source={source}"]).config.data.source == source


def test_a_folder_whose_name_looks_like_a_glob_is_no_glob(load, tmp_path):
    source = parse_source("*.txt", tmp_path / "[a]")
    assert isinstance(source, FileSource)
    assert source.pattern == str(tmp_path / "[[]a]" / "*.txt")


def test_the_word_none_is_off_where_a_key_allows_it(load):
    for text, name in (('[train]\nwarmup_steps = "none"', "a.toml"), ("train:\n  warmup_steps: null", "a.yaml")):
        assert load(text, name=name).config.train.warmup_steps is None
    config = load(sets=["train.warmup_steps=none", "model.positions=none", "train.sample_prompt=none"]).config
    assert config.train.warmup_steps is None
    assert config.model.positions == "none"
    assert config.train.sample_prompt == "none"
    assert TrainConfig.model_validate({"grad_clip": "none"}).grad_clip is None


def test_a_text_is_read_by_the_type_of_its_key(load):
    sets = ['sample.stop=["a", "b"]', "sample.prompt=say 1.0", "data.clean=true", "train.learning_rate=3e-3", "model.dropout=.5"]
    config = load(sets=sets).config
    assert (config.sample.stop, config.sample.prompt) == (("a", "b"), "say 1.0")
    assert (config.data.clean, config.train.learning_rate, config.model.dropout) == (True, 3e-3, 0.5)
    assert read_text("train.max_steps", "1_000") == 1000
    assert read_text("train.max_steps", "many") == "many"


def test_a_flag_that_was_not_given_changes_nothing(load):
    assert load(flags={"sample.seed": ("--seed", None)}).origins["sample.seed"] == "default"


def test_an_empty_variable_is_unset_and_others_are_not_ours(load):
    environ = {"TINYGPT_TRAIN_MAX_STEPS": "", "TINYGPT_PRESET": "", "TINYGPT_STORE": "x", "TINYGPT_OTHER": "1", "HOME": "/"}
    assert load(environ=environ).config == Config()


def test_what_others_write_by_habit_is_understood(load):
    assert load(b"\xef\xbb\xbf[train]\r\nseed = 5\r\n").config.train.seed == 5
    assert load("train:\n  learning_rate: 3e-4\n  seed: 1_0\n", name="a.yaml").config.train.learning_rate == 3e-4
    assert load("train:\n", name="b.yml").config == load("", name="c.yaml").config == Config()


def test_a_configuration_cannot_be_changed():
    with pytest.raises(ValidationError):
        Config().train.max_steps = 5  # type: ignore[misc]
    with pytest.raises(ValidationError):
        SampleConfig(num_samples=True)


def test_the_store_is_named_or_beside_the_file_found_or_here(tmp_path):
    below = tmp_path / "a"
    below.mkdir()
    assert store_root(None, cwd=below, environ={}) == below / "artifacts"
    (tmp_path / "tinygpt.toml").touch()
    assert store_root(None, cwd=below, environ={}) == tmp_path / "artifacts"
    assert store_root(None, cwd=below, environ={"TINYGPT_STORE": "s"}) == below / "s"
    assert store_root(Path("t"), cwd=below, environ={"TINYGPT_STORE": "s"}) == below / "t"


def test_every_key_has_words_for_its_values():
    for name, field in FIELDS.items():
        assert requirement(name)
        assert field.description
        assert field.description[0] != " "
        assert not field.description.endswith(".")
    assert requirement("train.batch_size") == "an integer, at least 1 and at most 65536"
    assert requirement("train.warmup_fraction") == 'a number, at least 0 and at most 1, or "none"'
    assert requirement("eval.text") == 'text or "none"'
