"""A configuration written down and read again is the same configuration."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tinygpt.config import Config, SampleConfig, load_config, render, render_init
from tinygpt.config.fields import FIELDS, TABLES
from tinygpt.errors import ConfigError

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
# Paths are made absolute when they are read, so only what is absolute already can come back unchanged.
PATHS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/\\"), min_size=1, max_size=30).map(
    lambda name: str(Path.cwd().root) + f"x{name}.txt"
)
PATH_FIELDS = {"data.source": st.one_of(PATHS, st.sampled_from(["builtin@3", "a/b@main", "-"])), "eval.text": st.none() | PATHS}


def values(name: str) -> st.SearchStrategy[Any]:
    """Anything the field allows, from its own type and bounds."""
    if name in PATH_FIELDS:
        return PATH_FIELDS[name]
    table, _, key = name.partition(".")
    schema = TABLES[table].model_json_schema()["properties"][key]
    kind, *none = schema.get("anyOf", [schema])
    low, above = kind.get("minimum"), kind.get("exclusiveMinimum")
    high, below = kind.get("maximum"), kind.get("exclusiveMaximum")
    if "enum" in kind:
        strategy: st.SearchStrategy[Any] = st.sampled_from(kind["enum"])
    elif kind["type"] == "boolean":
        strategy = st.booleans()
    elif kind["type"] == "integer":
        strategy = st.integers(low, below - 1 if below is not None else high if high is not None else 2**63 - 1)
    elif kind["type"] == "number":
        strategy = st.floats(
            low if above is None else above,
            high if below is None else below,
            exclude_min=above is not None,
            exclude_max=below is not None,
            allow_nan=False,
            allow_infinity=False,
        )
    elif kind["type"] == "string":
        strategy = ANY_TEXT.filter(lambda text: len(text) >= kind.get("minLength", 0))
    else:
        strategy = st.lists(ANY_TEXT, max_size=3).map(tuple)
    return st.none() | strategy if none else strategy


@st.composite
def configs(draw: st.DrawFn) -> Config:
    """Any valid configuration: a few keys changed at a time, so that those that must fit each other mostly do."""
    tables: dict[str, dict[str, Any]] = {}
    for name in draw(st.sets(st.sampled_from(sorted(FIELDS)), max_size=12)):
        table, key = name.split(".")
        tables.setdefault(table, {})[key] = draw(values(name))
    if "train" in tables and tables["train"].get("warmup_fraction") is not None:
        tables["train"]["warmup_steps"] = None
    if "model" in tables and tables["model"].keys() & {"d_model", "n_heads"}:
        heads = tables["model"].setdefault("n_heads", 4)
        tables["model"]["d_model"] = 2 * heads * draw(st.integers(1, 32))
    return Config.model_validate(tables)


AWKWARD = Config(sample=SampleConfig(prompt='"# \\ \x7f\x85\u2028\ufeff\U0001f600\t\r\n', stop=("", "]", "null"), min_p=1e-05))


@settings(max_examples=25)  # each draws all fields of all tables
@given(configs())
@example(AWKWARD)
def test_property_17_a_configuration_survives_yaml_and_toml_with_every_field(config):
    folder = Path(__file__).parent
    for text, name, parse in (
        (render(config, "yaml"), "c.yaml", yaml.safe_load),
        (render(config, "toml"), "c.toml", tomllib.loads),
        (render(config, "json"), "c.json", json.loads),
    ):
        plain = parse(text)
        # any reader of the language sees the values, not only ours
        assert Config.model_validate(plain) == config
        assert {f"{table}.{key}" for table, keys in plain.items() for key in keys} == set(FIELDS)
        if name != "c.json":
            assert read_back(text, name, folder) == config


def read_back(text: str, name: str, folder: Path) -> Config:
    import tempfile

    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / name
        path.write_bytes(text.encode())
        return load_config(config_file=path, cwd=folder, environ={}).config


def test_the_shipped_file_is_preset_reference_is_the_defaults(root):
    expected = render(Config(), "toml").encode()
    assert (root / "tinygpt" / "presets" / "reference.toml").read_bytes() == expected
    assert (root / "tinygpt.toml").read_bytes() == expected


def test_every_key_is_written_with_its_meaning_in_the_order_of_the_tables():
    text = render(Config(), "toml")
    comments = " ".join(line.removeprefix("# ") for line in text.splitlines())
    position = 0
    for name, field in FIELDS.items():
        assert field.description
        assert (position := comments.index(field.description, position)) > 0, name
    assert max(map(len, text.splitlines())) <= 130
    assert [line[1:-1] for line in text.splitlines() if line.startswith("[")] == list(TABLES)


def test_origins_are_shown_behind_the_values_and_the_text_stays_readable():
    loaded = load_config(preset="laptop", sets=["train.seed=5"], cwd=Path("/"), environ={})
    toml, yml = render(loaded.config, "toml", loaded.origins), render(loaded.config, "yaml", loaded.origins)
    assert "seed = 5  # --set" in toml
    assert "  dropout: 0.0  # preset laptop" in yml
    assert Config.model_validate(tomllib.loads(toml)) == Config.model_validate(yaml.safe_load(yml)) == loaded.config
    assert json.loads(render(loaded.config, "json", loaded.origins))["origins"]["train.seed"] == "--set"


def test_init_writes_the_preset_complete_with_a_source_that_works_from_everywhere(tmp_path):
    (tmp_path / "my.txt").write_text("a")
    text = render_init("laptop", "my.txt", cwd=tmp_path)
    expected = load_config(preset="laptop", sets=[f"data.source={tmp_path / 'my.txt'}"], cwd=tmp_path, environ={}).config
    assert read_back(text, "tinygpt.toml", tmp_path) == expected
    assert "--preset laptop" in text.splitlines()[0]
    assert "builtin" in render_init("demo")
    with pytest.raises(ConfigError):
        render_init("nothing")


def test_json_integers_and_lists_are_accepted_and_other_types_are_not():
    assert Config.model_validate_json(render(AWKWARD, "json")) == AWKWARD
    with pytest.raises(ValidationError):
        Config.model_validate({"train": {"batch_size": 1.0}})
