"""llama.cpp, built from source, loads what `export --to gguf` writes of the demo's model."""

import math
import random
import subprocess
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.interop.conftest import PROMPTS, ask, program, tinygpt_says
from tests.proofs.figures import RecordFigure

pytestmark = pytest.mark.interop
DTYPES = ("f32", "f16", "q8_0")
each_dtype = pytest.mark.parametrize("dtype", DTYPES)
MOST = {"f32": 0.005, "f16": 0.005, "q8_0": 0.02}
"""By how much the perplexity may differ, relatively."""


@pytest.fixture(scope="module")
def exported(demo, tmp_path_factory) -> dict[str, Path]:
    """The file of each number format, written by the program itself."""
    program("llama/.built")
    root = tmp_path_factory.mktemp("gguf")
    for dtype in DTYPES:
        tinygpt_says("export", root / dtype, "--to", "gguf", "--dtype", dtype, "--model", demo.id)
    return {dtype: root / dtype / "model.gguf" for dtype in DTYPES}


def ask_llama_cpp(file: Path, model: Any, **question: Any) -> dict[str, Any]:
    """See load_with_llama_cpp.py."""
    nothing: dict[str, Any] = {"texts": [], "prompts": [], "windows": [], "max_tokens": 240}
    context_length = model.config.context_length
    return ask(
        program("llama/bin/python"),
        "load_with_llama_cpp.py",
        file,
        {**nothing, "context_length": context_length, **question},
    )


@pytest.fixture(scope="module")
def greedy(demo) -> dict[str, str]:
    """The likeliest continuations, by the program itself."""
    texts = {}
    for prompt in PROMPTS:
        said = tinygpt_says("sample", prompt, "--temperature", "0", "--model", demo.id)
        texts[prompt] = said.removesuffix("\n")
    return texts


@each_dtype
def test_greedy_text_is_that_of_tinygpt_sample(exported, demo_model, greedy, dtype, figure):
    answer = ask_llama_cpp(exported[dtype], demo_model, prompts=PROMPTS)
    end_of_text = demo_model.eos_token_id
    assert all(ids[0] == end_of_text != ids[1] for ids in answer["prompt_ids"])
    texts = dict(zip(PROMPTS, answer["greedy"], strict=True))
    record_texts(figure, f"llama-cpp-python {answer['version']}", dtype, texts, greedy)


@each_dtype
def test_an_unedited_llama_completion_prints_the_greedy_text(exported, greedy, dtype, figure):
    texts = {prompt: complete(exported[dtype], prompt) for prompt in PROMPTS}
    record_texts(figure, "`llama-completion -p`", dtype, texts, greedy)


def test_without_flags_llama_completion_samples_as_tinygpt_does(exported):
    said = subprocess.run(
        [
            program("llama/build/bin/llama-completion"),
            "-m",
            exported["f16"],
            "-p",
            "One",
            "-n",
            "2",
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    (settings,) = [line for line in said.stderr.splitlines() if "temp = " in line]
    assert "top_k = 0, top_p = 1.000, min_p = 0.000" in settings
    assert "temp = 0.800" in settings
    assert "repeat_penalty = 1.000" in said.stderr


def complete(file: Path, prompt: str) -> str:
    """What llama-completion prints, without the line that says that the text has ended.

    It prints from a thread of its own, which does not always finish when the machine is busy: about
    1 of 50 times the end is missing. Then it is asked again.
    """
    line = [program("llama/build/bin/llama-completion"), "-m", file, "-p", prompt, "--temp", "0"]
    for _ in range(10):
        said = subprocess.run(
            line, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
        )
        text, end, _ = said.stdout.rpartition(" [end of text]")
        if end:
            return text
    raise AssertionError(said.stdout)


def record_texts(
    figure: RecordFigure,
    what: str,
    dtype: str,
    texts: dict[str, str],
    expected: dict[str, str],
) -> None:
    """Record how many texts are equal: all, but for q8_0, which moves logits by 0.1 and more."""
    equal = sum(texts[prompt] == expected[prompt] for prompt in PROMPTS)
    if dtype == "q8_0":
        figure("export", f"of {len(PROMPTS)} greedy texts of {what} equal, q8_0", equal, None)
    else:
        figure("export", f"greedy texts of {what}, {dtype}", len(PROMPTS), len(PROMPTS) - equal)


def test_without_the_first_token_the_text_is_another_one(exported, demo_model, greedy, figure):
    """The control: the end-of-text token that add_bos_token puts first matters."""
    reader = gguf.GGUFReader(exported["f32"])
    start = reader.fields["tokenizer.ggml.add_bos_token"].parts[-1]
    data = bytearray(exported["f32"].read_bytes())
    place = int(start.__array_interface__["data"][0] - reader.data.__array_interface__["data"][0])
    assert data[place] == 1
    data[place] = 0
    file = exported["f32"].with_name("no-bos.gguf")
    file.write_bytes(data)
    answer = ask_llama_cpp(file, demo_model, prompts=PROMPTS)
    bad = sum(
        text != greedy[prompt] for prompt, text in zip(PROMPTS, answer["greedy"], strict=True)
    )
    figure("export", "texts without the first token", len(PROMPTS), bad, control=True)


@each_dtype
def test_perplexity_is_that_of_the_model(exported, demo_model, validation_windows, dtype, figure):
    windows = torch.tensor(validation_windows)  # (100, T + 1)
    ours = 0.0
    with torch.inference_mode():
        for window in windows:
            logits = demo_model.module()(window[None, :-1])[0]
            ours += F.cross_entropy(logits, window[1:]).item() / len(windows)
    answer = ask_llama_cpp(exported[dtype], demo_model, windows=validation_windows)
    theirs = float(np.mean(answer["losses"]))
    difference = math.expm1(theirs - ours)
    assert abs(difference) <= MOST[dtype]
    predicted = windows[:, 1:].numel()
    perplexities = f"{math.exp(theirs):.5f} in llama.cpp, {math.exp(ours):.5f} here"
    figure("export", f"predictions, {dtype}: perplexity {perplexities}", predicted, None)


def test_llama_cpp_encodes_as_the_models_tokenizer_does(exported, demo_model, figure):
    chance = random.Random(5)
    texts = [random_text(chance) for _ in range(1_000)]
    answer = ask_llama_cpp(exported["f32"], demo_model, texts=texts)
    expected = [demo_model.encode(text) for text in texts]
    wrong = [
        text for text, ids, own in zip(texts, answer["ids"], expected, strict=True) if ids != own
    ]
    print([ascii(text) for text in wrong[:20]])
    figure("export", "token ids of random texts in llama.cpp", sum(map(len, expected)), len(wrong))


def random_text(chance: random.Random) -> str:
    """Any characters but surrogates, many of them spaces, letters and digits."""
    characters = []
    for _ in range(chance.randrange(1, 40)):
        kind = chance.randrange(4)
        if kind == 0:
            characters.append(chance.choice("  \n\t'sdtlmrev.,!?"))
        elif kind == 1:
            characters.append(chr(chance.randrange(0x21, 0x7F)))
        elif kind == 2:
            characters.append(chr(chance.randrange(0xA0, 0x3000)))
        else:
            characters.append(
                chr(chance.choice([*range(1, 0xD800, 97), *range(0xE000, 0x1FFFF, 97)]))
            )
    return "".join(characters)
