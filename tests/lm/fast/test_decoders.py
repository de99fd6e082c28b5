"""Both decoders against the model itself: the same logits, however the text was read before."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.lm.models import (
    SMALL,
    VARIANTS,
    V,
    arrays_of,
    assert_logits_close,
    each_variant,
    random_model,
)
from tinygpt.config import ModelConfig, SampleConfig
from tinygpt.errors import CorruptArtifactError
from tinygpt.lm.fast.decoder import LARGE, decoder_for
from tinygpt.lm.fast.model_decoder import ModelDecoder
from tinygpt.lm.fast.numpy_decoder import NumpyDecoder
from tinygpt.lm.fast.precision import choose_device
from tinygpt.lm.model import GPT
from tinygpt.lm.probe import random_text
from tinygpt.lm.sampling import Decoder, generate
from tinygpt.lm.weights import Array

KINDS = ("numpy", "torch")
each_kind = pytest.mark.parametrize("kind", KINDS)
variants = st.sampled_from(VARIANTS)
kinds = st.sampled_from(KINDS)
CONTEXT = VARIANTS[0].context_length
NO_END: Any = {"token_bytes": lambda token_id: b"", "end_of_text": -1}
"""Arguments of `generate` where no token ends a text."""


@pytest.fixture(autouse=True, scope="module")
def _one_torch_thread() -> Iterator[None]:
    """Products this small are slower in two threads, and far slower where the cores are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def decoder_of(model: GPT, kind: str = "numpy", max_sequences: int = 4) -> Decoder:
    if kind == "torch":
        return ModelDecoder(model, max_sequences=max_sequences)
    arrays = arrays_of(model)
    return NumpyDecoder(model.config, model.vocab_size, arrays, max_sequences=max_sequences)


def random_ids(sequences: int, length: int, seed: int = 1) -> Array:
    return np.random.default_rng(seed).integers(0, V, (sequences, length))


@torch.no_grad()
def model_logits(model: GPT, token_ids: Array) -> Array:
    """What the model itself computes without a cache, (B, T, V)."""
    logits: Array = model(torch.from_numpy(token_ids)).numpy()
    return logits


# ---- logits


@each_kind
@each_variant
def test_logits_equal_the_model_at_every_position(config: ModelConfig, kind: str) -> None:
    model = random_model(config)
    token_ids = random_ids(3, CONTEXT)
    expected = model_logits(model, token_ids)
    decoder = decoder_of(model, kind)
    assert_logits_close(decoder.prefill(token_ids[:, :1].tolist()), expected[:, 0])
    for position in range(1, CONTEXT):
        found = decoder.decode(token_ids[:, position : position + 1])
        assert_logits_close(found, expected[:, position])


@settings(max_examples=60)
@given(
    variants,
    kinds,
    st.lists(st.integers(1, 24), min_size=1, max_size=6),
    st.integers(1, 4),
    st.integers(0, 2**32 - 1),
)
def test_logits_do_not_depend_on_how_many_tokens_are_read_at_once(
    config: ModelConfig, kind: str, pieces: list[int], sequences: int, seed: int
) -> None:
    model = random_model(config)
    token_ids = random_ids(sequences, CONTEXT, seed)
    expected = model_logits(model, token_ids)
    decoder = decoder_of(model, kind)
    end = min(pieces[0], CONTEXT)
    assert_logits_close(decoder.prefill(token_ids[:, :end].tolist()), expected[:, end - 1])
    assert decoder.length == end
    for piece in pieces[1:]:
        begin = end
        end = min(begin + piece, CONTEXT)
        if begin < end:
            assert_logits_close(decoder.decode(token_ids[:, begin:end]), expected[:, end - 1])
            assert decoder.length == end


