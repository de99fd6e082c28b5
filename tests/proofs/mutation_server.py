"""A fork server: each case is a store with one file changed, all recorded hashes fixed up.

python -m tests.proofs.mutation_server SEED CASES FOLDER [--keys] [--untyped | --unchanged]

It prints a JSON line for each case that ended wrongly, and one with the counts at the end.
"""

import collections
import importlib
import json
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from tests.proofs import mutators
from tests.proofs.mutation_targets import (
    BASES,
    CHECKPOINT,
    CONFIG,
    KEY_READERS,
    PLOT_SHARE,
    PLOTTED,
    STAGES,
    TARGETS,
    Target,
)
from tests.proofs.mutators import Raw
from tinygpt import cli
from tinygpt.experiments import experiment
from tinygpt.hashing import hash_bytes, hash_json
from tinygpt.store import Manifest, artifact
from tinygpt.store.manifest import recipe_key

OF_KEYS: Callable[[Any], bool] = lambda case: True  # noqa: E731 - which key cases are tried
CODES = {0, 2, 3, 4, 5, 6, 8, 75}  # 1 is an unexpected failure, or the memory is full
SECONDS = 60
MEBIBYTES = 1024
HEADROOM = 8 << 30  # of address space: what asks for more is stopped before it hurts the machine
Case = tuple[dict[str, Any], list[str]]
"""What is said of a case that ends wrongly, and the command to run in the store made for it."""
Cases = Callable[[int, Path, Random], Iterator[Case]]
NOT_FINITE = re.compile(r"\b(nan|inf|NaN|Infinity)\b")  # as numbers are printed
CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


PRELOADED = (
    *("matplotlib.backends.backend_agg", "matplotlib.figure", "rich.console", "rich.progress"),
    *("tinygpt.cli.app", "tinygpt.cli.session", "tinygpt.corpus.builtin", "tinygpt.library"),
    *("tinygpt.runs.replay", "tinygpt.store.upkeep", "tinygpt.html_experiment"),
    *(f"tinygpt.stages.{name.replace('-', '_')}" for name in (*STAGES, "page")),
)


class Ended(NamedTuple):
    """How a command ended; MiB and seconds."""

    code: int
    out: bytes
    err: bytes
    signal: int
    memory: float
    seconds: float


def replace(path: Path, data: bytes) -> None:
    """Write a file that may be a link to that of the prepared store."""
    path.unlink()
    path.write_bytes(data)


def sealed(manifest: Manifest, folder: Path, changed: str) -> Manifest:
    """The manifest with size and hash of a file as they are now."""
    data = (folder / changed).read_bytes()
    record = {"sha256": hash_bytes(data), "bytes": len(data)}
    return manifest.model_copy(update={"files": {**manifest.files, changed: record}})


def key(manifest: Manifest, inputs: Mapping[str, Mapping[str, Any]]) -> str:
    """The key of what is made from other inputs."""
    digests = {name: record["digest"] for name, record in inputs.items()}
    if manifest.stage == "plan":
        return manifest.key  # of what was asked for, which stands in no file
    if manifest.stage == "experiment":
        return hash_json("tinygpt.experiment", experiment.VERSION, manifest.tables, digests)
    return recipe_key(manifest.stage, manifest.version, manifest.tables, digests)


def reseal(store: Path, changed: Mapping[Path, str]) -> dict[Path, Path]:
    """Fix up all recorded hashes; where each artifact is now, as their names change with the keys.

    Args:
        changed: the files that were changed, by the folder of their artifact.
    """
    waiting = {
        path.parent: Manifest.from_bytes(path.read_bytes())
        for path in sorted(store.glob("[!.]*/*/manifest.json"))
    }
    folders: dict[Path, Path] = {}
    made: dict[str, Manifest] = {}
    while waiting:
        ready = (
            folder
            for folder, manifest in waiting.items()
            if all(record["key"] in made for record in manifest.inputs.values())
        )
        folder = next(ready)
        manifest = waiting.pop(folder)
        inputs = {
            name: {**record, "key": source.key, "digest": source.digest}
            for name, record in manifest.inputs.items()
            for source in [made[record["key"]]]
        }
        new = manifest.model_copy(update={"inputs": inputs, "key": key(manifest, inputs)})
        if folder in changed:
            new = sealed(new, folder, changed[folder])
        made[manifest.key], folders[folder] = new, folder
        if new != manifest:
            replace(folder / "manifest.json", new.to_bytes())
            folders[folder] = folder.rename(folder.with_name(new.key[:12]))
    return folders


def plain(value: Any) -> Any:
    """A value without what canonical JSON cannot express, so that its hash can be right."""
    if isinstance(value, Raw):
        return 12_345
    if isinstance(value, dict):
        return {key: plain(member) for key, member in value.items()}
    return [plain(member) for member in value] if isinstance(value, list) else value


