"""Where values come from, and which of several wins."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from tinygpt.config import (
    DEFAULT_PRESET,
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
from tinygpt.config.source import file_pattern

# Files, presets, environment, flags


def test_without_file_and_preset_the_default_preset_is_used_and_noted(load):
    loaded = load()
    assert DEFAULT_PRESET == "laptop"
    assert loaded.preset == "laptop"
    assert loaded.config == load(preset="laptop").config
    assert loaded.config != Config()
    assert loaded.origins["train.schedule"] == "preset laptop"
    assert loaded.notes == ()
    assert loaded.default_notes == ("no tinygpt.toml here: using preset laptop",)


def test_values_given_in_other_places_win_over_the_default_preset(load):
    loaded = load(
        sets=["train.seed=3"],
        flags={"train.max_steps": ("--max-steps", 4)},
        environ={"TINYGPT_TRAIN_EVAL_EVERY": "5"},
    )
    assert loaded.preset == "laptop"
    assert len(loaded.default_notes) == 1
    assert loaded.config.train.schedule == "linear"
    assert loaded.config.train.seed == 3
    assert loaded.config.train.max_steps == 4
    assert loaded.config.train.eval_every == 5


@pytest.mark.parametrize("name", ["tinygpt.toml", "mine.toml"])
def test_a_file_without_a_preset_lies_over_the_defaults(load, name):
    loaded = load("", name=name)
    assert loaded.config == Config()
    assert set(loaded.origins.values()) == {"default"}
    assert set(loaded.origins) == set(FIELDS)
    assert loaded.preset is None
    assert loaded.notes == ()
    assert loaded.default_notes == ()


def test_a_file_may_name_the_preset_it_lies_over(load):
    loaded = load('preset = "demo"\n[train]\nmax_steps = 3')
    assert loaded.preset == "demo"
    assert loaded.config.data.source == "builtin"
    assert loaded.config.train.max_steps == 3
    assert loaded.notes == ()
    assert loaded.default_notes == ()


@pytest.mark.parametrize(
    "arguments",
    [{"preset": "laptop"}, {"environ": {"TINYGPT_PRESET": "laptop"}}],
    ids=["flag", "environment"],
)
def test_a_preset_that_was_named_is_not_noted(load, arguments):
    loaded = load(**arguments)
    assert loaded.preset == "laptop"
    assert loaded.config == load().config
    assert loaded.notes == ()
    assert loaded.default_notes == ()


def test_the_preset_of_the_flag_wins_over_that_of_the_environment(load):
    assert load(preset="demo", environ={"TINYGPT_PRESET": "laptop"}).preset == "demo"


def test_preset_reference_is_the_defaults(load):
    assert load(preset="reference").config == Config()


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


def test_the_nearest_file_in_the_folders_above_is_found(tmp_path):
    (tmp_path / "tinygpt.toml").write_text("[train]\nmax_steps = 3")
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    assert load_config(cwd=deep, environ={}).config.train.max_steps == 3
    (tmp_path / "a" / "tinygpt.toml").write_text("[train]\nmax_steps = 4")
    assert load_config(cwd=deep, environ={}).config.train.max_steps == 4
    assert find_config(deep) == tmp_path / "a" / "tinygpt.toml"


@pytest.mark.parametrize(
    "arguments",
    [{"preset": "demo"}, {"environ": {"TINYGPT_PRESET": "demo"}}],
    ids=["flag", "environment"],
)
def test_a_preset_replaces_a_file_that_was_only_found_and_a_note_says_so(load, arguments):
    loaded = load("[train]\nmax_steps = 3", **arguments)
    assert loaded.preset == "demo"
    assert loaded.config.train.max_steps != 3
    assert len(loaded.notes) == 1
    assert "tinygpt.toml" in loaded.notes[0]
    assert loaded.default_notes == ()


def test_a_file_that_was_named_lies_over_the_preset(load):
    loaded = load("[train]\nmax_steps = 3", name="mine.toml", preset="demo")
    assert loaded.config.train.max_steps == 3
    assert loaded.config.data.source == "builtin"
    assert loaded.notes == ()


def test_a_named_preset_replaces_that_of_the_file_and_a_note_says_so(load):
    text = "[train]\nmax_steps = 3"
    loaded = load(f'preset = "laptop"\n{text}', name="mine.toml", preset="demo")
    assert loaded.config == load(text, name="mine.toml", preset="demo").config
    assert "laptop" in loaded.notes[0]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("steps", [1, 2, 10**9])
def test_every_preset_can_train_for_any_number_of_steps(load, preset, steps):
    config = load(preset=preset, sets=[f"train.max_steps={steps}"]).config
    assert config.train.max_steps == steps


@pytest.mark.parametrize("preset", ["demo", "laptop"])
def test_a_preset_contains_only_what_differs_from_reference(load, preset):
    loaded = load(preset=preset)
    for name, origin in loaded.origins.items():
        table, key = name.split(".")
        value = getattr(loaded.config, table).model_dump(by_alias=True)[key]
        default = getattr(Config(), table).model_dump(by_alias=True)[key]
        assert (value != default) == (origin == f"preset {preset}"), name


@pytest.mark.parametrize(
    ("source", "auto", "none"),
    [
        ("org/name", 50_000, None),
        ("org/name@v2", 50_000, None),
        ("builtin@3", 20_000, 20_000),  # it never ends
        ("a.txt", None, None),
        ("a.jsonl", None, None),
        ("folder/*", None, None),
        ("-", None, None),
    ],
)
def test_how_many_documents_are_taken_is_a_number_as_soon_as_the_configuration_is_read(
    load, source, auto, none
):
    def limit(*sets: str) -> int | str | None:
        return load(sets=[f"data.source={source}", *sets]).config.data.max_documents

    assert limit() == auto
    assert limit("data.max_documents=auto") == auto
    assert limit("data.max_documents=none") == none
    assert limit("data.max_documents=7") == 7


# Paths


def test_relative_paths_start_from_the_file_that_sets_them(load, tmp_path):
    (tmp_path / "project").mkdir()
    text = '[data]\nsource = "../stories/*.txt"\n[eval]\ntext = "judge.txt"'
    config = load(text, name="project/mine.toml").config
    assert config.data.source == str(tmp_path / "stories" / "*.txt")
    assert config.eval.text == str(tmp_path / "project" / "judge.txt")


@pytest.mark.parametrize(
    "arguments",
    [
        {"sets": ["data.source=a.txt"]},
        {"flags": {"data.source": ("--source", "a.txt")}},
        {"environ": {"TINYGPT_DATA_SOURCE": "a.txt"}},
    ],
    ids=["set", "flag", "environment"],
)
def test_relative_paths_outside_files_start_from_the_working_directory(load, tmp_path, arguments):
    assert load(**arguments).config.data.source == str(tmp_path / "a.txt")


@pytest.mark.parametrize(
    "source", ["builtin", "builtin@7", "roneneldan/TinyStories", "a/b@main", "-"]
)
def test_sources_that_are_not_files_stay_as_written(load, source):
    assert load(sets=[f"data.source={source}"]).config.data.source == source


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-", "-"),
        ("none", None),
        ("org/name", "org/name"),
        ("builtin", "builtin"),
        ("*.txt", "*.txt"),
    ],
)
def test_a_text_to_evaluate_is_standard_input_or_files(load, tmp_path, text, expected):
    path = expected if expected in ("-", None) else str(tmp_path / expected)
    assert load(sets=[f"eval.text={text}"]).config.eval.text == path


def test_a_folder_whose_name_looks_like_a_glob_is_not_a_glob(tmp_path):
    pattern = str(tmp_path / "[[]a]" / "*.txt")
    assert parse_source("*.txt", tmp_path / "[a]") == FileSource(pattern)
    assert file_pattern("*.txt", tmp_path / "[a]") == pattern
    assert file_pattern("~no-such-user/b.txt", tmp_path) == str(
        tmp_path / "~no-such-user" / "b.txt"
    )


def test_the_store_is_named_or_beside_the_file_found_or_here(tmp_path):
    below = tmp_path / "a"
    below.mkdir()
    assert store_root(None, cwd=below, environ={}) == below / "artifacts"
    (tmp_path / "tinygpt.toml").touch()
    assert store_root(None, cwd=below, environ={}) == tmp_path / "artifacts"
    assert store_root(None, cwd=below, environ={"TINYGPT_STORE": "s"}) == below / "s"
    assert store_root(Path("t"), cwd=below, environ={"TINYGPT_STORE": "s"}) == below / "t"


# Values


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('[train]\nwarmup_steps = "none"', "a.toml"),
        ("train:\n  warmup_steps: null", "a.yaml"),
    ],
    ids=["TOML", "YAML"],
)
def test_a_file_can_switch_a_key_off(load, text, name):
    assert load(text, name=name).config.train.warmup_steps is None


def test_the_word_none_means_off_only_where_a_key_allows_it(load):
    sets = ["train.warmup_steps=none", "model.positions=none", "train.sample_prompt=none"]
    config = load(sets=sets).config
    assert config.train.warmup_steps is None
    assert config.model.positions == "none"
    assert config.train.sample_prompt == "none"
    assert TrainConfig.model_validate({"grad_clip": "none"}).grad_clip is None


def test_a_text_is_read_by_the_type_of_its_key(load):
    sets = [
        'sample.stop=["a", "b"]',
        "sample.prompt=say 1.0",
        "data.clean=true",
        "train.learning_rate=3e-3",
        "model.dropout=.5",
    ]
    config = load(sets=sets).config
    assert config.sample.stop == ("a", "b")
    assert config.sample.prompt == "say 1.0"
    assert config.data.clean is True
    assert config.train.learning_rate == 3e-3
    assert config.model.dropout == 0.5
    assert read_text("train.max_steps", "1_000") == 1000
    assert read_text("train.max_steps", "many") == "many"


def test_a_flag_that_was_not_given_changes_nothing(load):
    loaded = load(flags={"sample.seed": ("--seed", None)})
    assert loaded.config == load().config
    assert loaded.origins["sample.seed"] == "default"


def test_empty_variables_and_those_of_other_programs_change_nothing(load):
    environ = {
        "TINYGPT_TRAIN_MAX_STEPS": "",
        "TINYGPT_PRESET": "",
        "TINYGPT_STORE": "x",
        "TINYGPT_OTHER": "1",
        "HOME": "/",
    }
    assert load(environ=environ) == load(environ={})


def test_byte_order_marks_and_line_ends_of_windows_are_read(load):
    assert load(b"\xef\xbb\xbf[train]\r\nseed = 5\r\n").config.train.seed == 5


def test_yaml_numbers_may_be_written_as_in_toml(load):
    train = load("train:\n  learning_rate: 3e-4\n  seed: 1_0\n", name="a.yaml").config.train
    assert train.learning_rate == 3e-4
    assert train.seed == 10


def test_empty_yaml_files_and_tables_are_the_defaults(load):
    assert load("train:\n", name="b.yml").config == Config()
    assert load("", name="c.yaml").config == Config()


def test_a_configuration_cannot_be_changed():
    with pytest.raises(ValidationError):
        Config().train.max_steps = 5  # type: ignore[misc]


def test_a_boolean_is_not_accepted_as_an_integer():
    with pytest.raises(ValidationError):
        SampleConfig(num_samples=True)


def test_every_key_has_words_for_its_values():
    for name, field in FIELDS.items():
        assert requirement(name)
        assert field.description
        assert field.description[0] != " "
        assert not field.description.endswith(".")
    assert requirement("train.batch_size") == "an integer, at least 1 and at most 65536"
    assert requirement("train.warmup_fraction") == 'a number, at least 0 and at most 1, or "none"'
    assert requirement("eval.text") == 'text, not empty, or "none"'


# `tokenizer.from`, whose name is a keyword of Python


@pytest.mark.parametrize(
    "given",
    [
        {"text": '[tokenizer]\nfrom = "ab12"'},
        {"text": "tokenizer:\n  from: ab12", "name": "a.yaml"},
        {"sets": ["tokenizer.from=ab12"]},
        {"environ": {"TINYGPT_TOKENIZER_FROM": "ab12"}},
        {"flags": {"tokenizer.from": ("--reuse-tokenizer", "ab12")}},
    ],
    ids=["TOML", "YAML", "set", "environment", "flag"],
)
def test_tokenizer_from_is_read_in_every_place_under_that_name(load, given):
    loaded = load(**given)
    assert loaded.config.tokenizer.from_ == "ab12"
    assert loaded.origins["tokenizer.from"] != "default"
    assert "tokenizer.from_" not in loaded.origins
    assert requirement("tokenizer.from") == 'text or "none"'


def test_tokenizer_from_is_off_by_default_and_can_be_switched_off(load):
    assert load().config.tokenizer.from_ is None
    sets = ["tokenizer.from=ab12", "tokenizer.from=none"]
    assert load(sets=sets).config.tokenizer.from_ is None


# The model that `train.init_from` names


OF_MODEL = {
    "data": {"source": "builtin@3", "max_documents": 7},
    "dataset": {"val_fraction": 0.5},
    "tokenizer": {"vocab_size": 300},
    "model": {"d_model": 64, "n_heads": 2, "dropout": 0.3},
    "train": {"max_steps": 9, "optimizer": "muon"},
}


@pytest.fixture
def continuing(load):
    """load(...) that continues a model made with OF_MODEL."""

    def load_continuing(*arguments, sets=(), **keywords):
        sets = ["train.init_from=ab12", *sets]
        return load(*arguments, sets=sets, tables_of_model=lambda name: OF_MODEL, **keywords)

    return load_continuing


def test_without_a_configuration_of_its_own_a_run_has_that_of_the_model_it_continues(continuing):
    loaded = continuing(flags={"train.max_steps": ("--max-steps", 5)})
    assert loaded.config.data.source == "builtin@3"
    assert loaded.config.dataset.val_fraction == 0.5
    assert loaded.config.tokenizer.vocab_size == 300
    assert loaded.config.model.d_model == 64
    assert loaded.config.train.optimizer == "muon"
    assert loaded.config.train.max_steps == 5
    assert loaded.origins["model.d_model"] == "model ab12"
    assert loaded.preset is None
    assert loaded.default_notes == ("no tinygpt.toml here: using that of model ab12",)


def test_another_source_does_not_get_data_and_split_of_the_model(continuing):
    loaded = continuing(sets=["data.source=builtin@4"])
    assert loaded.config.data.max_documents != 7
    assert loaded.origins["dataset.val_fraction"] == "default"
    assert loaded.config.tokenizer.vocab_size == 300
    assert loaded.config.model.d_model == 64


@pytest.mark.parametrize(
    "given",
    [{"text": "[train]\nseed = 1"}, {"preset": "laptop"}, {"environ": {"TINYGPT_PRESET": "demo"}}],
    ids=["file", "preset", "environment"],
)
def test_a_configuration_takes_the_shape_of_the_model_where_it_has_none_and_no_more(
    continuing, given
):
    loaded = continuing(**given)
    assert loaded.config.model.d_model == 64
    assert loaded.config.model.n_heads == 2
    assert loaded.config.data.source != "builtin@3"
    assert loaded.config.train.max_steps != 9
    dropout = 0.3 if "text" in given else 0.0  # which both presets set
    assert loaded.config.model.dropout == dropout


def test_what_is_set_wins_over_the_model(continuing):
    text = "[model]\nn_heads = 8"
    assert continuing(text).config.model.n_heads == 8
    assert continuing(text, sets=["model.n_heads=4"]).config.model.n_heads == 4


@pytest.mark.parametrize("sets", [[], ["train.init_from=none"]])
def test_where_no_model_is_named_none_is_read(load, sets):
    def never(name: str) -> dict:
        raise AssertionError(f"model {name!r} was read")

    assert load(sets=sets, tables_of_model=never).preset == "laptop"
