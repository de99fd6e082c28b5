"""How fast, and in how much memory, a corpus becomes token shards; Linux only.

    python -m benchmarks.tokenize DOCUMENTS.jsonl [--json] [--repeat N] [--rounds N]

The corpus is the documents (one {"text": ...} a line) N times over. The peer is a bare loop over
the native `encode_batch` on the same text. The result:

    tokens                     in the corpus
    dataset_tokens_per_second  stage `build-dataset`: decompress, parse, hash, split, encode, write,
                               fsync, publish
    bare_tokens_per_second     the bare loop: texts that are in memory already, 1,000 at a time, ids
                               read out
    ratio                      median of the rounds, each of which measures both
    dataset_peak_mib           the most memory of the stage, in a process of its own
    dataset_base_mib           memory of that process before the stage begins
"""

import gzip
import json as json_library
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from benchmarks.command import Json, Rounds, run_command
from tinygpt import ui
from tinygpt.config import Config
from tinygpt.pipeline import STAGES, Runner, execute
from tinygpt.progress import Reporter, SilentReporter
from tinygpt.records import CorpusMeta, DatasetMeta
from tinygpt.stages import build_dataset, tokenize
from tinygpt.store import Artifact, ArtifactWriter, Inputs, Store

TEXTS_AT_ONCE = 1_000

DocumentsArgument = Annotated[
    Path, typer.Argument(metavar="DOCUMENTS.jsonl", help='A file with one {"text": ...} a line.')
]
RepeatOption = Annotated[
    int, typer.Option(min=1, metavar="N", help="How many times over the corpus has the documents.")
]


class StageTurn(NamedTuple):
    """What one run of stage `build-dataset` did."""

    tokens: int
    tokens_per_second: float
    base_mib: float
    peak_mib: float


class BareTurn(NamedTuple):
    """What one run of the bare loop did."""

    tokens: int
    tokens_per_second: float


def bench_tokenize(documents: list[str], repeat: int, rounds: int) -> dict[str, Any]:
    """Speed of the stage and of the bare loop, their ratio, and memory; see the module."""
    stage_turns = []
    bare_turns = []
    with tempfile.TemporaryDirectory() as folder:
        inputs = prepare_inputs(documents, repeat, Path(folder) / "inputs")
        tokenizer_json = inputs["tokenize"].read("tokenizer.json")
        for number in range(rounds):
            with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as process:
                stage_turn = process.apply(run_build_dataset, (Path(folder) / str(number), inputs))
            bare_turn = encode_bare(documents, repeat, tokenizer_json)
            assert stage_turn.tokens == bare_turn.tokens
            stage_turns.append(stage_turn)
            bare_turns.append(bare_turn)
    stage_speeds = [turn.tokens_per_second for turn in stage_turns]
    bare_speeds = [turn.tokens_per_second for turn in bare_turns]
    turn_ratios = [ours / bare for ours, bare in zip(stage_speeds, bare_speeds, strict=True)]
    return {
        "tokens": stage_turns[0].tokens,
        "dataset_tokens_per_second": round(statistics.median(stage_speeds)),
        "bare_tokens_per_second": round(statistics.median(bare_speeds)),
        "ratio": round(statistics.median(turn_ratios), 3),
        "dataset_peak_mib": round(max(turn.peak_mib for turn in stage_turns)),
        "dataset_base_mib": round(max(turn.base_mib for turn in stage_turns)),
    }


def prepare_inputs(documents: list[str], repeat: int, root: Path) -> dict[str, Artifact]:
    """The repeated corpus, and a tokenizer of the recipe's size trained on the documents once."""
    lines = [json_library.dumps(text) + "\n" for text in documents]
    packed = gzip.compress("".join(lines).encode(), 3, mtime=0)
    size = sum(len(text.encode()) for text in documents)

    def make_corpus(times: int) -> Artifact:
        def write(config: Config, inputs: Inputs, out: ArtifactWriter, reporter: Reporter) -> None:
            meta: CorpusMeta = {
                "documents": len(documents) * times,
                "bytes": size * times,
                "empty": 0,
                "source": {"kind": "files"},
            }
            out.bytes("documents.jsonl.gz", packed * times)
            out.json("meta.json", meta)

        return run_stage(root / str(times), "corpus", {}, write)

    once = {"corpus": make_corpus(1)}
    tokenizer = run_stage(root / "1", "tokenize", once, tokenize.run)
    return {"corpus": make_corpus(repeat), "tokenize": tokenizer}


def run_stage(root: Path, stage: str, inputs: Inputs, runner: Runner) -> Artifact:
    """A stage with the recipe's configuration, in a store of its own."""
    outcome = execute(
        STAGES[stage],
        Config(),
        inputs,
        store=Store(root),
        external_digests={"data.source": "benchmark"},
        runner=runner,
        reporter=SilentReporter(),
    )
    return outcome.artifact


def run_build_dataset(root: Path, inputs: Inputs) -> StageTurn:
    """Stage `build-dataset` in this process."""
    base = peak_mib()
    began = time.perf_counter()
    artifact = run_stage(root, "build-dataset", inputs, build_dataset.run)
    seconds = time.perf_counter() - began
    meta = artifact.read_json("meta.json", DatasetMeta)
    tokens = meta["train"]["tokens"] + meta["val"]["tokens"]
    return StageTurn(tokens, tokens / seconds, base, peak_mib())


def encode_bare(documents: list[str], repeat: int, tokenizer_json: bytes) -> BareTurn:
    """The same texts through the native library and nothing else."""
    import tokenizers

    native = tokenizers.Tokenizer.from_str(tokenizer_json.decode())
    native.encode_special_tokens = True
    tokens = 0
    began = time.perf_counter()
    for _ in range(repeat):
        for start in range(0, len(documents), TEXTS_AT_ONCE):
            encodings = native.encode_batch(documents[start : start + TEXTS_AT_ONCE])
            tokens += sum(len(encoding.ids) + 1 for encoding in encodings)  # 1: end of text
    return BareTurn(tokens, tokens / (time.perf_counter() - began))


def peak_mib() -> float:
    """The most memory that this program ever had.

    ru_maxrss would count what the parent had when it started us.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def main(
    *,
    documents: DocumentsArgument,
    repeat: RepeatOption = 1,
    rounds: Rounds = 3,
    json: Json = False,
) -> None:
    """Measure how fast a corpus becomes token shards beside a bare loop over `encode_batch`."""
    lines = documents.read_text("utf-8").splitlines()
    texts = [json_library.loads(line)["text"] for line in lines]
    result = bench_tokenize(texts, repeat, rounds)
    if json:
        ui.say_json(result)
    dataset = ui.number(result["dataset_tokens_per_second"])
    bare = ui.number(result["bare_tokens_per_second"])
    memory = f"{result['dataset_base_mib']} MiB before, {result['dataset_peak_mib']} MiB at most"
    rows = [
        ("build-dataset", f"{dataset} tokens/s, {result['ratio']:.2f} x the bare loop"),
        ("bare loop", f"{bare} tokens/s"),
        ("memory", memory),
    ]
    ui.say_note(ui.table(f"{ui.count(result['tokens'], 'token')}", rows))


if __name__ == "__main__":
    run_command(main)
