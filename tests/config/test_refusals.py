"""The answer to a wrong file, key or value: one error with key, origin and what to write."""

import contextlib
import os
import socket
from pathlib import Path

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
    "[model]\nmax_step = 1": ("has no `model.max_step` ", "`train.max_steps`"),
    "[sample]\nsede = 1": ("has no `sample.sede` ", "`sample.seed`"),
    "[model]\nlr = 1": ("has no `model.lr` ", "`train.learning_rate`"),
    "[train]\nzzz = 1": ("has no `train.zzz` ", "the keys of `train` are max_steps, batch_size"),
    "[zzz]": ("has no `zzz` ", "the tables are data, tokenizer"),
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
        ({"sets": ["=5"]}, "`--set =5` names no key", "--set train.max_steps=1000"),
        ({"sets": ["lr=1e-3"]}, "has no `lr` ", "`train.learning_rate`"),
        ({"sets": ["train=5"]}, "has no `train` ", "`train` is a table; write `--set train.KEY="),
        ({"sets": ["train.zzz=5"]}, "has no `train.zzz` ", "the keys of `train` are max_steps,"),
        (
            {"environ": {"TINYGPT_TRAIN_ZZZ": "5"}},
            "has no `TINYGPT_TRAIN_ZZZ` ",
            "the keys of `train` are max_steps,",
        ),
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


@pytest.mark.parametrize(
    ("separator", "message", "hint"),
    [
        ("paragraphs", "'paragraphs' is not a separator", "`blank_lines`"),
        ("regex:", "'regex:' is not a separator", "`regex:...`"),
        ("regex:(a", r"not a regular expression: missing \), unterminated", "`regex:^%$`"),
        ("regex:a{99999999999}", "not a regular expression", "`regex:^%$`"),
    ],
)
def test_a_malformed_separator_is_refused_when_the_configuration_is_read(
    load, separator, message, hint
):
    with pytest.raises(ConfigError, match=message) as caught:
        load(sets=["data.source=a.txt", f"data.separator={separator}"])
    assert hint in str(caught.value.hint)


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
    "itself.yaml": b"train: &a {seed: *a}",
    "itself-in-a-list.yaml": b"sample: {stop: &a [*a]}",
    "merged.yaml": b"base: &b {seed: 1}\ntrain: {<<: *b}",
    "merged-at-the-top.yaml": b"train: &t {seed: 1}\n<<: *t",
    "grows.yaml": b"a0: &a0 [1]\n"
    + b"".join(b"a%d: &a%d [*a%d, *a%d]\n" % (n, n, n - 1, n - 1) for n in range(1, 60)),
    "long-key.toml": b"a." * 50_000 + b"a = 1",
    "large.toml": b"#" * 300_000,
    "zeros.toml": bytes(100),
    "utf-16.toml": "[train]\nseed = 1\n".encode("utf-16"),
    "utf-16.yaml": "train: {seed: 1}\n".encode("utf-16-be"),
    "program.toml": b"\x7fELF\x02\x01\x01" + bytes(range(256)),
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


def test_a_folder_given_as_the_file_is_refused_with_a_file_in_it(load, tmp_path):
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        load(config_file=tmp_path)
    assert str(tmp_path / "tinygpt.toml") in str(caught.value.hint)


@pytest.mark.parametrize("kind", ["pipe", "socket", "/dev/zero", "3 GB", "link to itself"])
def test_what_is_no_small_file_is_refused_without_reading_it(load, tmp_path, kind):
    path = tmp_path / "c.toml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(tmp_path):
            server.bind(path.name)
    elif kind == "3 GB":
        with path.open("wb") as file:
            file.truncate(3 << 30)
    elif kind == "link to itself":
        path.symlink_to(path)
    else:
        path = Path(kind)
    with pytest.raises(ConfigError, match=r"cannot be read|262,144 bytes"):
        load(config_file=path)


@pytest.mark.parametrize(
    ("name", "text", "hint"),
    [
        ("a.yaml", "[train]\nseed = 1\n", "it is TOML: rename it to `a.toml`"),
        ("b.yml", "seed = 1", "it is TOML: rename it to `b.toml`"),
        ("c.toml", "train:\n  seed: 1\n", "it is YAML: rename it to `c.yaml`"),
        ("d.json", '{"train": {"seed": 1}}', "it is YAML: rename it to `d.yaml`"),
        ("e.toml", "[train\n", "correct the file there"),
    ],
)
def test_a_file_in_the_other_language_is_recognized(load, name, text, hint):
    with pytest.raises(ConfigError) as caught:
        load(text, name=name)
    assert caught.value.hint == hint


@pytest.mark.parametrize("mark", ["\ufeff", ""])
def test_a_byte_order_mark_is_no_part_of_the_file(load, mark):
    assert load(f"{mark}[train]\nseed = 5\n").config.train.seed == 5
    assert load(f"{mark}train: {{seed: 5}}\n", name="a.yaml").config.train.seed == 5


def test_an_alias_of_one_value_is_read(load):
    config = load("train: {seed: &s 5}\nsample: {seed: *s}\n", name="a.yaml").config
    assert (config.train.seed, config.sample.seed) == (5, 5)


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
