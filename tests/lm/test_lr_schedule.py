"""The learning rate as a function of the step."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygpt.config import TrainConfig
from tinygpt.lm.optim import lr_scale, warmup_steps


def test_reference_schedule_is_linear_for_500_steps_then_a_cosine_to_zero():
    config = TrainConfig()
    assert lr_scale(1, config) == 1 / 500
    assert lr_scale(250, config) == 0.5
    assert lr_scale(500, config) == 1
    assert lr_scale(5250, config) == pytest.approx(0.5, abs=1e-3)
    assert 0 < lr_scale(10_000, config) < 1e-6


def test_linear_decay_over_the_last_part_is_a_warmup_stable_decay_schedule():
    config = TrainConfig(
        max_steps=100,
        warmup_steps=10,
        schedule="linear",
        decay_fraction=0.5,
        final_lr_fraction=0.1,
    )
    assert lr_scale(10, config) == 1
    assert lr_scale(11, config) == 1
    assert lr_scale(50, config) == 1
    assert lr_scale(55, config) == pytest.approx(1, abs=0.03)
    assert lr_scale(100, config) == pytest.approx(0.1, abs=0.03)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 300),
    st.sampled_from(["cosine", "linear", "constant"]),
    st.one_of(st.none(), st.integers(1, 500)),
    st.floats(0.01, 1),
    st.floats(0, 1),
)
def test_the_rate_rises_then_falls_and_is_never_zero_or_above_the_peak(
    steps, schedule, warmup, decay, final
):
    config = TrainConfig(
        max_steps=steps,
        schedule=schedule,
        warmup_steps=warmup,
        decay_fraction=decay,
        final_lr_fraction=final,
    )
    scales = [lr_scale(step, config) for step in range(1, steps + 1)]
    assert all(0 < scale <= 1 for scale in scales)
    top = scales.index(max(scales))
    assert scales[: top + 1] == sorted(scales[: top + 1])
    assert scales[top:] == sorted(scales[top:], reverse=True)


def test_warmup_may_be_a_number_of_steps_a_share_of_them_or_none():
    assert warmup_steps(TrainConfig(max_steps=50, warmup_steps=7)) == 7
    none = TrainConfig(max_steps=50, warmup_steps=None)
    assert warmup_steps(none) == 0
    assert warmup_steps(none.model_copy(update={"warmup_fraction": 0.1})) == 5
