"""A fork server: each case is a store with one file changed, all recorded hashes fixed up.

python -m tests.proofs.mutation_server SEED CASES FOLDER [--untyped | --unchanged]

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
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from tests.proofs import mutators
from tests.proofs.mutators import Mutator, Raw
from tinygpt import cli
from tinygpt.hashing import hash_bytes, hash_json
from tinygpt.store import Manifest, artifact

CONFIG = """
[data]
source = "builtin"
max_documents = 80
[tokenizer]
vocab_size = 300
[model]
d_model = 16
n_layers = 1
n_heads = 2
d_ff = 32
context_length = 32
dropout = 0.1
[train]
max_steps = 12
batch_size = 2
grad_accum_steps = 1
warmup_steps = "none"
eval_every = 5
snapshots = 3
sample_tokens = 8
precision = "fp32"
[eval]
num_samples = 1
[sample]
max_new_tokens = 12
[plot]
ablation_tokens = 64
[page]
snapshots = 2
[runtime]
threads = 1
checkpoint_every = 5
progress = "none"
"""
STAGES = ("corpus", "tokenize", "build-dataset", "train", "eval", "sample", "plot")
CHECKPOINT = "checkpoint"
UNFINISHED = "--set train.max_steps=14"
CODES = {0, 2, 3, 4, 5, 6, 8, 75}  # 1 is an unexpected failure, or the memory is full
SECONDS = 60
MEBIBYTES = 1024
HEADROOM = 8 << 30  # of address space: what asks for more is stopped before it hurts the machine
CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class Target(NamedTuple):
    """A file, how it is changed, and commands that read it.

    Args:
        stage: of the artifact; "*" for a random one.
    """

    stage: str
    file: str
    mutate: Mutator
    commands: tuple[str, ...]


OF_MODEL = ("sample --seed 3", "eval --force", "sample --model {folder} --seed 3")
EXPORT = "export x --to hf"
NEW_RUN = "train --from {train} --set train.max_steps=2"
TARGETS = {
    "documents": Target(
        "corpus",
        "documents.jsonl.gz",
        mutators.mutated_gzip,
        ("tokenize --force", "build-dataset --force"),
    ),
    "corpus": Target(
        "corpus",
        "meta.json",
        mutators.mutated_json,
        ("tokenize --force", "build-dataset --force", "artifacts show {id}"),
    ),
    "tokenizer": Target(
        "tokenize",
        "tokenizer.json",
        mutators.mutated_json,
        ("sample --seed 3", "eval --force", "train --force", "build-dataset --force"),
    ),
    "statistics": Target(
        "tokenize", "statistics.json", mutators.mutated_json, ("artifacts show {id}",)
    ),
    "dataset": Target(
        "build-dataset",
        "meta.json",
        mutators.mutated_json,
        ("eval --force", "train --force", "artifacts show {id}", "replay {train}"),
    ),
    "train tokens": Target(
        "build-dataset",
        "train.bin",
        mutators.mutated_tokens,
        ("train --force", "eval --force", "replay {train}"),
    ),
    "validation tokens": Target(
        "build-dataset", "val.bin", mutators.mutated_tokens, ("train --force", "eval --force")
    ),
    "config": Target(
        "train",
        "config.json",
        mutators.mutated_json,
        (*OF_MODEL, "replay {train}", "artifacts show {train}", "page --force", NEW_RUN, EXPORT),
    ),
    "metrics": Target(
        "train",
        "metrics.jsonl",
        mutators.mutated_lines,
        ("sample --seed 3", "artifacts ls", "replay {train}", "export x --to csv"),
    ),
    "weights": Target(
        "train",
        "model.safetensors",
        mutators.mutated_tensors,
        (*OF_MODEL, NEW_RUN, "replay {train}", "page --force", EXPORT),
    ),
    "best weights": Target(
        "train",
        "best/model.safetensors",
        mutators.mutated_tensors,
        ("sample --weights best --seed 3", "eval --force --weights best"),
    ),
    "probe": Target("train", "probe.safetensors", mutators.mutated_tensors, OF_MODEL),
    "optimizer": Target("train", "optimizer.safetensors", mutators.mutated_tensors, (NEW_RUN,)),
    "snapshot": Target(
        "train",
        "snapshots/step-00000003.safetensors",
        mutators.mutated_tensors,
        ("replay {train}", "page --force"),
    ),
    "evaluation": Target(
        "eval",
        "eval.json",
        mutators.mutated_json,
        ("eval --json", "run --until eval", "artifacts show {id}", "artifacts ls"),
    ),
    "samples": Target(
        "sample",
        "samples.jsonl",
        mutators.mutated_lines,
        ("run --until sample", "sample --seed 1337 --top-p 0.9 {flag}", "artifacts show {id}"),
    ),
    "summary": Target(
        "*", "summary.json", mutators.mutated_json, ("run --until sample", "artifacts show {id}")
    ),
    "manifest": Target(
        "*",
        "manifest.json",
        mutators.mutated_json,
        (
            *("artifacts ls", "artifacts ls --json", "artifacts verify", "artifacts gc"),
            *("artifacts show {id}", "artifacts lineage {id}", "run --until sample"),
            *("sample --model {folder} --seed 3", "eval --force", "sample --seed 3"),
        ),
    ),
    "state": Target(
        CHECKPOINT,
        "state.json",
        mutators.mutated_json,
        (f"train --resume {UNFINISHED}", f"sample --seed 3 {UNFINISHED}"),
    ),
    "checkpoint's config": Target(
        CHECKPOINT,
        "config.json",
        mutators.mutated_json,
        (f"train --resume {UNFINISHED}", f"sample --seed 3 {UNFINISHED}"),
    ),
    "checkpoint's metrics": Target(
        CHECKPOINT, "metrics.jsonl", mutators.mutated_lines, (f"train --resume {UNFINISHED}",)
    ),
    "checkpoint's weights": Target(
        CHECKPOINT,
        "model.safetensors",
        mutators.mutated_tensors,
        (f"train --resume {UNFINISHED}", f"eval --force {UNFINISHED}"),
    ),
    "checkpoint's optimizer": Target(
        CHECKPOINT,
        "optimizer.safetensors",
        mutators.mutated_tensors,
        (f"train --resume {UNFINISHED}",),
    ),
    "checkpoint's best weights": Target(
        CHECKPOINT,
        "best/model.safetensors",
        mutators.mutated_tensors,
        (f"train --resume {UNFINISHED}",),
    ),
}
PLOTTED = {"config", "metrics", "evaluation", "dataset", "snapshot", "weights", "summary"}
PLOT_SHARE = 0.06  # of the cases of what `plot` reads; a plot takes seconds


PRELOADED = (
    *("matplotlib.backends.backend_agg", "matplotlib.figure", "rich.console", "rich.progress"),
    *("tinygpt.cli.app", "tinygpt.cli.session", "tinygpt.corpus.builtin", "tinygpt.library"),
    *("tinygpt.runs.replay", "tinygpt.store.upkeep"),
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


def reseal(store: Path, changed: Mapping[str, Sequence[str]]) -> dict[str, Path]:
    """Fix up all recorded hashes; the folder of each stage, whose names change with the keys.

    Args:
        changed: the files that were changed, by stage.
    """
    folders = {stage: next((store / stage).iterdir()) for stage in STAGES}
    made: dict[str, Manifest] = {}
    for stage, folder in folders.items():
        manifest = Manifest.from_bytes((folder / "manifest.json").read_bytes())
        inputs = {}
        for name, record in manifest.inputs.items():
            source = made[record["stage"]]
            inputs[name] = {**record, "key": source.key, "digest": source.digest}
        digests = {name: record["digest"] for name, record in inputs.items()}
        facts = (manifest.stage, manifest.version, manifest.tables, digests)
        update = {"inputs": inputs, "key": hash_json("tinygpt.key", *facts)}
        made[stage] = manifest.model_copy(update=update)
        for name in changed.get(stage, ()):
            made[stage] = sealed(made[stage], folder, name)
        if made[stage] != manifest:
            replace(folder / "manifest.json", made[stage].to_bytes())
            folders[stage] = folder.rename(folder.with_name(made[stage].key[:12]))
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
    body = plain(mutators.mutated_value(json.loads(data), chance))
    if isinstance(body, dict):
        body = {name: value for name, value in body.items() if name not in ("digest", "sha256")}
        try:
            hashes = {name: record["sha256"] for name, record in body["files"].items()}
            body["digest"] = hash_json("tinygpt.digest", hashes)
            body["sha256"] = hash_json("tinygpt.manifest", body)
        except (KeyError, TypeError, AttributeError, ValueError):
            pass  # no right hash can be written
    replace(path, json.dumps(body, indent=1, sort_keys=True).encode() + b"\n")


def prepare(base: Path, work: Path, name: str, chance: Random) -> list[str]:
    """Make the store of a case; the command to run in it."""
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(base, work, copy_function=os.link)
    target, store = TARGETS[name], work / "artifacts"
    stage = chance.choice(STAGES) if target.stage == "*" else target.stage
    folders = {each: next((store / each).iterdir()) for each in STAGES}
    if stage == CHECKPOINT:
        *older, folder = sorted(store.glob(".partial/train-*/checkpoint/step-*"))
        for each in older:
            shutil.rmtree(each)
        path = folder / target.file
        replace(path, target.mutate(path.read_bytes(), chance))
        manifest = Manifest.from_bytes((folder / "manifest.json").read_bytes())
        replace(folder / "manifest.json", sealed(manifest, folder, target.file).to_bytes())
    elif name == "manifest":
        mutate_manifest(folders[stage], chance)
    else:
        path = folders[stage] / target.file
        data = target.mutate(path.read_bytes(), chance)
        replace(path, data)
        changed = {stage: [target.file]}
        if name == "tokenizer":  # the model's copy of it
            replace(folders["train"] / target.file, data)
            changed["train"] = [target.file]
        folders = reseal(store, changed)
    lines = target.commands
    if name in PLOTTED and chance.random() < PLOT_SHARE:
        lines = ("plot --force",)
    line = chance.choice(lines).format(
        id=folders.get(stage, folders["train"]).name,
        train=folders["train"].name,
        folder=folders["train"],
        flag=chance.choice(["--json", "--xray"]),
    )
    return line.split()


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
    if ended.code == 0 and re.search(r"\b(nan|inf)\b", text + ended.out.decode(), re.IGNORECASE):
        return "success with nan or inf"
    return None


def import_everything() -> None:
    """What commands import, so that children find it there."""
    for name in PRELOADED:
        importlib.import_module(name)


def prepare_base(base: Path) -> None:
    """A finished store with an unfinished run beside it."""
    base.mkdir(parents=True)
    (base / "tinygpt.toml").write_text(CONFIG)
    for line, code in (("run", 0), (f"train {UNFINISHED} --stop-at-step 13", 75)):
        ended = run_case(line.split(), base)
        assert ended.code == code, ended.err.decode()
    for lock in base.glob("artifacts/.locks/*"):
        lock.unlink()  # written in place, so that the copies must not share them


def main(seed: int, cases: int, folder: Path) -> None:
    """Run cases, and print what went wrong and the counts."""
    import_everything()
    prepare_base(folder / "base")
    chance = Random(seed)
    codes: collections.Counter[int] = collections.Counter()
    faults: collections.Counter[str] = collections.Counter()
    most = longest = 0.0
    for number in range(cases):
        own_seed = chance.getrandbits(48)
        case = Random(own_seed)
        name = case.choice(list(TARGETS))
        arguments = prepare(folder / "base", folder / "work", name, case)
        ended = run_case(arguments, folder / "work")
        codes[ended.code] += 1
        most, longest = max(most, ended.memory), max(longest, ended.seconds)
        if what := fault(ended):
            faults[what.split()[0].rstrip(":")] += 1
            line = {"number": number, "seed": own_seed, "target": name, "command": arguments}
            line |= {"fault": what, "code": ended.code, "error": ended.err.decode()[-400:]}
            print(json.dumps(line), flush=True)
    counts = {"cases": cases, "codes": dict(sorted(codes.items())), "faults": dict(faults)}
    print(json.dumps({**counts, "most_mib": round(most), "longest_s": round(longest, 1)}))


if __name__ == "__main__":
    if sys.argv[4:] == ["--untyped"]:  # the control
        artifact.parse = lambda data, record: json.loads(data)
    if sys.argv[4:] == ["--unchanged"]:  # shows that each command reads what is changed otherwise
        CODES = {0}
        TARGETS = {
            name: target._replace(mutate=lambda data, _: data) for name, target in TARGETS.items()
        }
        mutate_manifest = lambda *_: None  # noqa: E731
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
