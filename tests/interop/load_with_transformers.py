"""Loads folders of `tinygpt export --to hf` with transformers, and prints what it finds as JSON.

It imports nothing of tinygpt, so that it runs with any Python that has torch and transformers.

    python load_with_transformers.py < questions.json > answers.json

Each question is an object: `folder`; `token_ids`, a list of texts as lists of ids; `texts`, a list
of texts; `prompt`, a text to continue by `max_new_tokens`. test_transformers.py asks and compares.
"""

import json
import os
import sys
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """What transformers says about a folder; see the module."""
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

    folder, prompt = question["folder"], question["prompt"]
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True, dtype=torch.float32
    )
    with torch.inference_mode():
        logits = [model(torch.tensor([ids])).logits[0].tolist() for ids in question["token_ids"]]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in question["texts"]]
    generate = pipeline("text-generation", folder)
    greedy = generate(prompt, do_sample=False, max_new_tokens=question["max_new_tokens"])
    return {
        "version": transformers.__version__,
        "problems": sorted(
            f"{kind}: {key}"
            for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")
            for key in info[kind]
        ),
        "logits": logits,
        "ids": ids,
        "prompt_ids": tokenizer(prompt)["input_ids"],
        "decoded": [tokenizer.decode(of_text, skip_special_tokens=True) for of_text in ids],
        "special": [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id],
        "greedy": greedy[0]["generated_text"],
        # As people call it first, with the settings of generation_config.json
        "sampled": generate(prompt, return_tensors=True)[0]["generated_token_ids"],
        "padded": [
            texts[0]["generated_text"]
            for texts in generate([prompt, f"{prompt}, a cat"], do_sample=False, batch_size=2)
        ],
    }


if __name__ == "__main__":
    json.dump([answer(question) for question in json.load(sys.stdin)], sys.stdout)
