"""A configuration that was written and is read again is the same configuration."""

import json
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tinygpt.config import Config, SampleConfig, load_config, render, render_init
from tinygpt.config.fields import FIELDS, TABLES
from tinygpt.config.source import SEPARATORS
from tinygpt.errors import ConfigError

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
FILE_NAMES = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0/\\"), min_size=1, max_size=30
)
# Reading makes paths absolute, so only what is absolute already can come back unchanged.
PATHS = FILE_NAMES.map(lambda name: f"{Path.cwd().root}x{name}.txt")
PATH_FIELDS = {
    "data.source": st.one_of(PATHS, st.sampled_from(["builtin@3", "a/b@main", "-"])),
    "eval.text": st.none() | PATHS,
    "data.separator": st.sampled_from([*SEPARATORS, "regex:^%$", "regex:\\n{3,}|=+"]),
}


def values(name: str) -> st.SearchStrategy[Any]:
    """Anything the field allows, from its own type and bounds."""
    if name in PATH_FIELDS:
        return PATH_FIELDS[name]
    table, _, key = name.partition(".")
    schema = TABLES[table].model_json_schema()["properties"][key]
    return st.one_of([values_of(kind) for kind in schema.get("anyOf", [schema])])


def values_of(kind: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Anything that a JSON schema without "anyOf" allows."""
    if "enum" in kind:
        return st.sampled_from(kind["enum"])
    if "const" in kind:
        return st.just(kind["const"])
    match kind["type"]:
        case "null":
            return st.none()
        case "boolean":
            return st.booleans()
        case "integer":
            highest = kind.get("maximum", kind.get("exclusiveMaximum", 2**63) - 1)
            return st.integers(kind.get("minimum"), highest)
        case "number":
            return st.floats(
                kind.get("minimum", kind.get("exclusiveMinimum")),
                kind.get("maximum", kind.get("exclusiveMaximum")),
                exclude_min="exclusiveMinimum" in kind,
                exclude_max="exclusiveMaximum" in kind,
                allow_nan=False,
                allow_infinity=False,
            )
        case "string":
            return ANY_TEXT.filter(lambda text: len(text) >= kind.get("minLength", 0))
        case _:
            return st.lists(ANY_TEXT, max_size=3).map(tuple)


@st.composite
def configs(draw: st.DrawFn) -> Config:
    """Any valid configuration; keys that depend on each other are drawn so that they fit."""
    tables: dict[str, dict[str, Any]] = {}
    for name in draw(st.sets(st.sampled_from(sorted(FIELDS)), max_size=12)):
        table, key = name.split(".")
        tables.setdefault(table, {})[key] = draw(values(name))
    dataset = tables.get("dataset", {})
    if dataset.get("test_fraction", 0) > 0:
        dataset["test_fraction"] /= 2
        dataset["val_fraction"] = draw(st.floats(0.01, 0.4))
    train = tables.get("train", {})
    if train.get("warmup_fraction") is not None:
        train["warmup_steps"] = None
    evaluation = tables.get("eval", {})
    if evaluation.get("text") is not None:
        evaluation["split"] = "val"
    model = tables.get("model", {})
    if model.keys() & {"d_model", "n_heads"}:
        heads = model.setdefault("n_heads", 4)
        model["d_model"] = 2 * heads * draw(st.integers(1, 32))
    return Config.model_validate(tables)


AWKWARD = Config(
    sample=SampleConfig(
        prompt='"# \\ \x7f\x85\u2028\ufeff\U0001f600\t\r\n', stop=("", "]", "null"), min_p=1e-05
    )
)


@settings(max_examples=25)  # each draws all fields of all tables
@given(configs())
@example(AWKWARD)
def test_property_17_a_configuration_survives_yaml_and_toml_with_every_field(config):
    for language, parse in (
        ("yaml", yaml.safe_load),
        ("toml", tomllib.loads),
        ("json", json.loads),
    ):
        text = render(config, language)
        plain = parse(text)
        # any reader of the language sees the values, not only ours
        assert Config.model_validate(plain) == config
        assert {f"{table}.{key}" for table, keys in plain.items() for key in keys} == set(FIELDS)
        if language != "json":
            assert read_back(text, f"c.{language}") == config


def read_back(text: str, name: str) -> Config:
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(text.encode())
        return load_config(config_file=path, cwd=Path(folder), environ={}).config


def test_the_shipped_file_and_preset_reference_are_the_defaults(root):
    expected = render(Config(), "toml").encode()
    assert (root / "tinygpt" / "presets" / "reference.toml").read_bytes() == expected
    assert (root / "tinygpt.toml").read_bytes() == expected


def test_every_key_is_written_with_its_meaning_in_the_order_of_the_tables():
    lines = render(Config(), "toml").splitlines()
    comments = " ".join(line.removeprefix("# ") for line in lines)
    position = 0
    for name, field in FIELDS.items():
        assert field.description
        position = comments.find(field.description, position)
        assert position > 0, name
    assert [line[1:-1] for line in lines if line.startswith("[")] == list(TABLES)


@pytest.mark.parametrize("language", ["toml", "yaml"])
def test_no_line_is_wider_than_100_columns(language):
    assert max(map(len, render(Config(), language).splitlines())) <= 100


def test_origins_stand_behind_the_values_and_the_text_stays_readable():
    loaded = load_config(preset="laptop", sets=["train.seed=5"], cwd=Path("/"), environ={})
    as_toml = render(loaded.config, "toml", loaded.origins)
    as_yaml = render(loaded.config, "yaml", loaded.origins)
    as_json = render(loaded.config, "json", loaded.origins)
    assert "seed = 5  # --set" in as_toml
    assert "  dropout: 0.0  # preset laptop" in as_yaml
    assert json.loads(as_json)["origins"]["train.seed"] == "--set"
    assert Config.model_validate(tomllib.loads(as_toml)) == loaded.config
    assert Config.model_validate(yaml.safe_load(as_yaml)) == loaded.config
    assert Config.model_validate(json.loads(as_json)["config"]) == loaded.config


def test_init_writes_a_complete_preset_with_an_absolute_source(tmp_path):
    (tmp_path / "my.txt").write_text("a")
    text = render_init("laptop", "my.txt", cwd=tmp_path)
    sets = [f"data.source={tmp_path / 'my.txt'}"]
    expected = load_config(preset="laptop", sets=sets, cwd=tmp_path, environ={}).config
    assert read_back(text, "tinygpt.toml") == expected
    assert "--preset laptop" in text.splitlines()[0]


def test_init_without_a_source_keeps_that_of_the_preset():
    assert "builtin" in render_init("demo")


def test_init_refuses_an_unknown_preset():
    with pytest.raises(ConfigError):
        render_init("nothing")


def test_json_integers_and_lists_are_accepted_and_other_types_are_not():
    assert Config.model_validate_json(render(AWKWARD, "json")) == AWKWARD
    with pytest.raises(ValidationError):
        Config.model_validate({"train": {"batch_size": 1.0}})
