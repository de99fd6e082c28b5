"""The command line that was probably meant by one with an unknown flag, word or command."""

import difflib
import os
import re
import shlex
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

_FLAGS = {
    "--file": "input input_file prompt_file",
    "--model": "model_path checkpoint ckpt load model_id model_name_or_path pretrained run id",
    "--from": "model model_path checkpoint ckpt load model_name_or_path pretrained resume_from",
    "--resume": "resume_from_checkpoint resume_training continue",
    "--fresh": "overwrite_output_dir restart",
    "--max-minutes": "time_limit max_time minutes",
    "--interactive": "chat",
    "--store": "out output out_dir output_dir save_dir o",
    "--config": "cfg config_file c",
    "--force": "overwrite no_cache f",
    "--quiet": "q silent",
    "--to": "format",
    "--dtype": "outtype torch_dtype quantize",
    "--version": "v V",
}
"""Flags that are no keys of the configuration, and what they are called elsewhere."""

_COMMANDS = {
    "run": "all pipeline start",
    "init": "new create",
    "build-dataset": "prepare preprocess dataset prepare-data",
    "train --resume": "resume continue",
    "train --from ID": "finetune fine-tune",
    "eval": "evaluate test validate",
    "sample": "generate gen infer inference predict complete",
    "sample --interactive": "chat",
    "plot": "report figures draw",
    "export": "convert convert-hf save-pretrained",
    "compare": "diff",
    "doctor": "check selftest",
    "config show": "settings",
    "artifacts ls": "list runs models",
    "artifacts gc": "clean prune",
    "--version": "version",
}
"""Commands, and what they are called elsewhere; those of `artifacts` are found without it."""

_FILES = ("out", "output", "out_file", "output_file", "o")
_TRUTH = ("true", "false", "True", "False", "1", "0")


def meant_line(command: Any, path: str, words: Sequence[str]) -> str | None:
    """The whole command line in our words; None if nothing in it is recognized.

    Args:
        command: a command of Typer.
        path: what was typed to name it, e.g., "tinygpt artifacts ls".
        words: what follows it.
    """
    loose: list[str] = []
    flags: list[str] = []
    for piece, is_loose in _pieces(command, deque(words)):
        (loose if is_loose else flags).append(piece)
    takes = _takes(command)
    if command.name == "sample" and loose:
        loose = [" ".join(loose)]
    flags += [_placed(word, command) for word in loose[takes:]]
    flags.sort(key=lambda piece: piece.startswith("> "))
    line = " ".join([path, *map(quote, loose[:takes]), *flags])
    return None if sorted(shlex.split(line)) == sorted([*path.split(), *words]) else line


def _pieces(command: Any, words: deque[str]) -> Iterator[tuple[str, bool]]:
    """Each flag with its value in our words, or a word that belongs to no flag (True)."""
    own = {flag: param for param in command.params for flag in _spellings(param)}
    while words:
        word = words.popleft()
        flag, equals, value = word.partition("=")
        if not _is_flag(word):
            if word != "--":
                yield word, True
            continue
        template = _own_flag(flag, own[flag]) if flag in own else _meant_flag(flag, command, own)
        if flag in own or template is None:
            takes_next = not equals and (template or "{}").endswith("{}")
            following = [words.popleft()] if takes_next and words and not _is_flag(words[0]) else []
            if flag == "--set" and following and words and not following[0].partition("=")[2]:
                value = words.popleft().lstrip("=") or (words.popleft() if words else "")
                following = [f"{following[0].rstrip('=')}={value}"]
            yield " ".join(map(quote, [word, *following])), False
        elif "{}" in template:
            value = value if equals else _next_value(template, words)
            is_argument = template == "{}"
            yield value if is_argument else template.replace("{}", quote(value)), is_argument
        else:
            if words and not equals and not _is_flag(words[0]) and not _takes(command):
                words.popleft()
            yield template, False


def _takes(command: Any) -> int:
    """How many words a command takes beside its flags."""
    return sum(param.param_type_name == "argument" for param in command.params)


def _next_value(template: str, words: deque[str]) -> str:
    """The value that follows a flag; a switch needs none."""
    from tinygpt.config.fields import FIELDS

    key = template.removeprefix("--set ").removesuffix("={}")
    is_switch = key in FIELDS and FIELDS[key].annotation is bool
    if words and (words[0] in _TRUTH if is_switch else not _is_flag(words[0])):
        return words.popleft()
    return "true" if is_switch else "VALUE"


def _is_flag(word: str) -> bool:
    return re.match(r"-+[A-Za-z]", word) is not None


def _spellings(param: Any) -> list[str]:
    return [*param.opts, *param.secondary_opts] if param.param_type_name == "option" else []


def _own_flag(flag: str, param: Any) -> str:
    return flag if param.is_flag else f"{flag} {{}}"


