"""The model in the page computes what tinygpt computes."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers import STORIES
from tests.html_page.examples import SMALL, VARIANTS, decoder_of, page_model, tokenizer_of
from tests.html_page.page_in_browser import call, enter, open_page
from tinygpt.analysis.ablation import ablate_heads
from tinygpt.config import SampleConfig
from tinygpt.html_page import PageModel
from tinygpt.lm.sampling import generate, min_p, softmax, top_k, top_p, uniform
from tinygpt.lm.tokenizer import Tokenizer
from tinygpt.lm.weights import model_of

pytestmark = pytest.mark.full

ODD_TEXTS = [
    *("", " ", "   ", "\n\n\n", "\t", "a  b", "end ", "<|endoftext|>", "\ufeff", "\x00", "\x85"),
    *("日本語のテキスト", "🙂🙃 👩‍👩‍👧", "é e\u0301", "don't we'll I'D", "١٢٣ 12½", "\u3000x", "ﷺ"),
]
LOGITS = """
    const found = [];
    for (const text of a) {
        const one = new Reading(model);
        for (const _ of one.read(idsOf(text).slice(-CONTEXT)));
        found.push(Array.from(one.logits(one.tokenIds.length - 1)));
    }
    return found;
"""


@pytest.fixture(scope="module")
def model() -> PageModel:
    return page_model()


@pytest.fixture
def page(browser: Any, tmp_path: Path, model: PageModel) -> Any:
    """The browser with the page of `model`."""
    open_page(browser, model, tmp_path)
    return browser


def prompts(count: int) -> list[str]:
    """Stories and odd texts, one as long as the context and one longer."""
    chance = random.Random(0)
    found = [*ODD_TEXTS, " ".join(STORIES[:3]), " ".join(STORIES)]
    while len(found) < count:
        story = chance.choice(STORIES)
        found.append(story[: chance.randrange(1, len(story))])
    return found[:count]


def random_texts(count: int) -> list[str]:
    """Texts of random characters of all kinds, without halves of surrogate pairs."""
    chance = random.Random(1)
    ranges = [(32, 127), (0, 256), (0, 0x3000), (0x2000, 0x2100), (0x1F000, 0x20000), (0, 0x110000)]
    texts = []
    for _ in range(count):
        characters = []
        for _ in range(chance.randrange(40)):
            code_point = chance.randrange(*chance.choice(ranges))
            if not 0xD800 <= code_point < 0xE000:
                characters.append(chr(code_point))
        texts.append("".join(characters) + chance.choice(["", *ODD_TEXTS]))
    return texts


def expected_logits(model: PageModel, texts: list[str]) -> np.ndarray:
    tokenizer = tokenizer_of(len(model.weights["token_embedding.weight"]))
    decoder = decoder_of(model)
    rows = []
    for text in texts:
        token_ids = [0, *tokenizer.encode(text)][-model.config.context_length :]
        rows.append(decoder.prefill([token_ids])[0])
    return np.array(rows)


def test_logits_of_100_prompts_are_those_of_tinygpt(page: Any, model: PageModel):
    texts = prompts(100)
    found = np.array(call(page, LOGITS, texts))
    np.testing.assert_allclose(found, expected_logits(model, texts), rtol=0, atol=1e-3)


@pytest.mark.parametrize("settings", VARIANTS, ids=lambda s: "-".join(map(str, [*s.values()][6:])))
def test_every_variant_of_the_model_gives_the_logits_of_tinygpt(
    browser: Any, tmp_path: Path, settings: dict[str, Any]
):
    model = page_model(settings)
    open_page(browser, model, tmp_path)
    texts = prompts(22)
    found = np.array(call(browser, LOGITS, texts))
    np.testing.assert_allclose(found, expected_logits(model, texts), rtol=0, atol=1e-3)


@pytest.mark.parametrize("vocab_size", [257, 65_536])
@pytest.mark.parametrize(("layers", "heads"), [(1, 1), (12, 12)])
def test_smallest_and_largest_vocabularies_and_heads_give_the_logits_of_tinygpt(
    browser: Any, tmp_path: Path, vocab_size: int, layers: int, heads: int
):
    settings = {**SMALL, "n_layers": layers, "n_heads": heads}
    model = page_model(settings, vocab_size=vocab_size)
    open_page(browser, model, tmp_path)
    texts = ["", "Tom saw a cat. 日本"]
    found = np.array(call(browser, LOGITS, texts))
    np.testing.assert_allclose(found, expected_logits(model, texts), rtol=0, atol=1e-3)
    assert not browser.get_log("browser")


@pytest.mark.parametrize("dtype", ["f16", "int8"])
def test_rounded_weights_stay_within_the_bound_that_was_measured(
    browser: Any, tmp_path: Path, dtype: str
):
    open_page(browser, page_model(dtype=dtype), tmp_path)
    assert call(browser, "return $('check').textContent").startswith(f"{dtype} weights, largest")
    assert not call(browser, "return $('check').classList.contains('wrong')")


def test_wrong_logits_are_shown_in_red(browser: Any, tmp_path: Path, model: PageModel):
    token_ids, logits = model.probe
    open_page(browser, model._replace(probe=(token_ids, logits + 0.01)), tmp_path)
    assert call(browser, "return $('check').classList.contains('wrong')")
    assert "does not compute" in call(browser, "return $('check').textContent")


@pytest.mark.parametrize("vocab_size", [257, 320, 65_536])
def test_ids_of_1000_random_texts_are_those_of_our_tokenizer(
    browser: Any, tmp_path: Path, vocab_size: int
):
    open_page(browser, page_model(vocab_size=vocab_size), tmp_path)
    texts = [*ODD_TEXTS, *STORIES, *random_texts(1_000)]
    found = call(browser, "return a.map((text) => tokenizer.encode(text))", texts)
    assert found == [list(ids) for ids in tokenizer_of(vocab_size).encode_batch(texts)]
    decoded = call(browser, "return a.map((ids) => tokenizer.decode(ids))", found)
    assert decoded == texts


def test_an_imported_tokenizer_keeps_its_ids_and_its_end_of_text_token(
    browser: Any, tmp_path: Path
):
    ours = json.loads(tokenizer_of(320).to_bytes())["model"]
    end_of_text, *others = ours["vocab"]
    merges = [(left, right) for left, right in ours["merges"]]
    tokenizer = Tokenizer([*others, end_of_text], merges)
    end = tokenizer.end_of_text
    assert end == 319
    model = page_model(vocab_size=320, tokenizer=tokenizer.to_bytes(), step=0)
    open_page(browser, model, tmp_path)
    texts = [*ODD_TEXTS, *random_texts(200)]
    found = call(browser, "return a.map((text) => tokenizer.encode(text))", texts)
    assert found == [list(ids) for ids in tokenizer.encode_batch(texts)]
    assert call(browser, "return idsOf('a')") == [end, *tokenizer.encode("a")]
    assert call(browser, "return [labelOf(a), tokenizer.decode([a])]", end) == ["<|endoftext|>", ""]
    tabs = call(browser, "return [...document.querySelectorAll('[role=tab]')].map((t) => t.id)")
    assert "tab-training" not in tabs
    assert "tab-inside" in tabs
    about = call(browser, "return $('about').textContent")
    assert "imported, and its training is not known" in about


def test_half_of_a_surrogate_pair_is_read_as_the_replacement_character(page: Any):
    pair = call(page, r"return ['a\ud800b', 'a\ufffdb'].map((text) => tokenizer.encode(text))")
    assert pair[0] == pair[1]


GREEDY = {"temperature": 0, "top_k": None, "top_p": None, "min_p": None, "seed": 7}
SAMPLED = {"temperature": 1.3, "top_k": 60, "top_p": 0.9, "min_p": 0.02, "seed": 7}


@pytest.mark.parametrize("settings", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_generated_text_is_that_of_sample_on_20_prompts(
    page: Any, model: PageModel, settings: dict[str, Any]
):
    tokenizer = tokenizer_of(320)
    config = SampleConfig(**settings, max_new_tokens=40, overflow="stop")
    for prompt in prompts(20):
        token_ids = [0, *tokenizer.encode(prompt)]
        new = generate(
            decoder_of(model),
            token_ids,
            config,
            token_bytes=tokenizer.token_bytes,
            end_of_text=0,
        )
        script = """
            const text = idsOf(a).slice(-CONTEXT);
            return [...generateTokens(new Reading(model), text, b, 40)];
        """
        found = call(page, script, prompt, settings)
        expected = [token.token_id for token in new]
        assert [token for token in found if token is not None] == expected, prompt


FILTERS = (("topK", top_k, 40), ("topP", top_p, 0.7), ("minP", min_p, 0.1))


def test_filters_keep_the_tokens_that_those_of_sampling_keep(page: Any):
    chance = np.random.default_rng(3)
    for _ in range(30):
        logits = chance.normal(0, 3, 300).astype(np.float32)
        logits[chance.integers(0, 300, 150)] = logits[0]  # ties
        probabilities = softmax(logits)
        for name, filter_, value in FILTERS:
            script = f"return Array.from({name}(Float32Array.from(a), b))"
            found = call(page, script, probabilities.tolist(), value)
            assert found == filter_(probabilities, value).tolist(), name


def test_random_numbers_are_those_of_sampling(page: Any):
    places = [(0, 0), (1337, 1), (2**31, 255), (2**53 - 1, 100_000)]
    found = call(page, "return a.map(([seed, position]) => uniform(seed, position))", places)
    assert found == [uniform(seed, 0, position) for seed, position in places]


def test_all_switches_on_is_the_plain_model(page: Any):
    script = """
        const [plain, switched] = [new Reading(model), new Reading(model, new Set())];
        for (const one of [plain, switched]) for (const _ of one.read(idsOf(a)));
        return [plain, switched].map((one) => Array.from(one.logits(a.length / 10)));
    """
    plain, switched = call(page, script, STORIES[0])
    assert plain == switched


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_loss_without_a_head_is_that_of_the_ablation_of_plot(
    browser: Any, tmp_path: Path, norm: str
):
    model = page_model({**SMALL, "norm": norm})
    open_page(browser, model, tmp_path)
    text = " ".join(STORIES[:2])[:110]
    enter(browser, text)
    call(browser, "await showView('switches');")
    token_ids = np.array([0, *tokenizer_of(320).encode(text)])
    assert len(token_ids) <= model.config.context_length
    expected = ablate_heads(model_of(model.config, 320, model.weights), token_ids)
    found = dict(call(browser, "return [...ranking.increases]"))
    for (layer, head), increase in np.ndenumerate(expected.loss_increase):
        assert found[f"{layer}.{head}"] == pytest.approx(increase, abs=1e-3)
    assert call(browser, "return intact.loss") == pytest.approx(expected.loss, abs=1e-3)
    found_off = call(
        browser, "await setOff(['1.2']); const loss = reading.loss; await setOff([]); return loss"
    )
    assert found_off == pytest.approx(expected.loss + expected.loss_increase[1, 2], abs=1e-3)


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("positions", ["learned", "none"])
def test_votes_of_the_parts_sum_to_the_difference_of_two_logits(
    browser: Any, tmp_path: Path, tie: bool, positions: str
):
    model = page_model({**SMALL, "tie_embeddings": tie, "positions": positions})
    open_page(browser, model, tmp_path)
    enter(browser, STORIES[0])
    script = """
        const logits = reading.logits(a);
        const parts = attribution(reading, a, b, c);
        return [parts.reduce((sum, part) => sum + part.value, 0), logits[b] - logits[c]];
    """
    for position, first, second in [(0, 3, 4), (5, 100, 319), (9, 0, 257)]:
        total, difference = call(browser, script, position, first, second)
        assert total == pytest.approx(difference, abs=1e-3)
        assert abs(difference) > 0.01


def test_tracing_a_position_leaves_the_reading_as_it_was(page: Any):
    script = """
        const one = new Reading(model);
        for (const _ of one.read(idsOf(a)));
        const before = Array.from(one.logits(6));
        one.trace(2);
        for (const _ of one.read([...one.tokenIds.slice(0, 6), one.tokenIds[6]]));
        return [before, Array.from(one.logits(6))];
    """
    before, after = call(page, script, STORIES[0])
    assert before == after


def test_attention_scores_are_those_of_plot(page: Any, model: PageModel):
    from tinygpt.analysis import attention

    text = " ".join(STORIES[:2])[:100]
    enter(page, text)
    token_ids = [0, *tokenizer_of(320).encode(text)]
    maps = attention.attention_maps(model_of(model.config, 320, model.weights), token_ids)
    expected = {
        "entropy": attention.entropy(maps),
        "previous_token": attention.previous_token(maps),
        "first_token": attention.first_token(maps),
        "induction": attention.prefix_matching(maps, token_ids),
    }
    for layer, head in np.ndindex(2, 3):
        script = "return scoresOf(attentionMap(a, b), state.tokenIds)"
        found = call(page, script, layer, head)
        for name, values in expected.items():
            assert found[name] == pytest.approx(values[layer, head], abs=1e-4), name
