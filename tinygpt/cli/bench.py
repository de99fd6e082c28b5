"""`tinygpt bench train|learn|sample`: figures as ratios against peers measured in the same run."""

from typing import Annotated, Any

import typer

from tinygpt.cli.failures import Commands
from tinygpt.cli.options import Call, with_options

app = typer.Typer(cls=Commands, rich_markup_mode=None, help="Measure speed and learning beside peers, in one run.")

Threads = Annotated[int | None, typer.Option(min=1, metavar="N", help="CPU threads for every contender.")]


@app.callback()
def _group() -> None:
    """Measure speed and learning beside peers, in one run."""


@app.command("train")
@with_options("json", "debug")
def bench_train(
    call: Call, *, threads: Threads = None, rounds: Annotated[int, typer.Option(min=1, metavar="N", help="Timed steps each.")] = 7
) -> None:
    """Training speed beside Hugging Face and a textbook loop."""
    from tinygpt import ui
    from tinygpt.bench import train

    report = train.bench_train(threads, rounds, ui.say_note)
    if call.options.json:
        ui.say_json(report)
    for name in train.BLOCKS:
        _table(name or "dropout 0", report[name] if name else report, train.CONTENDERS)


def _table(title: str, block: dict[str, Any], contenders: dict[str, str]) -> None:
    from tinygpt import ui

    rates, ours = block["tokens_per_second_all"], block["tokens_per_second"]
    rows = [
        (
            label,
            f"{ui.number(rates[name])} tokens/s  {ours / rates[name]:.2f} x"
            if name in rates
            else "not installed or not in this block",
        )
        for name, label in contenders.items()
    ]
    share = f"{block['matrix_rate_share']:.2f} of the {block['precision']} matrix rate"
    memory = ", ".join(f"{name} {mib:,.0f} MiB" for name, mib in block["peak_rss_mib"].items())
    rows += [("share", share), ("peak memory", memory), ("conditions", f"{block['threads']} threads, {block['cpu_capability']}")]
    rows += [("versions", ", ".join(f"{name} {version or 'not installed'}" for name, version in block["versions"].items()))]
    ui.say_note(ui.table(title, rows, None))