def _meant_flag(flag: str, command: Any, own: dict[str, Any]) -> str | None:
    """How the command spells what another program calls `flag`; its value goes into the `{}`."""
    name = flag.lstrip("-").replace("-", "_")
    dashed = f"--{name.replace('_', '-')}"
    if dashed in own:
        return _own_flag(dashed, own[dashed])
    if command.name == "sample" and name in _FILES:
        return "> {}"
    if command.name == "export" and name in (*_FILES, "out_dir", "output_dir"):
        return "{}"
    for known, names in _FLAGS.items():
        if name in names.split() and known in own:
            return _own_flag(known, own[known])
    key = _meant_key(name, command.name)
    if key is None:
        return None
    for param in command.params:
        if param.help == key:
            is_word = param.param_type_name == "argument"
            return "{}" if is_word else _own_flag(param.opts[0], param)
    return f"--set {key}={{}}" if "--set" in own else None


def _meant_key(name: str, command: str) -> str | None:
    """The key of the configuration that a command may mean by a name."""
    from tinygpt.config.fields import FIELDS, TABLES
    from tinygpt.config.other_names import OTHER_NAMES
    from tinygpt.pipeline import STAGES

    if command == "eval" and OTHER_NAMES.get(name) == "data.source":
        return "eval.text"
    unread: set[str] = set()
    if command in STAGES:
        unread = set(STAGES) - {command, *STAGES[command].inputs, "train"}
    keys = [f"{table}.{name}" for table in (command, *TABLES) if table not in unread]
    other = OTHER_NAMES.get(name)
    if other and other.partition(".")[0] not in unread:
        keys.append(other)
    return next((key for key in keys if key in FIELDS), None)


def _placed(word: str, command: Any) -> str:
    """A word that the command does not take, with the flag before it that does."""
    from tinygpt.config import PRESETS
    from tinygpt.config.fields import FIELDS

    own = [flag for param in command.params for flag in _spellings(param)]
    is_id = re.fullmatch(r"[0-9a-f]{4,64}", word) is not None
    candidates = {
        "--set": word.partition("=")[0] in FIELDS,
        "--preset": word in PRESETS,
        "--model": is_id,
        "--from": is_id,
        "--text": command.name == "eval",  # before --source, which names the text of training
        "--source": _exists(word) or re.search(r"[./]", word) is not None,
    }
    fitting = [flag for flag, fits in candidates.items() if fits and flag in own]
    return f"{fitting[0]} {quote(word)}" if fitting else quote(word)


def _exists(word: str) -> bool:
    return os.path.exists(word)  # noqa: PTH110  a text too long for a path is no error here


def meant_command(group: Any, path: str, words: Sequence[str]) -> str | None:
    """The command line in which flags stand before the command, or a command has another name.

    Args:
        group: of commands, as Typer has it.
        path: what was typed to name it: "tinygpt", or "tinygpt artifacts".
        words: what follows it.
    """
    if _is_flag(words[0]):
        return _flags_last(group, path, words)
    rest = "".join(f" {quote(word)}" for word in words[1:])
    for known, names in _COMMANDS.items():
        if words[0] in names.split():
            return f"tinygpt {known}{rest}"
    if "artifacts" in group.commands and words[0] in group.commands["artifacts"].commands:
        return f"tinygpt artifacts {words[0]}{rest}"
    if _exists(words[0]) and "run" in group.commands:
        return f"tinygpt run --source {quote(words[0])}{rest}"
    return None


def _flags_last(group: Any, path: str, words: Sequence[str]) -> str | None:
    """The line in which what stands before the command stands after it."""
    own = {flag: param for param in group.params for flag in _spellings(param)}
    template = _meant_flag(words[0], group, own)
    if template:
        return f"{path} {template}"
    name = next((word for word in words if word in group.commands), next(iter(group.commands)))
    command = group.commands[name]
    place = words.index(name) if name in words else len(words)
    before, after = words[:place], words[place + 1 :]
    if hasattr(command, "commands"):
        if not after or after[0] not in command.commands:
            return None
        name, command, after = f"{name} {after[0]}", command.commands[after[0]], after[1:]
    moved = [*after, *before]
    flag = words[0].partition("=")[0]
    is_known = any(flag in _spellings(param) for param in command.params)
    line = meant_line(command, f"{path} {name}", moved)
    return line or (" ".join([path, name, *map(quote, moved)]) if is_known else None)


def hint_for_flag(context: Any, flag: str) -> str | None:
    """What to type instead of a flag that no other line can be made from.

    Args:
        context: of Typer, in which the flag was found.
    """
    if "epochs" in flag:
        return "training is counted in steps, not in epochs: `--set train.max_steps=1000`"
    for name, command in context.find_root().command.commands.items():
        if any(flag in _spellings(param) for param in command.params):
            return f"`{flag}` is a flag of `tinygpt {name}`"
    flags = {
        known.lstrip("-"): known for param in context.command.params for known in _spellings(param)
    }
    near = difflib.get_close_matches(flag.lstrip("-"), flags, 1)
    return f"did you mean `{flags[near[0]]}`?" if near else None


def quote(text: str) -> str:
    """A text as one word of a shell, in double quotes where they are enough."""
    if shlex.quote(text) == text:
        return text
    return shlex.quote(text) if re.search(r'["$`\\!]', text) else f'"{text}"'
