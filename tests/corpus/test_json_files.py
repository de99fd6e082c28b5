"""JSON: one value a line or one array, fields by name or path, and standard input like a file."""

import json

import pytest

from tests.corpus.reading import read, write
from tinygpt.errors import InputError

A_CAT = '{"text":"A cat."}'
A_DOG = '{"text":"A dog."}'


@pytest.mark.parametrize(
    "data",
    [
        f"{A_CAT}\n\n{A_DOG}\n",
        f"\ufeff{A_CAT}\n \n\t\n{A_DOG}",
        f"\n\n  {A_CAT}  \r\n{A_DOG}\r\n\r\n",
        f"{A_CAT}\r{A_DOG}\r",
        f"[{A_CAT},\n{A_DOG}]\n",
        f"\ufeff\n [\n{A_CAT}\n,{A_DOG}\n]",
    ],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.ndjson", "stories", "-"])
def test_blank_lines_marks_and_arrays_are_read_alike_in_files_and_standard_input(
    tmp_path, stdin, name, data
):
    path = write(tmp_path / "a", data)
    if name == "-":
        stdin(path.read_bytes())
    assert read("-" if name == "-" else path.rename(tmp_path / name)) == ["A cat.", "A dog."]


@pytest.mark.parametrize(
    ("record", "field", "expected"),
    [
        ({"story": {"text": "A cat."}}, "story.text", "A cat."),
        ({"a": {"b": {"c": "A cat."}}}, "a.b.c", "A cat."),
        ({"a": {"b.c": "A cat."}}, "a.b.c", "A cat."),
        ({"story.text": "A cat.", "story": {"text": "A dog."}}, "story.text", "A cat."),
        ({"story": None}, "story.text", ""),
        ({"story": {"text": None}}, "story.text", ""),
    ],
)
def test_a_path_names_a_nested_field_unless_a_field_has_that_very_name(
    tmp_path, record, field, expected
):
    assert read(write(tmp_path / "a.jsonl", json.dumps(record)), field=field) == [expected]


@pytest.mark.parametrize(
    ("record", "field", "message"),
    [
        (
            {"story": {"title": "", "x": {"y": 1}}, "id": 1},
            "story.text",
            "`story.title`, `story.x.y`, `id`",
        ),
        ({"story": "A cat."}, "story.text", "no field `story.text`; fields present: `story`"),
        ({"story": ["A cat."]}, "story.text", "no field `story.text`; fields present: `story`"),
        ({"story": {"text": "A cat."}}, "story", r"`story` holds \{'text': 'A cat.'\}, not text"),
        ({}, "text", "fields present: none"),
        ({f"f{n}": n for n in range(30)}, "text", "`f19` and 10 more"),
    ],
)
def test_a_missing_field_is_refused_with_the_paths_of_those_present(
    tmp_path, record, field, message
):
    with pytest.raises(InputError, match=message):
        read(write(tmp_path / "a.jsonl", json.dumps(record)), field=field)


def test_an_object_over_several_lines_is_refused_with_the_form_that_is_read(tmp_path):
    with pytest.raises(InputError, match="line 1: not valid JSON") as caught:
        read(write(tmp_path / "a.json", json.dumps({"text": "A cat."}, indent=1)))
    assert caught.value.hint == "write one JSON value a line, or one array of them"