@each_kind
def test_a_prompt_longer_than_a_piece_of_prefill_is_read_whole(kind: str) -> None:
    model = random_model(ModelConfig(**{**SMALL, "context_length": 600}))
    token_ids = random_ids(1, 600)
    found = decoder_of(model, kind).prefill(token_ids.tolist())
    assert_logits_close(found, model_logits(model, token_ids)[:, -1])


@each_kind
def test_prefill_forgets_what_was_read_before(kind: str) -> None:
    model = random_model(VARIANTS[0])
    token_ids = random_ids(2, 7)
    decoder = decoder_of(model, kind)
    decoder.prefill(random_ids(3, CONTEXT, seed=2).tolist())
    found = decoder.prefill(token_ids.tolist())
    assert decoder.length == 7
    assert_logits_close(found, model_logits(model, token_ids)[:, -1])


@settings(max_examples=40)
@given(variants, kinds, st.lists(st.integers(0, 3), min_size=1, max_size=4))
def test_reordered_sequences_go_on_as_if_they_had_been_read_alone(
    config: ModelConfig, kind: str, rows: list[int]
) -> None:
    model = random_model(config)
    token_ids = random_ids(4, 6, seed=2)
    decoder = decoder_of(model, kind)
    decoder.prefill(token_ids[:, :5].tolist())
    decoder.reorder(rows)
    found = decoder.decode(token_ids[rows, 5:])
    assert_logits_close(found, model_logits(model, token_ids[rows])[:, -1])


@each_kind
def test_too_many_tokens_or_sequences_are_refused(kind: str) -> None:
    decoder = decoder_of(random_model(VARIANTS[0]), kind, max_sequences=2)
    decoder.prefill([[1] * 20])
    with pytest.raises(ValueError, match="25 tokens exceed the context of 24"):
        decoder.decode(np.ones((1, 5), int))
    refused: list[list[list[int]]] = [[[1], [2], [3]], [[]], []]
    for token_ids in refused:
        with pytest.raises(ValueError, match="cannot read"):
            decoder.prefill(token_ids)


# ---- generated text


class Uncached(Decoder):
    """The plain way: the model reads the whole text again for each token."""

    def __init__(self, model: GPT) -> None:
        self.model = model
        self.context_length = model.config.context_length
        self.token_ids = np.zeros((1, 0), int)
        self.logits = np.zeros((1, 0), np.float32)

    @property
    def length(self) -> int:
        return self.token_ids.shape[1]

    def prefill(self, token_ids: Sequence[Sequence[int]]) -> Array:
        self.token_ids = np.array(token_ids)
        self.logits = model_logits(self.model, self.token_ids)[:, -1]
        return self.logits

    def decode(self, token_ids: Array) -> Array:
        return self.prefill(np.concatenate((self.token_ids, token_ids), axis=1).tolist())

    def reorder(self, rows: Sequence[int]) -> None:
        self.token_ids = self.token_ids[list(rows)]


@settings(max_examples=60)
@given(
    variants,
    kinds,
    st.integers(0, 5),
    st.lists(st.integers(0, V - 1), min_size=1, max_size=30),
    st.sampled_from(["slide", "stop"]),
)
def test_greedy_text_is_the_same_with_and_without_the_cache(
    config: ModelConfig, kind: str, seed: int, prompt: list[int], overflow: Any
) -> None:
    model = random_model(config, seed)
    greedy = SampleConfig(temperature=0, seed=0, max_new_tokens=40, overflow=overflow)
    uncached = Uncached(model)
    with_cache = generate(decoder_of(model, kind), prompt, greedy, **NO_END)
    without_cache = generate(uncached, prompt, greedy, **NO_END)
    for found, expected in zip(with_cache, without_cache, strict=True):
        if found.token_id != expected.token_id:
            second, first = np.sort(uncached.logits[0])[-2:]
            assert first - second < 1e-5  # a tie, up to rounding, after which the texts differ
            break


