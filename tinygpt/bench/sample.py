"""How fast stories are told, as ratios against peers measured in the same run.

Every contender continues the same prompt with the reference model and top-p 0.9, in fp32. Rounds are interleaved and medians
compared, because machines are noisy. The weights are random, but the last matrix is scaled until the distributions are about as
sharp as those of a trained model, and untied, so that the model does not just repeat itself.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tinygpt.config import ModelConfig, SampleConfig, TokenizerConfig

VOCAB, TOP_P, TEMPERATURE, SHARPER = 8_000, 0.9, 0.8, 16
PROMPT = [10, 20, 30, 40, 50, 60, 70, 80]
NEW_TOKENS = {1: 128, 32: 48}  # by batch
CONTENDERS = {"tinygpt": "tinygpt", "hf": "Hugging Face generate with its cache", "plain": "a plain PyTorch loop with a cache"}
SHAPE = ModelConfig(tie_embeddings=False, dropout=0.0)
Tell = Callable[[int], int]


def bench_sample(threads: int | None, rounds: int, note: Callable[[str], None]) -> dict[str, Any]:
    """Tokens per second at batch 1 and 32 beside the peers', and the time from a cold start to the first token.

    Args:
        threads: of PyTorch, for the peers; None for its default. tinygpt's decoder takes one.
        rounds: how often each contender is measured.
        note: told what is being measured.
    """
    note(f"measuring {len(CONTENDERS)} contenders at batch 1 and 32: {rounds} rounds")
    # A process of its own, because PyTorch's threads are set once
    command = [sys.executable, "-m", "tinygpt.bench.sample", str(threads or 0), str(rounds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    note(f"measuring {rounds} cold starts")
    return report | {"first_token_ms": first_token_ms(rounds)}


def measure(threads: int, rounds: int) -> dict[str, Any]:
    """Rates and ratios of one process."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    tellers = {name: teller for name in CONTENDERS if (teller := contender(name))}
    report: dict[str, Any] = {}
    for batch in NEW_TOKENS:
        seconds: dict[str, list[float]] = {name: [] for name in tellers}
        for turn in range(rounds + 1):
            for name, tell in tellers.items():
                started = time.perf_counter()
                tokens = tell(batch)
                if turn:  # the first one only warms up
                    seconds[name].append((time.perf_counter() - started) / tokens)
        rates = {name: 1 / statistics.median(times) for name, times in seconds.items()}
        report[f"tokens_per_second_batch_{batch}"] = rates["tinygpt"]
        for peer in ("hf", "plain"):
            report[f"ratio_vs_{peer}_batch_{batch}"] = rates["tinygpt"] / rates[peer] if peer in rates else None
        report[f"tokens_per_second_all_batch_{batch}"] = rates
    versions = {name: _version(name) for name in ("tinygpt", "numpy", "torch", "transformers")}
    return {**report, "threads": torch.get_num_threads(), "versions": versions}


def contender(name: str) -> Tell | None:
    """A function that tells a batch of stories and returns how many tokens they have, or None where the peer is not installed."""
    if name == "tinygpt":
        return _tinygpt()
    if name == "plain":
        return _plain()
    return _hugging_face() if _version("transformers") else None


def random_weights() -> dict[str, Any]:
    """Parameters of the reference model by name, as torch tensors."""
    from tinygpt.lm.model import GPT, initialise
    from tinygpt.lm.weights import model_tensors

    weights = {name: tensor.detach() for name, tensor in model_tensors(initialise(GPT(SHAPE, VOCAB), 0)).items()}
    weights["unembed.weight"] *= SHARPER
    return weights


def _tinygpt() -> Tell:
    from tinygpt.lm.decoder import Decoder
    from tinygpt.lm.sampling import generate

    weights = {name: tensor.numpy() for name, tensor in random_weights().items()}
    decoder = Decoder(SHAPE, VOCAB, weights, max_sequences=max(NEW_TOKENS))

    def tell(batch: int) -> int:
        how = SampleConfig(temperature=TEMPERATURE, top_p=TOP_P, max_new_tokens=NEW_TOKENS[batch], seed=0)
        never = VOCAB  # no token ends a story: all contenders tell as many
        told = generate(decoder, PROMPT, how, token_bytes=lambda _: b" word", end_of_story=never, samples=range(batch))
        return sum(1 for _ in told)

    return tell