def mutate_manifest(folder: Path, chance: Random) -> None:
    """Change the manifest itself, most often with right hashes."""
    path = folder / "manifest.json"
    data = path.read_bytes()
    if chance.random() < 0.1:
        replace(path, mutators.mutated_json(data, chance))
        return
    body = json.loads(data)
    if chance.random() < 0.6:  # else the long list of modules would get most of the changes
        part = chance.choice(["tables", "inputs", "files", "provenance"])
        body[part] = plain(mutators.mutated_value(body[part], chance))
    else:
        body = plain(mutators.mutated_value(body, chance))
    if isinstance(body, dict):
        body = {name: value for name, value in body.items() if name not in ("digest", "sha256")}
        try:
            hashes = {name: record["sha256"] for name, record in body["files"].items()}
            body["digest"] = hash_json("tinygpt.digest", hashes)
            body["sha256"] = hash_json("tinygpt.manifest", body)
        except (KeyError, TypeError, AttributeError, ValueError):
            pass  # no right hash can be written
    replace(path, json.dumps(body, indent=1, sort_keys=True).encode() + b"\n")


class KeyCase(NamedTuple):
    """A key of tables or inputs that the manifests of a stage lack, or that has another type."""

    base: str
    stage: str
    place: tuple[str, ...]
    is_missing: bool
    command: str


def key_cases(bases: Path) -> list[KeyCase]:
    """All of them, with every command that may read such a manifest."""
    cases = []
    for base, commands in KEY_READERS.items():
        for stage in sorted((bases / base / "artifacts").glob("[!.]*/")):
            manifest = next(stage.glob("*/manifest.json"), None)
            body = json.loads(manifest.read_bytes()) if manifest else {}
            for part in ("tables", "inputs"):
                places = [place for place in mutators.places(body.get(part, {})) if len(place) < 3]
                cases += [
                    KeyCase(base, stage.name, (part, *map(str, place)), is_missing, command)
                    for place in places
                    for is_missing in (True, False)
                    for command in commands
                ]
    return cases


def prepare_key_case(bases: Path, work: Path, case: KeyCase) -> list[str]:
    """Make the store of a case; the command to run in it."""
    copy_store(bases / case.base, work)
    for path in (work / "artifacts" / case.stage).glob("*/manifest.json"):
        body = json.loads(path.read_bytes())
        parent = body
        for name in case.place[:-1]:
            parent = parent.get(name, {})
        if case.place[-1] in parent:
            old = parent.pop(case.place[-1])
            parent |= {} if case.is_missing else {case.place[-1]: [old]}
        del body["sha256"]
        body["sha256"] = hash_json("tinygpt.manifest", body)
        replace(path, json.dumps(body, indent=1, sort_keys=True).encode() + b"\n")
    train, *_, other = (sorted((work / "artifacts" / "train").iterdir()) * 2)[:5]
    first = next((work / "artifacts" / case.stage).iterdir())
    return case.command.format(id=first.name, train=train.name, other=other.name).split()


def copy_store(base: Path, work: Path) -> None:
    """A store whose files are those of a prepared one until `replace` writes them."""
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(base, work, copy_function=os.link)


def prepare(bases: Path, work: Path, name: str, chance: Random) -> list[str]:
    """Make the store of a case; the command to run in it."""
    target, store = TARGETS[name], work / "artifacts"
    copy_store(bases / target.base, work)
    folders = {path.parent: path.parent for path in sorted(store.glob("[!.]*/*/manifest.json"))}
    trained = [folder for folder in folders if folder.parent.name == "train"]
    of_stage = [folder for folder in folders if target.stage in ("*", folder.parent.name)]
    chosen = trained[0]
    if target.stage == CHECKPOINT:
        mutate_checkpoint(store, target, chance)
    elif target.file == "manifest.json":
        stage = chance.choice(sorted({folder.parent.name for folder in of_stage}))
        chosen = chance.choice([folder for folder in of_stage if folder.parent.name == stage])
        mutate_manifest(chosen, chance)
    else:
        chosen = chance.choice(of_stage)
        path = chosen / target.file
        data = target.mutate(path.read_bytes(), chance)
        replace(path, data)
        changed = {chosen: target.file}
        if name == "tokenizer":  # the model's copy of it
            replace(trained[0] / target.file, data)
            changed[trained[0]] = target.file
        folders = reseal(store, changed)
    lines = target.commands
    if name in PLOTTED and chance.random() < PLOT_SHARE:
        lines = ("plot --force",)
    line = chance.choice(lines).format(
        id=folders[chosen].name,
        train=folders[trained[0]].name,
        other=folders[trained[-1]].name,
        folder=folders[trained[0]],
        flag=chance.choice(["--json", "--xray"]),
    )
    return line.split()


def mutate_checkpoint(store: Path, target: Target, chance: Random) -> None:
    """Change the newest checkpoint, and take the older ones away."""
    *older, folder = sorted(store.glob(".partial/train-*/checkpoint/step-*"))
    for each in older:
        shutil.rmtree(each)
    path = folder / target.file
    replace(path, target.mutate(path.read_bytes(), chance))
    manifest = Manifest.from_bytes((folder / "manifest.json").read_bytes())
    replace(folder / "manifest.json", sealed(manifest, folder, target.file).to_bytes())


