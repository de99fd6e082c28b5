"""The contenders of benchmarks/sample.py, measured in one process.

    python -m benchmarks.sample_contenders ROUNDS

All continue the same prompt with the reference model in fp32, at temperature 0.8 and top-p 0.9. The
weights are random, but the last matrix is scaled until the distributions are about as sharp as
those of a trained model, and untied, so that the model does not just repeat itself.
"""

import json
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch

from benchmarks.peers import hugging_face, median_seconds, ratios, versions
from tinygpt.config import ModelConfig, SampleConfig
from tinygpt.lm.fast.model_decoder import ModelDecoder
from tinygpt.lm.fast.numpy_decoder import NumpyDecoder
from tinygpt.lm.init import init_weights
from tinygpt.lm.model import GPT
from tinygpt.lm.sampling import generate
from tinygpt.lm.weights import model_tensors

SHAPE = ModelConfig(tie_embeddings=False, dropout=0.0)
VOCAB = 8_000
SHARPER = 16
TEMPERATURE = 0.8
TOP_P = 0.9
PROMPT = [10, 20, 30, 40, 50, 60, 70, 80]
NEW_TOKENS = {1: 128, 32: 48}
"""Tokens that each sample is continued by, by batch size."""

CONTENDERS = {
    "tinygpt": "tinygpt",
    "hf": "Hugging Face generate with its cache",
    "plain": "a plain PyTorch loop with a cache",
}

Generate = Callable[[int], None]
"""Generates a batch of so many samples, each of NEW_TOKENS tokens."""


def measure(rounds: int) -> dict[str, Any]:
    """Rates and ratios in this process."""
    contenders = {"tinygpt": _tinygpt(), "plain": _plain()}
    if find_spec("transformers"):
        contenders["hf"] = _hugging_face()
    result: dict[str, Any] = {}
    for batch, new_tokens in NEW_TOKENS.items():
        work = {name: partial(generates, batch) for name, generates in contenders.items()}
        seconds = median_seconds(work, rounds)
        rates = {name: batch * new_tokens / taken for name, taken in seconds.items()}
        result[f"tokens_per_second_batch_{batch}"] = rates["tinygpt"]
        result[f"tokens_per_second_all_batch_{batch}"] = rates
        result.update(ratios(rates, ("hf", "plain"), f"_batch_{batch}"))
    result["threads"] = torch.get_num_threads()
    result["versions"] = versions("tinygpt", "numpy", "torch", "transformers")
    return result


def random_model() -> GPT:
    """The reference model, its last matrix as sharp as a trained one's."""
    model = init_weights(GPT(SHAPE, VOCAB), 0).requires_grad_(False)
    model.lm_head.weight *= SHARPER
    return model


def _tinygpt() -> Generate:
    weights = {name: tensor.numpy() for name, tensor in model_tensors(random_model()).items()}
    decoder = NumpyDecoder(SHAPE, VOCAB, weights, max_sequences=max(NEW_TOKENS))

    def generates(batch: int) -> None:
        config = SampleConfig(
            temperature=TEMPERATURE, top_p=TOP_P, max_new_tokens=NEW_TOKENS[batch], seed=0
        )
        new_tokens = generate(
            decoder,
            PROMPT,
            config,
            token_bytes=lambda _: b" word",
            end_of_text=VOCAB,  # no token has this id, so that all contenders generate as many
            samples=range(batch),
        )
        for _ in new_tokens:
            pass

    return generates


def _plain() -> Generate:
    """Our model in PyTorch with a KV cache, and a full sort for top-p."""
    decoder = ModelDecoder(random_model(), max_sequences=max(NEW_TOKENS))

    @torch.inference_mode()
    def generates(batch: int) -> None:
        logits = torch.from_numpy(decoder.prefill([PROMPT] * batch))  # (B, V)
        for _ in range(NEW_TOKENS[batch]):
            probabilities = (logits / TEMPERATURE).softmax(dim=-1)
            ordered, token_ids = probabilities.sort(dim=-1, descending=True)
            likelier = ordered.cumsum(dim=-1) - ordered  # probability of all that come before
            ordered[likelier > TOP_P] = 0
            drawn = token_ids.gather(1, torch.multinomial(ordered, 1))  # (B, 1)
            logits = torch.from_numpy(decoder.decode(drawn.numpy()))

    return generates


def _hugging_face() -> Generate:
    model = hugging_face(SHAPE, VOCAB).eval()
    model.lm_head.weight.data *= SHARPER

    @torch.inference_mode()
    def generates(batch: int) -> None:
        token_ids = torch.tensor([PROMPT] * batch)
        model.generate(
            token_ids,
            attention_mask=torch.ones_like(token_ids),
            max_new_tokens=NEW_TOKENS[batch],
            do_sample=True,
            temperature=TEMPERATURE,
            top_p=TOP_P,
            top_k=0,
            use_cache=True,
            pad_token_id=0,
        )

    return generates


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
