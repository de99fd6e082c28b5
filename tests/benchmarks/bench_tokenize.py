"""How fast and in how much memory a corpus becomes token shards, beside a bare loop over `encode_batch` on the same text.

    python -m tests.benchmarks.bench_tokenize STORIES.jsonl [--repeat N] [--rounds N]

The corpus is the stories (one {"text": ...} a line) N times over. Prints one JSON object:

    dataset_tokens_per_second  stage `build-dataset`: decompress, parse, hash, split, encode, write, fsync, publish
    bare_tokens_per_second     texts that are in memory already, 1,000 at a time through the native `encode_batch`, ids read out
    ratio                      median of the rounds, each of which measures both
    dataset_peak_mib           the stage in a process of its own; `base_mib` is that process before the stage begins
"""

import argparse
import gzip
import json
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

from tinygpt.config import Config
from tinygpt.pipeline import STAGES, Runner, execute
from tinygpt.report import Report, SilentReport
from tinygpt.stages import build_dataset, tokenize
from tinygpt.store import Artifact, Out, Store

TEXTS = 1_000


def prepare(stories: list[str], repeat: int, root: Path) -> dict[str, Artifact]:
    """The repeated corpus, and a tokenizer of the recipe's size learned from the stories once."""
    packed = gzip.compress("".join(json.dumps(story) + "\n" for story in stories).encode(), 3, mtime=0)

    def corpus(times: int) -> Artifact:
        def write(config: Config, inputs: object, out: Out, report: Report) -> None:
            out.bytes("stories.jsonl.gz", packed * times)
            out.json("meta.json", {"stories": len(stories) * times, "source": {"kind": "files"}})

        return run_stage(root / str(times), "corpus", {}, write)

    return {"corpus": corpus(repeat), "tokenize": run_stage(root / "1", "tokenize", {"corpus": corpus(1)}, tokenize.run)}


def run_stage(root: Path, stage: str, inputs: dict[str, Artifact], runner: Runner) -> Artifact:
    """A stage with the recipe's configuration."""
    store, outside = Store(root), {"data.source": "stories"}
    return execute(STAGES[stage], Config(), inputs, store=store, outside=outside, runner=runner, report=SilentReport()).artifact


def build(root: Path, inputs: dict[str, Artifact]) -> dict[str, float]:
    """Stage `build-dataset` in this process: its speed, and the most memory the process ever had."""
    base = peak_mib()
    began = time.perf_counter()
    artifact = run_stage(root, "build-dataset", inputs, build_dataset.run)
    seconds = time.perf_counter() - began
    meta = artifact.read_json("meta.json")
    tokens = meta["train"]["tokens"] + meta["val"]["tokens"]
    return {"tokens": tokens, "tokens_per_second": tokens / seconds, "base_mib": base, "peak_mib": peak_mib()}


def bare(stories: list[str], repeat: int, tokenizer_json: bytes) -> dict[str, float]:
    """The same texts through the native library and nothing else."""
    import tokenizers

    native = tokenizers.Tokenizer.from_str(tokenizer_json.decode())
    native.encode_special_tokens = True
    tokens, began = 0, time.perf_counter()
    for _ in range(repeat):
        for start in range(0, len(stories), TEXTS):
            texts = stories[start : start + TEXTS]
            tokens += sum(len(encoding.ids) + 1 for encoding in native.encode_batch(texts))
    return {"tokens": tokens, "tokens_per_second": tokens / (time.perf_counter() - began)}


def peak_mib() -> float:
    """The most memory this program ever had; ru_maxrss would count what the parent had when it started us. Linux only."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("stories", type=Path)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    stories = [json.loads(line)["text"] for line in given.stories.read_text("utf-8").splitlines()]
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        inputs = prepare(stories, given.repeat, Path(folder) / "inputs")
        tokenizer_json = inputs["tokenize"].read("tokenizer.json")
        for number in range(given.rounds):
            with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as process:
                dataset = process.apply(build, (Path(folder) / str(number), inputs))
            rounds.append((dataset, bare(stories, given.repeat, tokenizer_json)))
    assert all(dataset["tokens"] == plain["tokens"] for dataset, plain in rounds)
    speeds = {
        name: round(statistics.median(pair[side]["tokens_per_second"] for pair in rounds))
        for side, name in enumerate(("dataset_tokens_per_second", "bare_tokens_per_second"))
    }
    ratio = statistics.median(dataset["tokens_per_second"] / plain["tokens_per_second"] for dataset, plain in rounds)
    memory = {f"dataset_{name}": round(max(dataset[name] for dataset, _ in rounds)) for name in ("peak_mib", "base_mib")}
    print(json.dumps({"tokens": rounds[0][0]["tokens"], **speeds, "ratio": round(ratio, 3), **memory}))


if __name__ == "__main__":
    main()
