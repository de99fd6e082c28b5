"""`tinygpt bench train|sample|learn`: figures as ratios against peers measured in the same run."""

from typing import Annotated, Any

import typer

from tinygpt import ui
from tinygpt.cli.failures import Commands
from tinygpt.cli.options import Call, with_options

app = typer.Typer(cls=Commands, rich_markup_mode=None, help="Measure speed and learning beside peers, in one run.")

Threads = Annotated[int | None, typer.Option(min=1, metavar="N", help="CPU threads for every contender.")]
Rounds = Annotated[int, typer.Option(min=1, metavar="N", help="Timed turns of each contender.")]
Data = Annotated[str, typer.Option(metavar="SOURCE", help="Stories to learn from.")]
Heldout = Annotated[str | None, typer.Option(metavar="SOURCE", help="Judge on these instead of the validation split.")]
Minutes = Annotated[float, typer.Option(min=0.01, metavar="M", help="Training time of each recipe.")]
Recipe = Annotated[list[str] | None, typer.Option(metavar="NAME", help="reference, nanogpt or laptop; repeatable.")]


@app.command("train")
@with_options("json", "debug")
def bench_train(call: Call, *, threads: Threads = None, rounds: Rounds = 7) -> None:
    """Training speed beside Hugging Face and a textbook loop."""
    from tinygpt.bench import train

    report = train.bench_train(threads, rounds, ui.say_note)
    call.answer(report)
    for name in train.BLOCKS:
        block = report[name] if name else report
        rows = _rates(block["tokens_per_second_all"], train.CONTENDERS)
        rows.append(("share", f"{block['matrix_rate_share']:.2f} of the {block['precision']} matrix rate"))
        rows.append(("peak memory", ", ".join(f"{peer} {mib:,.0f} MiB" for peer, mib in block["peak_rss_mib"].items())))
        rows += _conditions(block, block["cpu_capability"])
        ui.say_note(ui.table(name or "dropout 0", rows))


@app.command("sample")
@with_options("json", "debug")
def bench_sample(call: Call, *, threads: Threads = None, rounds: Rounds = 5) -> None:
    """Speed of telling stories beside Hugging Face generate and a plain loop."""
    from tinygpt.bench import sample

    report = sample.bench_sample(threads, rounds, ui.say_note)
    call.answer(report)
    for batch in sample.NEW_TOKENS:
        ui.say_note(ui.table(f"batch {batch}", _rates(report[f"tokens_per_second_all_batch_{batch}"], sample.CONTENDERS)))
    ui.say_note(ui.table("both", [("first token", f"{report['first_token_ms']:.0f} ms from a cold start"), *_conditions(report)]))


@app.command("learn")
@with_options("json", "debug")
def bench_learn(
    call: Call, *, data: Data = "builtin", heldout: Heldout = None, minutes: Minutes = 4, recipe: Recipe = None
) -> None:
    """How fast recipes learn, in minutes of training."""
    from tinygpt.bench import learn
    from tinygpt.errors import UsageError

    if unknown := set(recipe or ()) - set(learn.RECIPES):
        raise UsageError(f"there is no recipe `{min(unknown)}`", hint=f"recipes: {', '.join(learn.RECIPES)}")
    screen = ui.Screen("auto", quiet=False)
    results = learn.bench_learn(data, heldout, minutes, recipe or learn.RECIPES, screen)
    screen.close()
    call.answer(results)
    for name, result in results.items():
        rows = [(f"{point['seconds']:.0f} s", f"perplexity {point['perplexity']:,.2f}") for point in result["curve"]]
        end = f"{result['curve'][-1]['step']:,} steps, {result['bits_per_byte_at_end']:.4f} bits per byte, {result['precision']}"
        ui.say_note(ui.table(name, [*rows, ("end", end)]))


def _rates(rates: dict[str, float], contenders: dict[str, str]) -> list[tuple[str, str]]:
    said = {name: f"{ui.number(rate)} tokens/s  {rates['tinygpt'] / rate:.2f} x" for name, rate in rates.items()}
    return [(label, said.get(name, "not measured")) for name, label in contenders.items()]


def _conditions(report: dict[str, Any], *more: str) -> list[tuple[str, str]]:
    versions = ", ".join(f"{name} {version or 'not installed'}" for name, version in report["versions"].items())
    return [("conditions", ", ".join([f"{report['threads']} threads", *more])), ("versions", versions)]
