"""What a wrong file, key or value gets as an answer: one error with the key, the place it came from and what to write."""

import pytest

from tinygpt.config.fields import FIELDS, requirement, spell
from tinygpt.errors import ConfigError

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
    "[train]\nmax_step = 1": ("has no `train.max_step` ", "`train.max_steps`"),
    "[trian]\nmax_steps = 1": ("has no `trian` ", "`train`"),
    "max_steps = 1": ("has no `max_steps` ", "`train.max_steps`"),
    "[model]\nmax_steps = 1": ("has no `model.max_steps` ", "`train.max_steps`"),
    "[model]\nn_layer = 1": ("has no `model.n_layer` ", "`model.n_layers`"),
    "[model]\nseed = 1": ("has no `model.seed` ", "`train.seed`"),
    "[zzz]": ("has no `zzz` ", "config show"),
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
        ({"sets": ["max_steps=5"]}, "has no `max_steps` ", "`train.max_steps`"),
        ({"sets": ["train.max_steps"]}, "has no value", "--set train.max_steps=1000"),
        ({"environ": {"TINYGPT_TRAIN_MAXSTEPS": "5"}}, "has no `TINYGPT_TRAIN_MAXSTEPS` ", "`TINYGPT_TRAIN_MAX_STEPS`"),
        ({"text": "preset = 3"}, "3 is not a preset", "demo"),
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
    "zero.toml": b'[sample]\nprompt = "\\u0000"',
    "deep.yaml": b"[" * 5_000,
    "list.yaml": b"- 1",
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


@pytest.mark.parametrize("source", ["~nobody_has_this_name/a.txt", "x" * 5_000])
def test_a_source_no_path_can_be_made_of_is_refused(load, source):
    with pytest.raises(ConfigError, match=r"`data\.source`"):
        load(sets=[f"data.source={source}"])


def test_a_key_that_stands_twice_is_refused_in_yaml_as_in_toml(load):
    for text, name in (("[train]\nseed = 1\nseed = 2\n", "a.toml"), ("train:\n  seed: 1\n  seed: 2\n", "a.yaml")):
        with pytest.raises(ConfigError, match=r"is not valid (TOML|YAML).*line 3"):
            load(text, name=name)
    assert load("train: {seed: 1}\nmodel: {}\n", name="b.yaml").config.train.seed == 1
