"""The answer to a wrong file, key or value: one error with key, origin and what to write."""

import pytest

from tinygpt.config.fields import FIELDS, requirement, spell
from tinygpt.errors import ConfigError

WRONG_VALUES = {
    "zero": ("train.batch_size", "[train]\nbatch_size = 0"),
    "true for an integer": ("train.batch_size", "[train]\nbatch_size = true"),
    "text for an integer": ("train.batch_size", '[train]\nbatch_size = "16"'),
    "number with a fraction": ("train.batch_size", "[train]\nbatch_size = 16.5"),
    "date": ("train.batch_size", "[train]\nbatch_size = 2001-01-01"),
    "table": ("train.batch_size", "[train.batch_size]\na = 1"),
    "integer for a boolean": ("data.clean", "[data]\nclean = 1"),
    "text for a boolean": ("data.clean", '[data]\nclean = "true"'),
    "not a choice": ("model.norm", '[model]\nnorm = "middle"'),
    "not finite": ("train.learning_rate", "[train]\nlearning_rate = nan"),
    "empty": ("data.source", '[data]\nsource = ""'),
    "text for a list": ("sample.stop", '[sample]\nstop = "a"'),
    "number in a list": ("sample.stop", '[sample]\nstop = ["a", 1]'),
    "none where it is not allowed": ("train.batch_size", '[train]\nbatch_size = "none"'),
}


@pytest.mark.parametrize(("key", "text"), WRONG_VALUES.values(), ids=WRONG_VALUES)
def test_a_wrong_value_is_refused_with_its_key_its_file_and_what_it_must_be(load, key, text):
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert caught.value.message.startswith(f"`{key}` = ")
    assert f"must be {requirement(key)} (from tinygpt.toml)" in caught.value.message
    assert f"default is {spell(FIELDS[key].default)}" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("origin", "arguments"),
    [
        ("--set", {"sets": ["train.seed=-1"]}),
        ("--seed", {"flags": {"train.seed": ("--seed", -1)}}),
        ("environment TINYGPT_TRAIN_SEED", {"environ": {"TINYGPT_TRAIN_SEED": "-1"}}),
    ],
)
def test_a_wrong_value_is_refused_with_the_flag_or_variable_it_came_from(load, origin, arguments):
    message = f"`train.seed` = -1 is not valid: .*at least 0.*from {origin}"
    with pytest.raises(ConfigError, match=message):
        load(**arguments)


UNKNOWN_NAMES = {
    "[train]\nmax_step = 1": ("has no `train.max_step` ", "`train.max_steps`"),
    "[trian]\nmax_steps = 1": ("has no `trian` ", "`train`"),
    "max_steps = 1": ("has no `max_steps` ", "`train.max_steps`"),
    "[model]\nmax_steps = 1": ("has no `model.max_steps` ", "`train.max_steps`"),
    "[model]\nn_layer = 1": ("has no `model.n_layer` ", "`model.n_layers`"),
    "[model]\nseed = 1": ("has no `model.seed` ", "`train.seed`"),
    "[zzz]": ("has no `zzz` ", "config show"),
    "train = 1": ("`train` = 1 is not a table", "[train]"),
}


@pytest.mark.parametrize("text", UNKNOWN_NAMES)
def test_an_unknown_name_is_refused_with_the_nearest_known_one(load, text):
    with pytest.raises(ConfigError) as caught:
        load(text)
    message, hint = UNKNOWN_NAMES[text]
    assert message in caught.value.message
    assert hint in str(caught.value.hint)


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        ({"sets": ["max_steps=5"]}, "has no `max_steps` ", "`train.max_steps`"),
        ({"sets": ["train.max_steps"]}, "has no value", "--set train.max_steps=1000"),
        (
            {"environ": {"TINYGPT_TRAIN_MAXSTEPS": "5"}},
            "has no `TINYGPT_TRAIN_MAXSTEPS` ",
            "`TINYGPT_TRAIN_MAX_STEPS`",
        ),
    ],
)
def test_an_unknown_name_of_a_set_or_variable_is_refused_in_its_own_spelling(
    load, arguments, message, hint
):
    with pytest.raises(ConfigError) as caught:
        load(**arguments)
    assert message in caught.value.message
    assert hint in str(caught.value.hint)


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        ({"text": "preset = 3"}, "3 is not a preset", "demo"),
        ({"preset": "lap"}, '"lap" is not a preset', "demo, laptop, reference"),
        ({"environ": {"TINYGPT_PRESET": "lap"}}, '"lap" is not a preset', "laptop"),
        ({"preset": "../presets/demo"}, "is not a preset", "demo"),
    ],
)
def test_an_unknown_preset_is_refused_with_the_known_ones(load, arguments, message, hint):
    with pytest.raises(ConfigError) as caught:
        load(**arguments)
    assert message in caught.value.message
    assert hint in str(caught.value.hint)


def test_a_width_that_the_heads_do_not_divide_is_refused_with_the_nearest_that_they_do(load):
    with pytest.raises(ConfigError) as caught:
        load(sets=["model.d_model=127"])
    assert caught.value.message == "`model.d_model` = 127 is not divisible by `model.n_heads` = 4"
    assert caught.value.hint == "use 124 or 128"


def test_two_lengths_of_the_warmup_are_refused(load):
    with pytest.raises(ConfigError, match="are both set"):
        load(sets=["train.warmup_fraction=0.1", "train.warmup_steps=5"])


BAD_FILES = {
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


@pytest.mark.parametrize("name", [*BAD_FILES, "missing.toml"])
def test_a_file_that_is_not_a_configuration_is_refused_in_one_short_sentence(load, tmp_path, name):
    if name in BAD_FILES:
        (tmp_path / name).write_bytes(BAD_FILES[name])
    with pytest.raises(ConfigError) as caught:
        load(config_file=tmp_path / name)
    assert name in caught.value.message or "seed" in caught.value.message
    assert "\n" not in caught.value.message
    assert not caught.value.message.endswith(".")
    assert len(caught.value.message) < 300 + len(str(tmp_path))


def test_values_that_not_every_format_can_write_are_refused(load):
    with pytest.raises(ConfigError, match="contains a NUL or surrogate character"):
        load('[sample]\nprompt = "\\u0000"')
    with pytest.raises(ConfigError, match="contains a NUL or surrogate character"):
        load('sample: {prompt: "\\ud800"}', name="a.yaml")
    with pytest.raises(ConfigError, match="is an integer beyond 64 bits"):
        load(f"[train]\nseed = {2**63}")


def test_a_folder_given_as_the_file_is_refused(load, tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load(config_file=tmp_path)


@pytest.mark.parametrize("source", ["~nobody_has_this_name/a.txt", "x" * 5_000])
def test_a_source_that_cannot_be_a_path_is_refused(load, source):
    with pytest.raises(ConfigError, match=r"`data\.source`"):
        load(sets=[f"data.source={source}"])


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("[train]\nseed = 1\nseed = 2\n", "a.toml"),
        ("train:\n  seed: 1\n  seed: 2\n", "a.yaml"),
    ],
    ids=["TOML", "YAML"],
)
def test_a_key_that_appears_twice_in_a_table_is_refused_with_its_line(load, text, name):
    with pytest.raises(ConfigError, match=r"is not valid (TOML|YAML).*line 3"):
        load(text, name=name)


def test_tables_side_by_side_in_yaml_are_not_taken_for_keys_that_appear_twice(load):
    assert load("train: {seed: 1}\nmodel: {}\n", name="b.yaml").config.train.seed == 1
