"""A flag, word or command of another program is answered with a line of ours to paste."""

import re
import shlex
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from tinygpt.cli import guesses
from tinygpt.cli.app import app
from tinygpt.config.fields import FIELDS
from tinygpt.config.other_names import OTHER_NAMES

TYPED = {
    "train --batch-size 4": "train --set train.batch_size=4",
    "train --batch_size=4": "train --set train.batch_size=4",
    "train --lr 1e-3": "train --set train.learning_rate=1e-3",
    "train -lr 1e-3": "train --set train.learning_rate=1e-3",
    "train --n-layer 2": "train --set model.n_layers=2",
    "train --n_layers 2": "train --set model.n_layers=2",
    "train --n_embd 64": "train --set model.d_model=64",
    "train --dtype bf16": "train --set train.precision=bf16",
    "train --block-size 64": "train --set model.context_length=64",
    "run --vocab-size 500": "run --set tokenizer.vocab_size=500",
    "train --dropout 0.1": "train --set model.dropout=0.1",
    "train --device cpu": "train --set runtime.device=cpu",
    "train --seed 3": "train --set train.seed=3",
    "train --compile": "train --set runtime.compile=true",
    "train --compile --threads 2": "train --set runtime.compile=true --set runtime.threads=2",
    "train --compile False": "train --set runtime.compile=False",
    "run --data my.txt": "run --source my.txt",
    "run --dataset my.txt": "run --source my.txt",
    "init mine --input my.txt": "init mine --source my.txt",
    "eval --data my.txt": "eval --text my.txt",
    "train --out runs": "train --store runs",
    "sample --output story.txt": "sample > story.txt",
    "sample --length 9": "sample --max-new-tokens 9",
    "sample --max-tokens 9": "sample --max-new-tokens 9",
    "sample --prompt 'Once upon'": 'sample "Once upon"',
    "sample --temp 0.5": "sample --temperature 0.5",
    "sample --n 3": "sample --num-samples 3",
    "sample -n 3": "sample --num-samples 3",
    "sample --num 3": "sample --num-samples 3",
    "sample --top_k 3": "sample --top-k 3",
    "sample --checkpoint 12ab": "sample --model 12ab",
    "eval --model-path ./mine": "eval --model ./mine",
    "train --checkpoint 12ab": "train --from 12ab",
    "train --resume-from-checkpoint last": "train --resume",
    "train --steps 5": "train --max-steps 5",
    "train --max-iters 5": "train --max-steps 5",
    "run --iters 5": "run --set train.max_steps=5",
    "train --eval-interval 5": "train --set train.eval_every=5",
    "train --bs 4 --lr 3e-4 --quiet": "train --set train.batch_size=4 "
    "--set train.learning_rate=3e-4 --quiet",
    "sample Once upon a time": 'sample "Once upon a time"',
    "sample Once upon --top-p 0.9": 'sample "Once upon" --top-p 0.9',
    "sample say $5 now": "sample 'say $5 now'",
    "train my.txt": "train --source my.txt",
    "eval my.txt": "eval --text my.txt",
    "plot 12ab34cd": "plot --model 12ab34cd",
    "export out --format hf": "export out --to hf",
    "export --output-dir out --to hf": "export out --to hf",
    "export out --to gguf --outtype f16": "export out --to gguf --dtype f16",
    "convert out --to hf": "export out --to hf",
    "run demo": "run --preset demo",
    "train train.max_steps=5": "train --set train.max_steps=5",
    "train --set train.max_steps 5": "train --set train.max_steps=5",
    "train --set train.max_steps = 5": "train --set train.max_steps=5",
    "--preset demo train": "train --preset demo",
    "--batch-size 4 train": "train --set train.batch_size=4",
    "--store s artifacts ls": "artifacts ls --store s",
    "artifacts --store s ls": "artifacts ls --store s",
    "config --preset demo": "config show --preset demo",
    "-v": "--version",
    "version": "--version",
    "generate Once --seed 1": "sample Once --seed 1",
    "ls": "artifacts ls",
    "list": "artifacts ls",
    "gc --dry-run": "artifacts gc --dry-run",
}


