"""Where values come from, who wins, and what a wrong one gets as an answer."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from tinygpt.config import PRESETS, Config, LoadedConfig, SampleConfig, TrainConfig, find_config, load_config, store_root
from tinygpt.config.fields import FIELDS, nearest, read_text, requirement, spell
from tinygpt.errors import ConfigError

Load = Callable[..., LoadedConfig]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """load_config in an empty folder, with `text` in a file there, and without the environment."""

    def load_text(text: str | bytes | None = None, name: str = "tinygpt.toml", **kwargs: object) -> LoadedConfig:
        if text is not None:
            (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
            if name != "tinygpt.toml":
                kwargs["config_file"] = tmp_path / name
        return load_config(**{"cwd": tmp_path, "environ": {}} | kwargs)

    return load_text


def test_nothing_given_is_the_reference(load):
    loaded = load()
    assert loaded.config == Config() == load(preset="reference").config
    assert set(loaded.origins.values()) == {"default"}
    assert set(loaded.origins) == set(FIELDS)
    assert (loaded.path, loaded.preset, loaded.notes) == (None, None, ())


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
    assert (loaded.path, loaded.preset) == (None, "demo")
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
    from tinygpt.config import FileSource, parse_source

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


WRONG_TYPES = {
    "zero": "[train]\nbatch_size = 0",
    "true for an integer": "[train]\nbatch_size = true",
    "text for an integer": '[train]\nbatch_size = "16"',
    "number with a fraction": "[train]\nbatch_size = 16.5",
    "date": "[train]\nbatch_size = 2001-01-01",
    "table": "[train.batch_size]\na = 1",
    "integer for a boolean": "[data]\nclean = 1",
    "text for a boolean": '[data]\nclean = "true"',
    "not a choice": '[model]\nnorm = "middle"',
    "not finite": "[train]\nlearning_rate = nan",
    "empty": '[data]\nsource = ""',
    "text for a list": '[sample]\nstop = "a"',
    "number in a list": '[sample]\nstop = ["a", 1]',
    "none where it is not allowed": '[train]\nbatch_size = "none"',
}


@pytest.mark.parametrize("text", WRONG_TYPES.values(), ids=WRONG_TYPES)
def test_a_wrong_value_is_named_with_its_key_its_file_and_what_it_must_be(load, text):
    with pytest.raises(ConfigError) as caught:
        load(text)
    table, key = (
        text.partition("]")[0][1:].split(".")[0],
        "batch_size" if ".batch" in text else text.split("\n")[1].split(" =")[0],
    )
    assert caught.value.message.startswith(f"`{table}.{key}` = ")
    assert f"must be {requirement(f'{table}.{key}')} (from tinygpt.toml)" in caught.value.message
    assert f"default is {spell(FIELDS[f'{table}.{key}'].default)}" in str(caught.value.hint)


def test_a_wrong_value_names_the_flag_set_or_variable_it_came_from(load):
    for origin, given in {
        "--set": {"sets": ["train.seed=-1"]},
        "--seed": {"flags": {"train.seed": ("--seed", -1)}},
        "environment TINYGPT_TRAIN_SEED": {"environ": {"TINYGPT_TRAIN_SEED": "-1"}},
    }.items():
        with pytest.raises(ConfigError, match=f"`train.seed` = -1 is not valid: .*at least 0.*from {origin}"):
            load(**given)


UNKNOWN = {
    "[train]\nmax_step = 1": ("`train.max_step` is not a key", "`train.max_steps`"),
    "[trian]\nmax_steps = 1": ("`trian` is not a table", "`train`"),
    "max_steps = 1": ("`max_steps` is not a table", "`train.max_steps`"),
    "[model]\nmax_steps = 1": ("`model.max_steps` is not a key", "`train.max_steps`"),
    "[model]\nn_layer = 1": ("`model.n_layer` is not a key", "`model.n_layers`"),
    "[zzz]": ("`zzz` is not a table", "config show"),
    "train = 1": ("`train` = 1 is not a table", "[train]"),
}


@pytest.mark.parametrize("text", UNKNOWN)
def test_an_unknown_name_is_refused_with_the_nearest_known_one(load, text):
    with pytest.raises(ConfigError) as caught:
        load(text)
    message, hint = UNKNOWN[text]
    assert message in caught.value.message
    assert hint in str(caught.value.hint)


def test_unknown_names_of_sets_and_variables_are_refused_in_their_own_spelling(load):
    for given, message, hint in (
        ({"sets": ["max_steps=5"]}, "`max_steps` is not a key", "`train.max_steps`"),
        ({"sets": ["train.max_steps"]}, "has no value", "--set train.max_steps=1000"),
        ({"environ": {"TINYGPT_TRAIN_MAXSTEPS": "5"}}, "`TINYGPT_TRAIN_MAXSTEPS` is not", "`TINYGPT_TRAIN_MAX_STEPS`"),
        ({"preset": "lap"}, '"lap" is not a preset', "demo, laptop, reference"),
        ({"preset": "../presets/demo"}, "is not a preset", "demo"),
    ):
        with pytest.raises(ConfigError) as caught:
            load(**given)
        assert message in caught.value.message
        assert hint in str(caught.value.hint)


def test_keys_that_do_not_fit_each_other_are_named_together(load):
    with pytest.raises(ConfigError) as caught:
        load(sets=["model.d_model=127"])
    assert caught.value.message == "`model.d_model` = 127 is not divisible by `model.n_heads` = 4"
    assert caught.value.hint == "use 124 or 128"
    with pytest.raises(ConfigError, match="are both set"):
        load(sets=["train.warmup_fraction=0.1"])


BAD_FILES = {
    "missing.toml": None,
    "broken.toml": b"[train\n",
    "deep.toml": b"a = " + b"[" * 100_000,
    "long-number.toml": b"[train]\nmax_steps = " + b"9" * 5_000,
    "long-hex.toml": b"[train]\nmax_steps = 0x" + b"f" * 5_000,
    "twice.toml": b"[train]\nseed = 1\nseed = 2",
    "latin1.toml": b"# caf\xe9",
    "large.toml": b"#" * (1 << 20) + b"\n",
    "zero.toml": b'[sample]\nprompt = "\\u0000"',
    "preset.toml": b"preset = 3",
    "deep.yaml": b"[" * 5_000,
    "list.yaml": b"- 1",
    "alias.yaml": b"a: &a [1]\nb: *a",
    "merge.yaml": b"train: &a {seed: 1}\nmodel: {<<: [*a, *a]}",
    "twice.yaml": b"train: {seed: 1, seed: 2}",
    "python.yaml": b"!!python/object/apply:os.system [ls]",
    "tag.yaml": b"train: {seed: !!int x}",
    "tag-bool.yaml": b"train: {seed: !!bool x}",
    "key.yaml": b"train: {? [a] : 1}",
    "number-key.yaml": b"train: {1: 2}",
    "date.yaml": b"train: {seed: 2001-99-01}",
    "surrogate.yaml": b'sample: {prompt: "\\ud800"}',
    "control.yaml": b"train: \x07",
    "switch.yml": b"train: {learning_rate: on}",
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_is_no_configuration_is_one_config_error(load, tmp_path, name):
    with pytest.raises(ConfigError) as caught:
        load(BAD_FILES[name], name=name) if BAD_FILES[name] is not None else load(config_file=tmp_path / name)
    assert name in caught.value.message or "seed" in caught.value.message
    assert "\n" not in caught.value.message
    assert not caught.value.message.endswith(".")
    assert len(caught.value.message) < 300 + len(str(tmp_path))


def test_a_folder_given_as_the_file_is_refused(load, tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load(config_file=tmp_path)


def test_what_others_write_by_habit_is_understood(load):
    assert load(b"\xef\xbb\xbf[train]\r\nseed = 5\r\n").config.train.seed == 5
    assert load("train:\n  learning_rate: 3e-4\n  seed: 1_0\n", name="a.yaml").config.train.learning_rate == 3e-4
    assert load("train:\n", name="b.yml").config == load("", name="c.yaml").config == Config()


@pytest.mark.parametrize("source", ["~nobody_has_this_name/a.txt", "x" * 5_000])
def test_a_source_no_path_can_be_made_of_is_refused(load, source):
    with pytest.raises(ConfigError, match=r"`data\.source`"):
        load(sets=[f"data.source={source}"])


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
    assert nearest("nothing.like.it.at.all") is None
