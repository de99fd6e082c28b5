"""Loads model.gguf with llama-cpp-python, and prints what it finds as JSON.

It imports nothing of tinygpt: it runs with the Python for which `make proof-interop` has built
llama.cpp.

    python load_with_llama_cpp.py model.gguf < question.json > answer.json

The question is an object: `context_length`; `texts`, a list of texts to encode; `prompts`, a list
of texts to continue; `max_tokens`; `windows`, a list of texts as lists of ids.
"""

import json
import sys
from typing import Any

import llama_cpp
import numpy as np


def answer(file: str, question: dict[str, Any]) -> dict[str, Any]:
    """What llama.cpp says about a file; see the module."""
    model = llama_cpp.Llama(
        file, n_ctx=question["context_length"], n_threads=1, logits_all=True, verbose=False
    )
    greedy = []
    for prompt in question["prompts"]:
        completion = model.create_completion(
            prompt, max_tokens=question["max_tokens"], temperature=0, repeat_penalty=1
        )
        greedy.append(prompt + completion["choices"][0]["text"])
    return {
        "version": llama_cpp.__version__,
        "ids": [model.tokenize(text.encode(), add_bos=False) for text in question["texts"]],
        "prompt_ids": [model.tokenize(prompt.encode()) for prompt in question["prompts"]],
        "greedy": greedy,
        "losses": [loss(model, window) for window in question["windows"]],
    }


def loss(model: Any, window: list[int]) -> float:
    """The mean cross-entropy of the tokens of a text after the first [nats per token]."""
    model.reset()
    model.eval(window[:-1])
    logits = np.asarray(model.scores[: len(window) - 1], np.float64)  # (T, V)
    largest = logits.max(axis=1)
    log_sums = largest + np.log(np.exp(logits - largest[:, None]).sum(axis=1))
    targets = logits[np.arange(len(window) - 1), window[1:]]
    return float((log_sums - targets).mean())


if __name__ == "__main__":
    json.dump(answer(sys.argv[1], json.load(sys.stdin)), sys.stdout)
