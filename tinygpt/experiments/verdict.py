"""The verdict on a comparison, in words; it says no more than the tests bear."""

from collections.abc import Sequence

from tinygpt.experiments import statistics
from tinygpt.experiments.plan import Look
from tinygpt.experiments.records import Comparison, Plan, Verdict
from tinygpt.experiments.statistics import ROUNDING, Interval


def judge(
    one: Comparison, plan: Plan, look: Look, comparisons: int, refusals: Sequence[str]
) -> None:
    """Fill in `verdict` and `words` of a comparison.

    Args:
        one: a comparison with everything else.
        plan: its experiment's.
        look: which one it is.
        comparisons: how many the experiment makes.
        refusals: why there can be no verdict.
    """
    one["verdict"], reason = _verdict(one, plan, look, comparisons, refusals)
    one["words"] = f"{one['arm']} against {one['baseline']}: {reason}"


def _verdict(
    one: Comparison, plan: Plan, look: Look, comparisons: int, refusals: Sequence[str]
) -> tuple[Verdict, str]:
    if one["failure_p"] is not None:
        return _of_failures(one, look.level, refusals)
    if one["difference"] is None:
        return "none", "no verdict, because no seed has a model of both"
    size = f"{abs(one['difference']):.4f} bits per byte {'more' if _is_worse(one) else 'less'}"
    if refusals:
        return "none", f"{size}; no verdict: {'; '.join(refusals)}"
    assert look.level is not None and one["adjusted_p"] is not None
    intervals = _intervals(one, "")
    sides = {interval.sign for interval in intervals}
    limit = f"adjusted p {one['adjusted_p']:.4f}, level {look.level:.4f}"
    if one["adjusted_p"] <= look.level * ROUNDING and sides in ({1}, {-1}):
        verdict: Verdict = "worse" if sides == {1} else "better"
        return verdict, f"{verdict}, {size} ({limit})"
    if all(interval.is_within(plan["min_effect"]) for interval in _intervals(one, "_90")):
        return "no difference", f"no difference beyond {plan['min_effect']:g} bits per byte"
    return "cannot tell", f"cannot tell ({size}; {limit}); {_advice(one, plan, look, comparisons)}"


def _is_worse(one: Comparison) -> bool:
    return (one["difference"] or 0) > 0


def _intervals(one: Comparison, suffix: str) -> list[Interval]:
    """The intervals over seeds and, where there is one, over documents."""
    kinds = (one[f"{kind}_interval{suffix}"] for kind in ("seed", "document"))  # type: ignore[literal-required]
    return [Interval(*interval) for interval in kinds if interval is not None]


def _of_failures(
    one: Comparison, level: float | None, refusals: Sequence[str]
) -> tuple[Verdict, str]:
    """The verdict where a cell failed, about failures alone."""
    assert one["failure_p"] is not None
    first, second = one["failed"]
    counts = f"{second} cells failed against {first}, adjusted p {one['failure_p']:.4f} (McNemar)"
    if refusals or level is None:
        return "none", f"{counts}; no verdict: {'; '.join(refusals)}"
    if one["failure_p"] > level * ROUNDING:
        return "cannot tell", f"cannot tell: {counts}; no verdict on the loss"
    verdict: Verdict = "worse" if second > first else "better"
    return verdict, f"fails {'more' if second > first else 'less'} often: {counts}"


def _advice(one: Comparison, plan: Plan, look: Look, comparisons: int) -> str:
    """What would answer the question."""
    documents = one["document_interval"]
    effect = plan["min_effect"]
    next_level = Look(look.number + 1, []).level
    if next_level is None:
        return "this was the third look, and there is no fourth"
    if documents is not None and (documents[1] - documents[0]) / 2 > effect:
        return "not with seeds: more validation documents would be needed"
    seeds = statistics.seeds_for(effect, one["deviation"] or 0.0, comparisons, next_level)
    if seeds is None:
        return f"a difference of {effect:g} would be found not with seeds: more than 50 are needed"
    return f"a difference of {effect:g} would take {seeds} seeds at the next look"
