"""Losses without a head are those of a model that lacks it; the model itself is left alone."""

import copy
import itertools
from typing import Literal

import numpy as np
import pytest
import torch

from tests.analysis.examples import TOKENS, small_model
from tinygpt.analysis.ablation import ablate_heads, text_losses
from tinygpt.lm.evaluation import mean_loss

HEADS = list(itertools.product(range(2), range(2)))


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_loss_increase_is_that_of_a_model_whose_values_of_the_head_are_zero(
    norm: Literal["pre", "post"],
):
    model = small_model(norm=norm)
    text = TOKENS[:49]
    ablation = ablate_heads(model, text)
    for layer, head in HEADS:
        without = copy.deepcopy(model)
        with torch.no_grad():
            for parameter in without.blocks[layer].attention.qkv.parameters():
                parameter[32 + 8 * head : 40 + 8 * head] = 0  # query and key are before the value
        loss = ablation.loss + ablation.loss_increase[layer, head]
        assert loss == pytest.approx(mean_loss(without, text), abs=1e-6)
    assert ablation.tokens == 48
    assert ablation.loss == pytest.approx(mean_loss(model, text))
    assert abs(ablation.loss_increase).min() > 0
    assert sorted(ablation.rank(layer, head) for layer, head in HEADS) == [1, 2, 3, 4]


def test_head_without_output_has_no_loss_increase_and_the_model_stays_as_it_was():
    model = small_model()
    with torch.no_grad():
        model.blocks[1].attention.out.weight[:, 8:] = 0  # reads head 1 of layer 1
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    ablation = ablate_heads(model, TOKENS)
    assert ablation.loss_increase[1, 1] == 0
    assert ablation.standard_error[1, 1] == 0
    for name, parameter in model.named_parameters():
        assert torch.equal(before[name], parameter)


@pytest.mark.parametrize(("tokens", "predicted"), [(2, 1), (12, 11), (13, 12), (24, 12), (25, 24)])
def test_ablation_uses_whole_windows_or_one_that_is_shorter(tokens: int, predicted: int):
    ablation = ablate_heads(small_model(), TOKENS[:tokens])
    assert ablation.tokens == predicted
    has_no_error = np.isnan(ablation.standard_error)
    assert has_no_error.all() == (predicted <= 12)
    assert has_no_error.any() == (predicted <= 12)


def test_text_losses_are_the_cross_entropy_of_the_logits():
    model = small_model()
    ids = TOKENS[:12].tolist()
    with torch.no_grad():
        logits = model(torch.tensor([ids[:-1]]))[0]
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")
    np.testing.assert_allclose(text_losses(model, ids), expected, atol=1e-5)


def test_text_of_one_token_has_no_losses():
    assert len(text_losses(small_model(), [3])) == 0
