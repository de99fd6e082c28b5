"""`tinygpt doctor`: does this installation, and the lm/model.py that the user may have changed, compute what it should?"""

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tinygpt import ui
from tinygpt.cli.options import Call, with_options
from tinygpt.errors import TinygptError, VerificationError

if TYPE_CHECKING:
    from tinygpt.lm.checks import Check
    from tinygpt.store import Store

ODD_TEXTS = ("", "  two  spaces\n\nand lines\t", "naïve café — “quoted” 日本語 🐈‍⬛ é", "<|endoftext|>\x00\x1b[0m")


@with_options("store", "json", "debug")
def doctor(call: Call) -> None:
    """Check that the model, training and data are what they should be."""
    store, checks = call.store(), []
    for check in all_checks(store):
        checks.append(check)
        ui.say_note(f"{'ok   ' if check.passed else 'WRONG'}  {check.name}: {check.detail}")
    machine = machine_facts(store)
    ui.say_note(ui.table("this machine", list(machine.items())))
    call.answer({"checks": [check._asdict() for check in checks], "machine": machine})
    if wrong := [check.name for check in checks if not check.passed]:
        hint = "if you changed `tinygpt/lm/model.py`, look there; else install again with `make clean setup`"
        raise VerificationError(f"{len(wrong)} of {len(checks)} checks found something wrong: {', '.join(wrong)}", hint)


def all_checks(store: "Store") -> "Iterator[Check]":
    """Each property, checked; those of the data on the newest data set in the store, if there is one."""
    from itertools import islice

    from tinygpt.config import TokenizerConfig
    from tinygpt.corpus import builtin
    from tinygpt.lm import checks
    from tinygpt.lm.dataset import read_tokens
    from tinygpt.lm.tokenizer import Tokenizer

    for check in checks.ALL:
        yield check()
    tokenizer = Tokenizer.train(islice(builtin.stories(0), 200), TokenizerConfig(vocab_size=500))
    yield checks.tokenizer_gives_text_back(tokenizer, ODD_TEXTS)
    for dataset in store.list("build-dataset")[:1]:
        if tokenize := store.find("tokenize", dataset.manifest.inputs["tokenize"]["key"]):
            tokenizer = Tokenizer.from_bytes(tokenize.read("tokenizer.json"))
            train, validation = (read_tokens(dataset.open(name), tokenizer.vocab_size) for name in ("train.bin", "val.bin"))
            yield checks.no_story_in_both_splits(train, validation, tokenizer.end_of_story)


def machine_facts(store: "Store") -> dict[str, str]:
    """What matters for training here."""
    import torch

    from tinygpt.config import HubSource
    from tinygpt.corpus import hub
    from tinygpt.lm.precision import choose_device, choose_precision

    device = choose_device("auto")
    precision = choose_precision("auto", device)
    there = next(folder for folder in (store.root, *store.root.parents) if folder.exists())
    try:
        hub.commit(HubSource("roneneldan/TinyStories", None))
        reachable = "yes"
    except TinygptError as error:
        reachable = f"no ({error.message})"
    return {
        "device": f"{device.type}, {torch.get_num_threads()} threads on {os.cpu_count()} cores",
        "precision": f"{precision.name}: {precision.reason}",
        "torch": f"{torch.__version__}, {torch.backends.cpu.get_cpu_capability()}",
        "memory": ui.size(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        "free disk": ui.size(shutil.disk_usage(there).free),
        "hub": reachable,
    }