@each_kind
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_samples_side_by_side_go_on_past_the_end_of_text_as_each_alone(
    kind: str, temperature: float
) -> None:
    model = random_model(VARIANTS[0])
    config = SampleConfig(temperature=temperature, seed=3, max_new_tokens=60)

    def token_ids(samples: Sequence[int], end: int, *, ignore_eos: bool) -> dict[int, list[int]]:
        settings = config.model_copy(update={"ignore_eos": ignore_eos})
        generated: dict[int, list[int]] = {number: [] for number in samples}
        decoder = decoder_of(model, kind)
        ends: Any = {"token_bytes": lambda token_id: b"a", "end_of_text": end}
        for token in generate(decoder, [1, 2], settings, samples=samples, **ends):
            generated[token.sample].append(token.token_id)
        return generated

    end = token_ids([0], -1, ignore_eos=False)[0][10]  # a token that comes
    for number, generated in token_ids(range(4), end, ignore_eos=True).items():
        assert len(generated) == 60
        assert token_ids([number], end, ignore_eos=True)[number] == generated
        until_end = generated[: generated.index(end) + 1] if end in generated else generated
        assert token_ids([number], end, ignore_eos=False)[number] == until_end


@pytest.mark.full
@each_kind
def test_of_1000_samples_in_batches_at_least_995_are_those_generated_alone(kind: str) -> None:
    """In batches of 32, width and depth of the reference model; 999 of 1,000 when written."""
    model = random_model(ModelConfig(context_length=64), vocab_size=8_000)
    config = SampleConfig(seed=1, top_p=0.9, max_new_tokens=48)

    def generate_samples(decoder: Decoder, numbers: Sequence[int]) -> dict[int, list[int]]:
        generated: dict[int, list[int]] = {number: [] for number in numbers}
        for token in generate(decoder, [1, 2, 3], config, samples=numbers, **NO_END):
            generated[token.sample].append(token.token_id)
        return generated

    in_batches: dict[int, list[int]] = {}
    decoder = decoder_of(model, kind, max_sequences=32)
    for first in range(0, 1000, 32):
        in_batches.update(generate_samples(decoder, range(first, min(first + 32, 1000))))
    alone = decoder_of(model)
    equal = 0
    for number, token_ids in in_batches.items():
        equal += generate_samples(alone, [number])[number] == token_ids
    print(f"{equal} of 1,000 samples equal")
    assert len(in_batches) == 1000
    assert equal >= 995


# ---- which decoder


@pytest.fixture
def chosen() -> Any:
    """A function from device and number of sequences, as a share of LARGE, to the decoder."""
    model = random_model(VARIANTS[0])
    arrays = arrays_of(model)
    enough = LARGE // sum(array.size for array in arrays.values())

    def choose(device: str, share: float, vocab_size: int = V) -> Decoder:
        # The cache of so many sequences is address space that nothing touches
        sequences = int(share * enough)
        probe = random_text(vocab_size, model.config.context_length, 0, 0)
        return decoder_for(model.config, vocab_size, arrays, device, sequences, probe=probe)

    return choose


def test_the_device_and_the_amount_of_work_decide_which_decoder_reads(chosen: Any) -> None:
    assert chosen("cpu", 0.5).name == "numpy"
    assert chosen("cpu", 2).name == "numpy"
    assert chosen("auto", 0.5).name == "numpy"
    assert chosen("auto", 2).name == f"torch, {choose_device('auto').type}"


def test_the_decoder_for_much_work_gives_the_logits_of_the_model(chosen: Any) -> None:
    expected = model_logits(random_model(VARIANTS[0]), np.array([[1, 2, 3]]))[:, -1]
    assert_logits_close(chosen("auto", 2).prefill([[1, 2, 3]]), expected)


@pytest.mark.parametrize("share", [0.5, 2])
def test_either_decoder_refuses_weights_of_another_vocabulary(chosen: Any, share: float) -> None:
    with pytest.raises(CorruptArtifactError, match="token_embedding"):
        chosen("auto", share, vocab_size=V + 1)
