"""Is what was written the model? Each export reads it back and compares."""

import random
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tinygpt.errors import VerificationError
from tinygpt.exports.model import ModelToExport
from tinygpt.lm.probe import model_logits
from tinygpt.lm.tokenizer import END_OF_TEXT, Tokenizer
from tinygpt.lm.weights import Array, model_of

NOTHING_LEFT = "nothing was written; if you changed `tinygpt/lm/`, this format cannot express it"
TEXTS = 200
CHARACTERS = "aZ09 \n\t.,'\"-éßñЖ日本語한🙂👩‍👧\u0301\u200d\u3000\x00\x7f\ud7ff\U0010ffff"


def compare_logits(
    model: ModelToExport, found: Array, rounded: Mapping[str, Array] | None = None
) -> str:
    """Compare the logits of what was written with those of the model's probe.

    Args:
        model: as require_gpt2 returns it.
        found: logits of what was written for the probe's text, (P, V).
        rounded: the model's parameters by the names of lm/model.py as the number format of the
            export has them; None if it changes no bit.
    Returns:
        What was compared, and the largest difference.
    Raises:
        VerificationError: they differ by more than rounding.
    """
    probe = model.weights.probe
    assert probe.logits is not None
    expected = probe.logits
    if rounded is not None:
        module = model_of(model.config, model.vocab_size, rounded)
        expected = model_logits(module, probe, explicit=True)
    difference = float(np.abs(found - expected).max())
    if not difference <= probe.tolerance:
        raise VerificationError(
            "what was written computes other logits than the model: they differ by up to "
            f"{difference:.2g}, by rounding alone they would by {probe.tolerance:.1g}",
            hint=NOTHING_LEFT,
        )
    line = f"{found.size:,} logits differ by up to {difference:.1e} (limit {probe.tolerance:.0e})"
    if rounded is not None:
        moved = float(np.abs(found - probe.logits).max())
        line += f", and by {moved:.1e} from those of the f32 weights"
    return line


def compare_ids(model: ModelToExport, encode: Callable[[str], Sequence[int]]) -> str:
    """Compare the token ids of what was written with those of the model's tokenizer.

    Args:
        encode: what was written; without the end-of-text token that begins a document.
    Returns:
        How many ids were compared.
    Raises:
        VerificationError: some differ.
    """
    compared = 0
    tokenizer = model.tokenizer
    for text in example_texts(tokenizer):
        expected = tokenizer.encode(text)
        found = list(encode(text))
        if found != expected:
            raise VerificationError(
                f"what was written encodes {text[:40]!r} as {found[:8]}, the model's tokenizer as "
                f"{expected[:8]}",
                hint=NOTHING_LEFT,
            )
        compared += len(expected)
    return f"{compared:,} token ids are equal"


def example_texts(tokenizer: Tokenizer) -> list[str]:
    """Texts in which every entry of a tokenizer stands, and texts of random characters."""
    chance = random.Random(0)
    ids = list(range(tokenizer.vocab_size))
    chance.shuffle(ids)
    texts = [tokenizer.decode(ids[start::TEXTS]) for start in range(min(TEXTS, len(ids)))]
    for _ in range(TEXTS):
        texts.append("".join(chance.choices(CHARACTERS, k=chance.randrange(40))))
    return [text for text in texts if END_OF_TEXT not in text]