def _plain() -> Tell:
    """The model as one writes it in PyTorch: a cache that grows by concatenation, a full sort for top-p, multinomial."""
    import torch
    import torch.nn.functional as F

    w, C, H = random_weights(), SHAPE.d_model, SHAPE.n_heads

    def read(token_ids: Any, caches: list[Any], begin: int) -> Any:
        B, T = token_ids.shape
        x = w["token_embedding.weight"][token_ids] + w["position_embedding.weight"][begin : begin + T]
        for i in range(SHAPE.n_layers):
            p = f"blocks.{i}."
            h = F.layer_norm(x, (C,), w[p + "norm_1.weight"], w[p + "norm_1.bias"])
            qkv = F.linear(h, w[p + "attention.qkv.weight"], w[p + "attention.qkv.bias"])
            q, k, v = qkv.view(B, T, 3, H, C // H).permute(2, 0, 3, 1, 4)
            if caches[i] is not None:
                k, v = torch.cat((caches[i][0], k), dim=2), torch.cat((caches[i][1], v), dim=2)
            caches[i] = (k, v)
            y = F.scaled_dot_product_attention(q, k, v, is_causal=T > 1).transpose(1, 2).reshape(B, T, C)
            x = x + F.linear(y, w[p + "attention.out.weight"], w[p + "attention.out.bias"])
            h = F.layer_norm(x, (C,), w[p + "norm_2.weight"], w[p + "norm_2.bias"])
            h = F.gelu(F.linear(h, w[p + "mlp.up.weight"], w[p + "mlp.up.bias"]), approximate="tanh")
            x = x + F.linear(h, w[p + "mlp.down.weight"], w[p + "mlp.down.bias"])
        return F.linear(F.layer_norm(x[:, -1], (C,), w["norm.weight"], w["norm.bias"]), w["unembed.weight"])

    @torch.inference_mode()
    def tell(batch: int) -> int:
        token_ids, caches, begin = torch.tensor([PROMPT] * batch), [None] * SHAPE.n_layers, 0
        for _ in range(NEW_TOKENS[batch]):
            logits = read(token_ids, caches, begin) / TEMPERATURE
            begin += token_ids.shape[1]
            ordered, ids = logits.softmax(-1).sort(dim=-1, descending=True)
            ordered[ordered.cumsum(-1) - ordered > TOP_P] = 0
            token_ids = ids.gather(1, torch.multinomial(ordered, 1))
        return batch * NEW_TOKENS[batch]

    return tell


def _hugging_face() -> Tell:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=VOCAB,
        n_positions=SHAPE.context_length,
        n_embd=SHAPE.d_model,
        n_layer=SHAPE.n_layers,
        n_head=SHAPE.n_heads,
        n_inner=SHAPE.d_ff,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    model: Any = GPT2LMHeadModel(config)
    model.eval()
    model.lm_head.weight.data *= SHARPER

    @torch.inference_mode()
    def tell(batch: int) -> int:
        ids = torch.tensor([PROMPT] * batch)
        told = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            temperature=TEMPERATURE,
            top_p=TOP_P,
            top_k=0,
            max_new_tokens=NEW_TOKENS[batch],
            pad_token_id=0,
            use_cache=True,
        )
        return int(told[:, len(PROMPT) :].numel())

    return tell


def first_token_ms(rounds: int) -> float:
    """Median time from the start of `tinygpt sample` to the first token on its standard output; all is read from disk."""
    with tempfile.TemporaryDirectory() as folder:
        model = _publish(Path(folder))
        prompt = "once upon a time"
        command = [sys.executable, "-m", "tinygpt", "sample", prompt, "--store", folder, "--model", model, "--top-p", str(TOP_P)]
        return statistics.median(_first_token(command, folder, len(prompt.encode()), seed) for seed in range(rounds)) * 1000


def _first_token(command: list[str], folder: str, prompt_bytes: int, seed: int) -> float:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TINYGPT_")}
    if "" in sys.path or str(Path.cwd()) in sys.path:  # run from a checkout: the child, in another folder, must find it too
        environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    started = time.perf_counter()
    with subprocess.Popen(
        [*command, "--seed", str(seed)], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    ) as child:
        assert child.stdout is not None
        shown = b""
        while len(shown) <= prompt_bytes:  # the prompt is shown first
            piece = child.stdout.read(64)
            if not piece:
                raise RuntimeError("`tinygpt sample` told nothing")
            shown += piece
        seconds = time.perf_counter() - started
        child.communicate()
    return seconds


def _publish(folder: Path) -> str:
    """A store with a random model and a tokenizer of 8,000 entries; the id of the model."""
    import random

    from tinygpt.hashing import Key, hash_json
    from tinygpt.lm.tokenizer import Tokenizer
    from tinygpt.lm.weights import dump
    from tinygpt.store import Artifact, Store

    chance, store = random.Random(0), Store(folder)
    words = (" ".join("".join(chance.choices("etaoinshrdlu", k=7)) for _ in range(1_000)) for _ in range(20))
    tokenizer = Tokenizer.train(words, TokenizerConfig(vocab_size=VOCAB, min_frequency=1))
    assert tokenizer.vocab_size == VOCAB
    config = {"model": SHAPE.model_dump(), "vocab_size": VOCAB}
    inputs: dict[str, Artifact] = {}
    model = {"model.safetensors": dump(random_weights()), "config.json": json.dumps(config).encode()}
    for stage, files in (("tokenize", {}), ("train", model)):
        key = Key(hash_json("tinygpt.bench", stage))
        out = store.begin(stage, key)
        for name, data in {**files, "tokenizer.json": tokenizer.to_bytes()}.items():
            out.bytes(name, data)
        inputs[stage] = store.publish(out, stage=stage, version=1, key=key, tables={}, inputs=dict(inputs))
    return inputs["train"].id


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]), int(sys.argv[2]))))  # noqa: T201
