"""`tinygpt doctor`: does this installation compute what it should?

It also checks a lm/model.py that the user may have changed.
"""

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tinygpt import ui
from tinygpt.cli.options import Call, with_options
from tinygpt.errors import TinygptError, VerificationError

if TYPE_CHECKING:
    from tinygpt.analysis.checks import Check
    from tinygpt.store import Store

ODD_TEXTS = (
    "",
    "  two  spaces\n\nand lines\t",
    "naïve café — “quoted” 日本語 🐈‍⬛ é",
    "<|endoftext|>\x00\x1b[0m",
)


@with_options("store", "json", "debug")
def doctor(call: Call) -> None:
    """Check that model, training and data work as they should."""
    store = call.store()
    checks: list[Check] = []
    for check in all_checks(store):
        checks.append(check)
        ui.say_note(f"{'ok   ' if check.passed else 'WRONG'}  {check.name}: {check.detail}")
    machine = machine_facts(store)
    ui.say_note(ui.table("this machine", list(machine.items())))
    call.answer({"checks": [check._asdict() for check in checks], "machine": machine})
    wrong = [check.name for check in checks if not check.passed]
    if wrong:
        raise VerificationError(
            f"{len(wrong)} of {len(checks)} checks failed: {', '.join(wrong)}",
            hint="if you changed `tinygpt/lm/model.py`, look there; otherwise reinstall tinygpt",
        )


def all_checks(store: "Store") -> "Iterator[Check]":
    """The result of each check; the data is checked on the newest dataset in the store, if any."""
    from itertools import islice

    from tinygpt.analysis import checks
    from tinygpt.config import TokenizerConfig
    from tinygpt.corpus import builtin
    from tinygpt.lm.tokenizer import Tokenizer

    for check in checks.ALL:
        yield check()
    tokenizer = Tokenizer.train(islice(builtin.stories(0), 200), TokenizerConfig(vocab_size=500))
    yield checks.tokenizer_gives_text_back(tokenizer, ODD_TEXTS)
    yield from data_checks(store)


def data_checks(store: "Store") -> "Iterator[Check]":
    """The checks of the newest dataset."""
    from tinygpt.analysis import checks
    from tinygpt.lm.dataset import read_tokens
    from tinygpt.lm.tokenizer import Tokenizer
    from tinygpt.records import DatasetMeta

    for dataset in store.list("build-dataset")[:1]:
        if dataset.read_json("meta.json", DatasetMeta).get("holdout") == "end":
            return  # a document and its copy may be on different sides of the cut
        tokenize = store.find("tokenize", dataset.input("tokenize")["key"])
        if tokenize is not None:
            tokenizer = Tokenizer.from_bytes(tokenize.read("tokenizer.json"))
            train = read_tokens(dataset.open("train.bin"), tokenizer.vocab_size)
            validation = read_tokens(dataset.open("val.bin"), tokenizer.vocab_size)
            yield checks.no_document_in_both_splits(train, validation, tokenizer.end_of_text)


def machine_facts(store: "Store") -> dict[str, str]:
    """The properties of this machine that matter for training."""
    import torch

    from tinygpt.lm.fast.precision import choose_device, choose_precision

    device = choose_device("auto")
    precision = choose_precision("auto", device)
    existing = next(folder for folder in (store.root, *store.root.parents) if folder.exists())
    return {
        "device": f"{device.type}, {torch.get_num_threads()} threads on {os.cpu_count()} cores",
        "precision": f"{precision.name}: {precision.reason}",
        "torch": f"{torch.__version__}, {torch.backends.cpu.get_cpu_capability()}",
        "memory": ui.size(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        "free disk": ui.size(shutil.disk_usage(existing).free),
        "hub": _hub_reachable(),
    }


def _hub_reachable() -> str:
    from tinygpt.config import HubSource
    from tinygpt.corpus import hub

    try:
        hub.commit(HubSource("roneneldan/TinyStories", None))
    except TinygptError as error:
        return f"no ({error.message})"
    return "yes"
