"""Training curves keep steps and evaluations apart; smoothing does not distort them."""

import numpy as np

from tests.analysis.examples import training_curves
from tinygpt.analysis.curves import Curves, smooth


def test_curves_hold_every_step_and_every_evaluation():
    curves = training_curves(300)
    assert curves.steps.tolist() == list(range(1, 301))
    assert curves.eval_steps.tolist() == [1, 10, 100, 300]
    assert curves.samples[0] == "Once after 1 steps"
    assert curves.tokens_per_step == 64


def test_best_evaluation_is_the_lowest_not_the_last():
    curves = training_curves(300)
    worse = Curves(**{**vars(curves), "eval_loss": np.array([5.0, 2.0, 3.0, 4.0])})
    assert worse.best == 1


def test_smoothing_leaves_a_line_as_it_is_and_reduces_noise():
    line = np.arange(50.0)
    np.testing.assert_allclose(smooth(line, 7), line)
    np.testing.assert_allclose(smooth(line, 1), line)
    noise = np.random.default_rng(0).normal(size=400)
    assert smooth(noise, 20)[20:-20].std() < 0.4