def run_case(arguments: Sequence[str], folder: Path) -> Ended:
    """A command line in a forked child."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            _child(arguments, folder, out.fileno(), err.fileno())
        status = 0
        while True:
            ended, status, usage = os.wait4(child, os.WNOHANG)
            if ended:
                break
            if time.monotonic() - began > SECONDS:
                os.kill(child, signal.SIGKILL)
            time.sleep(0.002)
        seconds = time.monotonic() - began
        out.seek(0)
        err.seek(0)
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        code = os.waitstatus_to_exitcode(status)
        return Ended(code, out.read(), err.read(), number, usage.ru_maxrss / 1024, seconds)


def _child(arguments: Sequence[str], folder: Path, out: int, err: int) -> None:
    code = 99
    try:
        os.chdir(folder)
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + HEADROOM, size + HEADROOM))
        code = cli.invoke(list(arguments))
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001 - whatever it is, the server must not go on twice
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(code)


def fault(ended: Ended) -> str | None:
    """What is wrong with how a command ended; None if nothing is."""
    text = ended.err.decode(errors="replace")
    if ended.seconds > SECONDS:
        return "hang"
    if ended.signal:
        return f"signal {ended.signal}"
    if ended.code == 99 or "Traceback" in text:
        return "traceback"
    if "error: unexpected" in text:
        return f"unexpected{text.partition('error: unexpected')[2][:100]}"
    if ended.memory > MEBIBYTES:
        return f"memory {ended.memory:.0f} MiB"
    if CONTROL.search(ended.out + ended.err):
        return "control characters"
    if ended.code not in CODES:
        return f"code {ended.code}"
    if ended.code and "error: " not in text and ended.code not in (6, 75):
        return "no error line"
    if ended.code == 0 and NOT_FINITE.search(text + ended.out.decode()):
        return "success with nan or inf"
    return None


def import_everything() -> None:
    """What commands import, so that children find it there."""
    for name in PRELOADED:
        importlib.import_module(name)


def prepare_base(base: Path, commands: Sequence[tuple[str, int]]) -> None:
    """A store that commands have made."""
    base.mkdir(parents=True)
    (base / "tinygpt.toml").write_text(CONFIG)
    for line, code in commands:
        ended = run_case(line.split(), base)
        assert ended.code == code, ended.err.decode()
    for lock in base.glob("artifacts/.locks/*"):
        lock.unlink()  # written in place, so that the copies must not share them


def cases_of_keys(count: int, folder: Path, chance: Random) -> Iterator[Case]:
    """Some of the cases of keys, in any order."""
    every = list(filter(OF_KEYS, key_cases(folder / "bases")))
    for case in chance.sample(every, min(count, len(every))):
        facts = dict(zip(case._fields, case, strict=True))
        yield facts, prepare_key_case(folder / "bases", folder / "work", case)


def cases_of_files(count: int, folder: Path, chance: Random) -> Iterator[Case]:
    """Random cases."""
    for number in range(count):
        seed = chance.getrandbits(48)
        own = Random(seed)
        name = own.choice(list(TARGETS))
        facts = {"number": number, "seed": seed, "target": name}
        yield facts, prepare(folder / "bases", folder / "work", name, own)


def main(seed: int, count: int, folder: Path, cases: Cases) -> None:
    """Run cases, and print what went wrong and the counts."""
    import_everything()
    for base, commands in BASES.items():
        prepare_base(folder / "bases" / base, commands)
    codes: collections.Counter[int] = collections.Counter()
    faults: collections.Counter[str] = collections.Counter()
    most = longest = 0.0
    for facts, arguments in cases(count, folder, Random(seed)):
        ended = run_case(arguments, folder / "work")
        codes[ended.code] += 1
        most, longest = max(most, ended.memory), max(longest, ended.seconds)
        if what := fault(ended):
            faults[what.split()[0].rstrip(":")] += 1
            line = {**facts, "command": arguments, "fault": what, "code": ended.code}
            print(json.dumps({**line, "error": ended.err.decode()[-400:]}), flush=True)
    counts = {"cases": codes.total(), "codes": dict(sorted(codes.items())), "faults": dict(faults)}
    print(json.dumps({**counts, "most_mib": round(most), "longest_s": round(longest, 1)}))


if __name__ == "__main__":
    seed, count, folder, *flags = sys.argv[1:]
    if "--untyped" in flags:  # the control
        artifact.parse = lambda data, record: json.loads(data)
        artifact.Artifact.table = lambda self, name, record=dict: self.manifest.tables[name]
        artifact.Artifact.input = lambda self, stage: self.manifest.inputs[stage]
        OF_KEYS = lambda case: case.is_missing and len(case.place) == 2  # noqa: E731 - whole tables
    if "--unchanged" in flags:  # shows that each command reads what is changed otherwise
        CODES = {0}
        TARGETS = {
            name: target._replace(mutate=lambda data, _: data) for name, target in TARGETS.items()
        }
        mutate_manifest = lambda *_: None  # noqa: E731
    cases = cases_of_keys if "--keys" in flags else cases_of_files
    main(int(seed), int(count), Path(folder), cases)
