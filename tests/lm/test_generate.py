"""Generation and x-ray, with a toy decoder: what ends a text, what it depends on, what is read."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.lm.text import expected_text
from tinygpt.config import SampleConfig
from tinygpt.lm.sampling import Decoder, NewToken, generate, xray

Logits = NDArray[np.float32]


class Toy(Decoder):
    """A decoder whose logits are a function of the last three tokens; its tokens are letters."""

    V = 27

    def __init__(self, context_length: int = 12) -> None:
        self.context_length = context_length
        self.prefills: list[list[list[int]]] = []
        self.histories: list[list[int]] = []

    @property
    def length(self) -> int:
        return len(self.histories[0])

    def prefill(self, token_ids: Sequence[Sequence[int]]) -> Logits:
        self.prefills.append([list(row) for row in token_ids])
        self.histories = [[] for _ in token_ids]
        return self.decode(np.array(token_ids))

    def decode(self, token_ids: NDArray[np.int64]) -> Logits:
        for history, row in zip(self.histories, token_ids.tolist(), strict=True):
            history.extend(row)
        assert self.length <= self.context_length
        rows = []
        for history in self.histories:
            seed = int.from_bytes(bytes(history[-3:]), "big")
            rows.append(np.random.default_rng(seed).standard_normal(self.V) * 3)
        return np.stack(rows).astype(np.float32)

    def reorder(self, rows: Sequence[int]) -> None:
        self.histories = [list(self.histories[row]) for row in rows]


def letter(token_id: int) -> bytes:
    return bytes([96 + token_id]) if token_id else b""


def generate_with_toy(
    config: SampleConfig,
    *,
    samples: Sequence[int] = (0,),
    prompt: Sequence[int] = (1, 2),
    decoder: Toy | None = None,
    end_of_text: int = 0,
) -> dict[int, list[NewToken]]:
    """The tokens of each sample."""
    generated: dict[int, list[NewToken]] = {sample: [] for sample in samples}
    for token in generate(
        decoder or Toy(),
        prompt,
        config,
        token_bytes=letter,
        end_of_text=end_of_text,
        samples=samples,
    ):
        generated[token.sample].append(token)
    return generated


def text_of_ids(tokens: list[NewToken]) -> str:
    """The text of all tokens, without regard to stop texts."""
    return "".join(letter(token.token_id).decode() or "\n\n" for token in tokens)


def text_of(tokens: list[NewToken]) -> str:
    return "".join(token.text for token in tokens)


sample_configs = st.builds(
    SampleConfig,
    temperature=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    top_k=st.none() | st.integers(1, 30),
    top_p=st.none() | st.floats(0.1, 1),
    min_p=st.none() | st.floats(0.01, 0.5),
    max_new_tokens=st.integers(1, 40),
    stop=st.lists(st.text("abc", min_size=1, max_size=2), max_size=2).map(tuple),
    overflow=st.sampled_from(["slide", "stop"]),
    ignore_eos=st.booleans(),
    seed=st.integers(0, 2**63 - 1),
)


@given(sample_configs)
def test_the_same_seed_generates_the_same_text(config: SampleConfig) -> None:
    first = generate_with_toy(config)[0]
    second = generate_with_toy(config)[0]
    assert [token.token_id for token in first] == [token.token_id for token in second]
    assert text_of(first) == text_of(second)


def test_other_seeds_generate_other_texts() -> None:
    texts = set()
    for seed in range(20):
        texts.add(text_of(generate_with_toy(SampleConfig(seed=seed, temperature=2))[0]))
    assert len(texts) > 15


@given(sample_configs, st.lists(st.integers(0, 50), min_size=1, max_size=6, unique=True))
def test_a_sample_does_not_depend_on_those_beside_it(
    config: SampleConfig, samples: list[int]
) -> None:
    together = generate_with_toy(config, samples=samples)
    for sample in samples:
        assert together[sample] == generate_with_toy(config, samples=[sample])[sample]


@given(sample_configs)
def test_a_sample_ends_once_for_the_reason_it_gives(config: SampleConfig) -> None:
    tokens = generate_with_toy(config)[0]
    *before, last = tokens
    assert all(token.stop_reason is None for token in before)
    assert config.ignore_eos or all(token.token_id for token in before)
    generated = text_of_ids(tokens)
    match last.stop_reason:
        case "end_of_text":
            assert (last.token_id, config.ignore_eos) == (0, False)
            generated = generated.removesuffix("\n\n")
        case "length":
            assert len(tokens) == config.max_new_tokens
        case "context":
            assert (len(before) + 2, config.overflow) == (12, "stop")
        case "stop":
            assert any(generated.endswith(stop) for stop in config.stop)
        case other:
            pytest.fail(f"ended without a reason: {other}")
    stopped = last.stop_reason == "stop"
    assert (text_of(tokens), stopped) == expected_text(generated, config.stop)


@given(sample_configs)
def test_a_sample_that_ignores_the_end_of_text_goes_on_as_it_began(config: SampleConfig) -> None:
    ending = config.model_copy(update={"ignore_eos": False, "stop": ()})
    going_on = ending.model_copy(update={"ignore_eos": True})
    first = [token.token_id for token in generate_with_toy(ending)[0]]
    second = [token.token_id for token in generate_with_toy(going_on)[0]]
    assert second[: len(first)] == first
    if config.overflow == "slide":
        assert len(second) == config.max_new_tokens


def test_an_end_of_text_that_is_ignored_is_a_blank_line_in_the_text() -> None:
    config = SampleConfig(seed=0, temperature=0, max_new_tokens=4, ignore_eos=True)
    decoder = Constant([9, 0, 1])  # always token 0
    tokens = generate_with_toy(config, decoder=decoder)[0]
    assert [token.text for token in tokens] == ["\n\n"] * 4
    assert [token.stop_reason for token in tokens] == [None, None, None, "length"]


def test_the_blank_line_of_an_ignored_end_of_text_can_be_a_stop_text() -> None:
    config = SampleConfig(seed=0, temperature=0, ignore_eos=True, stop=("\n\n",))
    (token,) = generate_with_toy(config, decoder=Constant([9, 0, 1]))[0]
    assert (token.text, token.stop_reason) == ("", "stop")


def test_the_newest_half_is_read_again_when_the_context_is_full() -> None:
    decoder = Toy(context_length=8)
    config = SampleConfig(seed=5, top_k=3, max_new_tokens=30)
    tokens = generate_with_toy(config, prompt=[1, 2, 3], decoder=decoder, end_of_text=99)[0]
    assert tokens[-1].stop_reason == "length"
    whole = [1, 2, 3, *(token.token_id for token in tokens)]
    read_again = [[whole[end - 4 : end]] for end in range(9, 33, 5)]
    assert decoder.prefills == [[[1, 2, 3]], *read_again]


def test_a_prompt_longer_than_the_context_is_read_from_its_end() -> None:
    decoder = Toy(context_length=8)
    config = SampleConfig(seed=5, max_new_tokens=1)
    generate_with_toy(config, prompt=range(1, 20), decoder=decoder)
    assert decoder.prefills == [[list(range(12, 20))]]


def test_without_a_seed_nothing_is_generated() -> None:
    with pytest.raises(ValueError, match="seed"):
        generate_with_toy(SampleConfig())


# ---- x-ray


@given(sample_configs, st.lists(st.integers(1, 26), min_size=1, max_size=15))
def test_xray_sees_the_probabilities_from_which_a_text_was_generated(
    config: SampleConfig, prompt: list[int]
) -> None:
    tokens = generate_with_toy(config, prompt=prompt)[0]
    token_ids = [token.token_id for token in tokens]
    seen = list(xray(Toy(), prompt, token_ids))
    assert [token.token_id for token in seen] == token_ids
    expected = [np.exp(token.logprob) for token in tokens]
    assert [token.probability for token in seen] == pytest.approx(expected, rel=1e-4)


class Constant(Toy):
    """A decoder that always predicts the same."""

    def __init__(self, logits: list[int]) -> None:
        super().__init__()
        self.logits = np.array([logits], np.float32)

    def decode(self, token_ids: NDArray[np.int64]) -> Logits:
        return self.logits


@given(st.lists(st.integers(-9, 9), min_size=2, max_size=30), st.data())
def test_xray_gives_entropy_and_the_likeliest_others(
    logits: list[int], data: st.DataObject
) -> None:
    token_id = data.draw(st.integers(0, len(logits) - 1))
    p = np.exp(logits) / np.exp(logits).sum()
    (seen,) = xray(Constant(logits), [1], [token_id])
    assert (seen.token_id, seen.probability) == (token_id, pytest.approx(p[token_id]))
    assert seen.entropy == pytest.approx(-(p * np.log2(p)).sum(), abs=1e-6)
    likeliest = sorted(range(len(logits)), key=lambda i: (-logits[i], i))
    others = [i for i in likeliest if i != token_id][:3]
    assert seen.alternatives == [(i, pytest.approx(p[i])) for i in others]
