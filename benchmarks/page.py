"""How fast the reference model runs in the page that `tinygpt page` writes.

    python -m benchmarks.page [--json] [--rounds N]

In headless Chromium, and in Node where it is installed. The result:

    file_mb                        size of the page: f16, without snapshots
    ready_ms                       from opening the file until the first text is shown
    tokens_per_second              generating with top-p 0.9, shown while it is generated
    keystroke_ms                   a letter more at 64 tokens, until all of the open view is shown
    first_letter_ms                another first letter at 64 tokens: nothing can be kept
    memory_mb                      of the process that holds the page, after that
    node_tokens_per_second         the engine alone; missing without Node
"""

import json as json_library
import shutil
import statistics
import subprocess
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.command import Json, Rounds, run_command
from benchmarks.sample import publish_model
from benchmarks.sample_contenders import SHARPER
from tinygpt import ui
from tinygpt.config import ModelConfig
from tinygpt.errors import UsageError
from tinygpt.html_page import ENGINE, PageModel, packing, render
from tinygpt.lm.init import init_weights
from tinygpt.lm.model import GPT
from tinygpt.lm.tokenizer import Tokenizer
from tinygpt.lm.weights import read_config
from tinygpt.store import Store

ARGUMENTS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
TOKENS = 64
NEW_TOKENS = 190
END_OF_TEXT = 0

READY = "return performance.getEntriesByName('ready')[0]?.startTime ?? null"
GENERATE = """
const [count, done] = arguments;
$("count").value = count;
generate().then(() => done($("generated").textContent));
"""
TYPE = """
const [text, done] = arguments;
const began = performance.now();
typed(text).then(() => done(performance.now() - began));
"""
NODE = """
const { config, packed, shapes, count } = JSON.parse(require("fs").readFileSync(0, "utf8"));
const model = new GPT(config, unpackWeights(fromBase64(packed), shapes, "f16"));
const settings = { temperature: 0.8, top_k: null, top_p: 0.9, min_p: null, seed: 0 };
for (const turn of ["warm-up", "timed"]) {
  const cache = new KVCache(config);
  const began = performance.now();
  let id = 0;
  for (let i = 0; i < count; i++) id = choose(model.forward([id], cache), settings, i);
  if (turn === "timed") console.log((1000 * count) / (performance.now() - began));
}
"""


def reference_model() -> PageModel:
    """The reference model with random weights."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        train = store.resolve(publish_model(Path(folder)), "train")
        config, vocab_size = ModelConfig(), read_config(train.read("config.json"))[1]
        model = init_weights(GPT(config, vocab_size), 0).requires_grad_(False)
        model.token_embedding.weight *= SHARPER
        model.token_embedding.weight[END_OF_TEXT] = 0  # never the likeliest: no text ends early
        return PageModel(
            id=train.id,
            config=config,
            weights={name: x.numpy() for name, x in model.named_parameters()},
            step=1,
            max_steps=1,
            which="last",
            dtype="f16",
            tokenizer=train.read("tokenizer.json"),
            probe=([0], np.zeros((1, vocab_size), np.float32)),
            bound=1.0,
            snapshots={},
            ablation=None,
        )


def bench_page(rounds: int) -> dict[str, float]:
    """What the page of the reference model reaches; medians of the rounds."""
    model = reference_model()
    tokenizer = Tokenizer.from_bytes(model.tokenizer)
    words = [tokenizer.decode([token_id]) for token_id in range(300, 300 + TOKENS)]
    text = tokenizer.decode(tokenizer.encode(" ".join(words))[: TOKENS - 1])
    turns = []
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        page.write_bytes(render(model))
        for _ in range(rounds):
            turns.append(_turn(page, text))
        size = page.stat().st_size / 1e6
    medians = {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}
    node = shutil.which("node")
    rate = {} if node is None else {"node_tokens_per_second": in_node(node, model)}
    return {"file_mb": size, **medians, **rate}


def _turn(page: Path, text: str) -> dict[str, float]:
    """The figures of one start of Chromium."""
    browser = start_chromium()
    try:
        browser.set_script_timeout(60)
        browser.get(page.as_uri())
        ready = None
        while ready is None:
            ready = browser.execute_script(READY)
        generated = browser.execute_async_script(GENERATE, NEW_TOKENS)
        browser.execute_async_script(TYPE, text)
        return {
            "ready_ms": ready,
            "tokens_per_second": float(generated.split()[-2].replace(",", "")),
            "keystroke_ms": browser.execute_async_script(TYPE, text + "e"),
            "first_letter_ms": browser.execute_async_script(TYPE, "x" + text),
            "memory_mb": renderer_memory(browser.service.process.pid) / 1e6,
        }
    finally:
        browser.quit()


def start_chromium() -> Any:
    """A headless Chromium, driven by selenium.

    Raises:
        UsageError: something of it is not installed.
    """
    try:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service
    except ImportError as error:
        hint = 'install it with `pip install "tinygpt[test]"`'
        raise UsageError("selenium is not installed", hint=hint) from error
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        hint = "install them, e.g., `apt install chromium chromium-driver`"
        raise UsageError("chromium or chromedriver is not installed", hint=hint)
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ARGUMENTS:
        options.add_argument(argument)
    return webdriver.Chrome(options=options, service=Service(driver))


def renderer_memory(ancestor: int) -> int:
    """Bytes of the largest renderer below a process, its share of what processes share."""
    sizes = [0]
    pending = [ancestor]
    while pending:
        process = Path("/proc") / str(pending.pop())
        for task in process.glob("task/*/children"):
            pending += map(int, task.read_text().split())
        if "--type=renderer" in (process / "cmdline").read_text():
            for line in (process / "smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    sizes.append(1024 * int(line.split()[1]))
    return max(sizes)


def in_node(node: str, model: PageModel) -> float:
    """Tokens per second of the engine alone, in Node."""
    parts = [files("tinygpt.html_page").joinpath(name).read_text("utf-8") for name in ENGINE]
    work = {
        "config": model.config.model_dump(mode="json"),
        "packed": packing.pack(model.weights, "f16"),
        "shapes": {name: model.weights[name].shape for name in sorted(model.weights)},
        "count": NEW_TOKENS,
    }
    command = [node, "-e", "".join([*parts, NODE])]
    done = subprocess.run(
        command, input=json_library.dumps(work), capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def main(*, rounds: Rounds = 3, json: Json = False) -> None:
    """Measure how fast the reference model runs in its page."""
    result = bench_page(rounds)
    if json:
        ui.say_json(result)
    ui.say_note(ui.table("page", [(name, ui.number(value)) for name, value in result.items()]))


if __name__ == "__main__":
    run_command(main)
