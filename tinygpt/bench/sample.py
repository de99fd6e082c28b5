"""How fast stories are told, as ratios against peers measured in the same run.

Every contender continues the same prompt with the reference model and top-p 0.9, in fp32. Rounds are interleaved and medians
compared, because machines are noisy. The weights are random, but the last matrix is scaled until the distributions are about as
sharp as those of a trained model, and untied, so that the model does not just repeat itself.
"""

import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from tinygpt.bench.peers import hugging_face, in_own_process, median_seconds, ratios, threads_of, versions
from tinygpt.config import ModelConfig, SampleConfig, TokenizerConfig
from tinygpt.hashing import Key, hash_json
from tinygpt.lm.decoder import NumpyDecoder
from tinygpt.lm.model import GPT, initialise
from tinygpt.lm.sampling import generate
from tinygpt.lm.tokenizer import Tokenizer
from tinygpt.lm.torch_decoder import TorchDecoder
from tinygpt.lm.weights import dump, model_tensors
from tinygpt.store import Artifact, Store

VOCAB, TOP_P, TEMPERATURE, SHARPER = 8_000, 0.9, 0.8, 16
PROMPT = [10, 20, 30, 40, 50, 60, 70, 80]
NEW_TOKENS = {1: 128, 32: 48}  # by batch
CONTENDERS = {"tinygpt": "tinygpt", "hf": "Hugging Face generate with its cache", "plain": "a plain PyTorch loop with a cache"}
SHAPE = ModelConfig(tie_embeddings=False, dropout=0.0)
Tell = Callable[[int], None]
"""Tells a batch of stories, each of NEW_TOKENS tokens."""


def bench_sample(threads: int | None, rounds: int, note: Callable[[str], None]) -> dict[str, Any]:
    """Tokens per second at batch 1 and 32 beside the peers', and the time from a cold start to the first token.

    Args:
        threads: of PyTorch, for the peers; None for its default. tinygpt's decoder takes one.
        rounds: how often each contender is measured.
        note: told what is being measured.
    """
    note(f"measuring {len(CONTENDERS)} contenders at batch 1 and 32: {rounds} rounds")
    report: dict[str, Any] = in_own_process("tinygpt.bench.sample", rounds, **threads_of(threads))
    note(f"measuring {rounds} cold starts")
    return report | {"first_token_ms": first_token_ms(rounds)}


def measure(rounds: int) -> dict[str, Any]:
    """Rates and ratios of one process."""
    tellers = {"tinygpt": _tinygpt(), "plain": _plain()}
    if find_spec("transformers"):
        tellers["hf"] = _hugging_face()
    report: dict[str, Any] = {}
    for batch, new_tokens in NEW_TOKENS.items():
        seconds = median_seconds({name: partial(tell, batch) for name, tell in tellers.items()}, rounds)
        rates = {name: batch * new_tokens / taken for name, taken in seconds.items()}
        report[f"tokens_per_second_batch_{batch}"] = rates["tinygpt"]
        report[f"tokens_per_second_all_batch_{batch}"] = rates
        report |= ratios(rates, ("hf", "plain"), f"_batch_{batch}")
    used = versions("tinygpt", "numpy", "torch", "transformers")
    return {**report, "threads": torch.get_num_threads(), "versions": used}


def random_model() -> Any:
    """The reference model, its last matrix as sharp as a trained one's."""
    model = initialise(GPT(SHAPE, VOCAB), 0).requires_grad_(False)
    model.unembed.weight *= SHARPER
    return model


def _tinygpt() -> Tell:
    weights = {name: tensor.numpy() for name, tensor in model_tensors(random_model()).items()}
    decoder = NumpyDecoder(SHAPE, VOCAB, weights, max_sequences=max(NEW_TOKENS))

    def tell(batch: int) -> None:
        how = SampleConfig(temperature=TEMPERATURE, top_p=TOP_P, max_new_tokens=NEW_TOKENS[batch], seed=0)
        never = VOCAB  # no token ends a story: all contenders tell as many
        for _ in generate(decoder, PROMPT, how, token_bytes=lambda _: b" word", end_of_story=never, samples=range(batch)):
            pass

    return tell


def _plain() -> Tell:
    """The model in PyTorch, and the choice as one writes it there: a full sort for top-p, multinomial."""
    decoder = TorchDecoder(random_model(), max_sequences=max(NEW_TOKENS))

    @torch.inference_mode()
    def tell(batch: int) -> None:
        logits = torch.from_numpy(decoder.start([PROMPT] * batch))
        for _ in range(NEW_TOKENS[batch]):
            ordered, ids = (logits / TEMPERATURE).softmax(-1).sort(dim=-1, descending=True)
            ordered[ordered.cumsum(-1) - ordered > TOP_P] = 0
            logits = torch.from_numpy(decoder.read(ids.gather(1, torch.multinomial(ordered, 1)).numpy()))

    return tell


def _hugging_face() -> Tell:
    model = hugging_face(SHAPE, VOCAB).eval()
    model.lm_head.weight.data *= SHARPER
    how = {"do_sample": True, "temperature": TEMPERATURE, "top_p": TOP_P, "top_k": 0, "use_cache": True, "pad_token_id": 0}

    @torch.inference_mode()
    def tell(batch: int) -> None:
        ids = torch.tensor([PROMPT] * batch)
        model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW_TOKENS[batch], **how)

    return tell


def first_token_ms(rounds: int) -> float:
    """Median time from the start of `tinygpt sample` to the first token on its standard output; all is read from disk."""
    with tempfile.TemporaryDirectory() as folder:
        # A preset, so that no tinygpt.toml around here has a say
        where = ["--store", folder, "--model", _publish(Path(folder)), "--preset", "reference", "--quiet"]
        command = [sys.executable, "-m", "tinygpt", "sample", "once upon a time", "--top-p", str(TOP_P), *where]
        return statistics.median(_first_token([*command, "--seed", str(seed)]) for seed in range(rounds)) * 1000


def _first_token(command: list[str]) -> float:
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        shown = child.stdout.read(len("once upon a time") + 1)  # the prompt is shown first
        seconds = time.perf_counter() - started
        child.communicate()
    if not shown:
        raise RuntimeError("`tinygpt sample` told nothing")
    return seconds


def _publish(folder: Path) -> str:
    """A store with a random model and a tokenizer of 8,000 entries; the id of the model."""
    chance, store, key = random.Random(0), Store(folder), Key(hash_json("tinygpt.bench", "sample"))
    words = (" ".join("".join(chance.choices("etaoinshrdlu", k=7)) for _ in range(1_000)) for _ in range(20))
    tokenizer = Tokenizer.train(words, TokenizerConfig(vocab_size=VOCAB, min_frequency=1))
    assert tokenizer.vocab_size == VOCAB
    inputs: dict[str, Artifact] = {}
    for stage in ("tokenize", "train"):
        out = store.begin(stage, key, inputs=inputs)
        out.bytes("tokenizer.json", tokenizer.to_bytes())
        if stage == "train":
            out.bytes("model.safetensors", dump(model_tensors(random_model())))
            out.json("config.json", {"model": SHAPE.model_dump(), "vocab_size": VOCAB})
        inputs[stage] = store.publish(out)
    return inputs["train"].id


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))  # noqa: T201