@pytest.mark.parametrize("typed", TYPED)
def test_what_other_programs_call_it_is_answered_with_the_whole_line(tinygpt, typed):
    result = tinygpt(*shlex.split(typed))
    assert (result.code, result.out) == (2, "")
    assert result.err.endswith(f"\n\nhint: did you mean `tinygpt {TYPED[typed]}`?\n")


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("train --epochs 3", "training is counted in steps, not in epochs"),
        ("train --temperature 1", "`--temperature` is a flag of `tinygpt sample`"),
        ("run --max-minutes 1", "`--max-minutes` is a flag of `tinygpt train`"),
        ("sample --tempreture 1", "did you mean `--temperature`?"),
        ("train --max-step 5", "did you mean `--max-steps`?"),
        ("train --temp 1", "`tinygpt train --help` lists the commands and flags"),
        ("doctor --batch-size 4", "`tinygpt doctor --help` lists the commands and flags"),
        ("sample --file", "`tinygpt sample --help` lists the commands and flags"),
        ("export folder", "add `--to FORMAT` (format: hf, gguf, csv or tensorboard)"),
        ("artifacts show", "`tinygpt artifacts ls` lists the ids"),
        ("replay", "`tinygpt artifacts ls` lists the ids"),
    ],
)
def test_what_no_line_can_say_is_explained(tinygpt, typed, hint):
    result = tinygpt(*shlex.split(typed))
    assert result.code == 2
    assert f"hint: {hint}" in result.err


def test_a_file_in_place_of_a_command_is_a_source(tinygpt, tmp_path):
    (tmp_path / "poems").write_text("A poem.")
    assert "`tinygpt run --source poems`" in tinygpt("poems").err


@pytest.mark.parametrize("typed", [["help"], ["-h"], ["--help"]])
def test_help_is_found_under_each_of_its_names(tinygpt, typed):
    assert tinygpt(*typed).out.startswith("Usage: tinygpt [OPTIONS] COMMAND")
    assert tinygpt("help", "train").out == tinygpt("train", "-h").out


def commands(group: object, path: str) -> dict[str, object]:
    """Every command by its path, "tinygpt artifacts ls"."""
    found = {}
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found |= commands(command, f"{path} {name}")
        else:
            found[f"{path} {name}"] = command
    return found


def test_no_hint_names_a_flag_that_the_command_lacks():
    names = {key.partition(".")[2] for key in FIELDS} | set(OTHER_NAMES)
    names |= {name for words in guesses._FLAGS.values() for name in words.split()}
    lines = 0
    for path, command in commands(typer.main.get_command(app), "tinygpt").items():
        flags = {flag for param in command.params for flag in [*param.opts, *param.secondary_opts]}
        for name in names:
            line = guesses.meant_line(command, path, [f"--{name}", "1"])
            typed = [word for word in shlex.split(line or "") if word.startswith("-")]
            assert flags.issuperset(typed), line
            lines += line is not None
    assert lines > 500


def test_the_last_name_of_every_key_leads_to_a_key_of_that_name():
    run = typer.main.get_command(app).commands["run"]
    for last in {key.partition(".")[2] for key in FIELDS} - {"source"}:
        for flag in (f"--{last}", f"--{last.replace('_', '-')}"):
            line = guesses.meant_line(run, "tinygpt run", [flag, "1"])
            assert re.fullmatch(rf"tinygpt run --set \w+\.{last}=1", str(line)), flag


TYPICAL = ["--set", "--lr", "-n", "=", "--", "--batch_size=", "a=b", "x" * 5_000]
WORDS = st.lists(st.text() | st.text().map("--{}".format) | st.sampled_from(TYPICAL))


@given(words=WORDS, name=st.sampled_from(["train", "sample", "eval", "init", "compare", "doctor"]))
def test_whatever_is_typed_a_line_is_found_or_none(words, name):
    group = typer.main.get_command(app)
    lines = [guesses.meant_line(group.commands[name], f"tinygpt {name}", words)]
    if words:
        lines += [guesses.meant_command(group, "tinygpt", [*words, name])]
    for line in lines:
        assert line is None or shlex.split(line)[0] == "tinygpt"


def test_other_names_are_of_keys_and_are_no_key_themselves():
    last_names = {key.partition(".")[2] for key in FIELDS}
    assert set(OTHER_NAMES.values()) <= set(FIELDS)
    assert set(OTHER_NAMES).isdisjoint(last_names - {"text", "dtype"})


@pytest.mark.parametrize(("word", "quoted"), [("a", "a"), ("a b", '"a b"'), ('a "b"', "'a \"b\"'")])
def test_a_word_is_quoted_where_a_shell_needs_it(word, quoted):
    assert guesses.quote(word) == quoted
    assert shlex.split(quoted) == [word]


def test_a_source_is_checked_before_init_writes_anything(tinygpt, tmp_path):
    for source in ("nosuch.txt", "nosuch", "folder/*.txt"):
        result = tinygpt("init", "mine", "--source", source)
        assert result.code == 4
        assert "does not exist" in result.err or "matches no text file" in result.err
        assert not Path(tmp_path / "mine").exists()
