"""The verdict on a comparison, in words; it says no more than the tests bear."""

from collections.abc import Sequence

from tinygpt.experiments import statistics
from tinygpt.experiments.plan import NthLook
from tinygpt.experiments.records import Comparison, Plan, Result, Spread, Verdict
from tinygpt.experiments.statistics import ROUNDING, Interval


def judge(
    one: Comparison, plan: Plan, look: NthLook, comparisons: int, refusals: Sequence[str]
) -> None:
    """Fill in `verdict` and `words` of a comparison.

    Args:
        one: a comparison with everything else.
        plan: its experiment's.
        look: which one it is.
        comparisons: how many the experiment makes.
        refusals: why there can be no verdict.
    """
    level = look.level or 0.0
    if one["failure_p"] is not None:
        verdict, words = _of_failures(one, one["failure_p"], level)
    elif one["adjusted_p"] is None:
        verdict, words = "none", _size(one)
    else:
        verdict, words = _of_differences(one, one["adjusted_p"], level, plan["min_effect"])
        if verdict == "cannot tell":
            words += f"; {_advice(one, plan['min_effect'], look, comparisons)}"
    if refusals:
        verdict, words = "none", f"{_size(one)}; no verdict: {'; '.join(refusals)}"
    one["verdict"] = verdict
    one["words"] = f"{one['arm']} against {one['baseline']}: {words}"


def _of_differences(
    one: Comparison, p: float, level: float, min_effect: float
) -> tuple[Verdict, str]:
    """The verdict on bits per byte."""
    limit = f"adjusted p {p:.4g}, level {level:.4g}"
    needed = ("95 % over seeds", "95 % over documents", "strict over both")
    sides = {interval.sign for interval in _intervals(one, needed)}
    if p <= level * ROUNDING and sides in ({-1}, {1}):
        verdict: Verdict = "better" if sides == {-1} else "worse"
        return verdict, f"{verdict}, {_size(one)} ({limit})"
    if all(interval.is_within(min_effect) for interval in _intervals(one, ("90 % over both",))):
        return "no difference", f"no difference beyond {min_effect:g} bits per byte ({_size(one)})"
    return "cannot tell", f"cannot tell, {_size(one)} ({limit})"


def _of_failures(one: Comparison, p: float, level: float) -> tuple[Verdict, str]:
    """The verdict where a cell failed, which is about failures alone."""
    first, second = one["failed"]
    limit = f"adjusted p {p:.4g} by McNemar's test, level {level:.4g}"
    if p > level * ROUNDING:
        return "cannot tell", f"cannot tell, {_size(one)} ({limit})"
    verdict: Verdict = "worse" if second > first else "better"
    more = "more" if second > first else "less"
    return verdict, f"fails {more} often, {_size(one)} ({limit})"


def _size(one: Comparison) -> str:
    """The difference in words."""
    if one["failure_p"] is not None:
        first, second = one["failed"]
        return f"{second} failed against {first}"
    if one["difference"] is None:
        return "no seed has both"
    more = "more" if one["difference"] > 0 else "fewer"
    return f"{abs(one['difference']):.4f} {more} bits per byte"


def _intervals(one: Comparison, names: Sequence[str]) -> list[Interval]:
    """The intervals of these names that there are."""
    found = (one["intervals"][name] for name in names)
    return [Interval(*interval) for interval in found if interval is not None]


def _advice(one: Comparison, min_effect: float, look: NthLook, comparisons: int) -> str:
    """What would answer the question."""
    level = NthLook(look.number + 1).level
    if level is None:
        return "this was the third look, and there is no fourth"
    documents = one["intervals"]["95 % over documents"]
    if documents is not None and (documents[1] - documents[0]) / 2 > min_effect:
        return "not with seeds: more validation documents are needed"
    seeds = statistics.seeds_for(min_effect, one["deviation"] or 0.0, comparisons, level)
    if seeds is None:
        return f"not with seeds: a difference of {min_effect:g} takes more than 50"
    return f"a difference of {min_effect:g} takes {seeds} seeds at the next look"


def table(plan: Plan, result: Result) -> list[list[str]]:
    """The answer as a table of labels and values."""
    rows = [["question", plan["question"]]]
    for arm in result["arms"]:
        facts = [f"{arm['failures']} of {arm['cells']} failed"]
        if arm["seconds"] is not None:
            facts.insert(0, f"{arm['seconds']:.1f} s of training")
        if arm["loss"] is not None:
            facts.insert(0, f"loss {_spread(arm['loss'])}")
        if arm["bits_per_byte"] is not None:
            facts.insert(0, f"{_spread(arm['bits_per_byte'])} bits per byte")
        elif arm["median"] is not None:
            facts.insert(0, f"median {arm['median']:.4f} bits per byte")
        rows.append([arm["name"], ", ".join(facts)])
    for one in result["comparisons"]:
        rows.append(["answer", one["words"]])
        for name, interval in one["intervals"].items():
            if interval is not None and name.startswith("95"):
                rows.append([name, f"{interval[0]:+.4f} to {interval[1]:+.4f}"])
        if one["deviation"] is not None and one["baseline_deviation"] is not None:
            spread = f"{one['deviation']:.4f} of differences, {one['baseline_deviation']:.4f} of "
            rows.append(["spread over seeds", f"{spread}{one['baseline']}"])
        if one["correlation"] is not None:
            rows.append(["correlation of arms", f"{one['correlation']:.2f}"])
    rows.append(["interval over", result["documents"]])
    for failure in result["failures"]:
        last = "none" if failure["last_loss"] is None else f"{failure['last_loss']:.4f}"
        where = f"{failure['arm']}, seed {failure['seed']}, step {failure['step']:,}"
        rows.append(["failed", f"{where}: {failure['kind']}, last loss {last}"])
    for of_key in result["failures_by_value"]:
        for value, (failed, cells) in of_key["failures"].items():
            p = f", p {of_key['p'][value]:.4g} (McNemar)" if value in of_key["p"] else ""
            rows.append([f"{of_key['key']}={value}", f"{failed} of {cells} failed{p}"])
    return rows + [["note", note] for note in result["notes"]]


def _spread(value: Spread) -> str:
    deviation = value["deviation"]
    return f"{value['mean']:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}")
