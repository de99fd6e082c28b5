"""TransformerLens shows the attention of a model that `export --to hf` wrote as tinygpt does."""

import numpy as np
import pytest

from tests.interop.conftest import PROMPTS, ask, program, tinygpt_says

pytestmark = pytest.mark.interop


def test_attention_patterns_and_logits_are_those_of_the_model(demo, demo_model, tmp_path, figure):
    python = program("transformer-lens/bin/python")
    tinygpt_says("export", tmp_path / "hf", "--to", "hf", "--model", demo.id)
    chance = np.random.default_rng(6)
    texts = [chance.integers(0, demo_model.tokenizer.vocab_size, 64).tolist()]
    for prompt in PROMPTS:
        texts.append([demo_model.eos_token_id, *demo_model.encode(prompt)])
    answer = ask(python, "load_with_transformer_lens.py", tmp_path / "hf", {"token_ids": texts})
    largest = compared = 0
    for token_ids, found, logits in zip(texts, answer["attention"], answer["logits"], strict=True):
        attention = demo_model.attention(token_ids)  # (L, H, T, T)
        assert np.array(found).shape == attention.shape
        largest = max(largest, float(np.abs(np.array(found) - attention).max()))
        compared += attention.size
        assert np.abs(np.array(logits) - demo_model.logits(token_ids)).max() < 1e-3
    assert largest <= 1e-5
    # The control: what differs by more would be noticed, e.g., heads in another order
    swapped = np.array(answer["attention"][0])[:, ::-1]
    assert np.abs(swapped - demo_model.attention(texts[0])).max() > 0.1
    what = f"attention weights, up to {largest:.0e} from TransformerLens {answer['version']}"
    figure("export", what, compared)
