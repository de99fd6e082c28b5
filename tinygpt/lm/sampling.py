"""From logits to text: a ladder of small functions, and the loop that climbs it for each token.

    logits -> softmax (with temperature) -> top_k -> top_p -> min_p -> draw -> token

A filter takes probabilities (V,) and returns the ids of the tokens that stay, in ascending order;
the next one sees only these, renormalized. Nothing here is cached or fused: what reads the text and
gives the logits is a Decoder. Ties go to the lowest token id, and chance is an argument: the same
seed generates the same text.
"""

import codecs
import hashlib
import math
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from tinygpt.config import SampleConfig
from tinygpt.lm.weights import Array

StopReason = Literal["end_of_text", "stop", "length", "context"]

PREFILL = 256  # positions read at once: bounds the (T, S) attention scores of a long prompt


class Decoder:
    """What `generate` needs of a model: it reads token ids and predicts the next, with a KV cache.

    The implementations are NumpyDecoder and ModelDecoder in lm/fast.

    Args:
        context_length: the most positions it can read.
        keys, values: the cache; axis 1 is the sequence, of which there are at most B.

    Attributes:
        length: positions read so far.
        name: what computes, e.g., "numpy".
    """

    name: str

    def __init__(self, context_length: int, keys: Any, values: Any) -> None:
        self.context_length = context_length
        self.keys = keys
        self.values = values
        self.length = 0

    def prefill(self, token_ids: Sequence[Sequence[int]]) -> Array:
        """Forget everything, then read (B, T) token ids.

        Returns:
            Logits of the token after the last, (B, V).
        Raises:
            ValueError: T is 0 or exceeds context_length, or B exceeds what there is room for.
        """
        ids = np.asarray(token_ids)
        most = self.keys.shape[1]
        if not ids.size or len(ids) > most:
            raise ValueError(
                f"cannot read {len(ids)} sequences; needs 1 to {most}, of at least one token"
            )
        self.length = 0
        for first in range(0, ids.shape[1], PREFILL):
            logits = self.decode(ids[:, first : first + PREFILL])
        return logits

    def decode(self, token_ids: Array) -> Array:
        """Read (B, T) more token ids.

        Returns:
            Logits of the token after the last, (B, V).
        Raises:
            ValueError: more than context_length positions.
        """
        length = self.length + token_ids.shape[1]
        if length > self.context_length:
            raise ValueError(f"{length} tokens exceed the context of {self.context_length}")
        logits = self._forward(token_ids)
        self.length = length
        return logits

    def _forward(self, token_ids: Array) -> Array:
        raise NotImplementedError

    def reorder(self, rows: Sequence[int]) -> None:
        """Go on with these of the sequences, in this order; a row named twice is copied."""
        moved = [new for new, old in enumerate(rows) if new != old]
        if moved:
            sources = [rows[new] for new in moved]
            self.keys[:, moved] = self.keys[:, sources]
            self.values[:, moved] = self.values[:, sources]


def softmax(logits: Array, temperature: float = 1.0) -> Array:
    """Probabilities (..., V) in proportion to exp(logit / temperature).

    A temperature below 1 favors likely tokens, one above 1 unlikely ones.
    """
    weights: Array = logits - logits.max(axis=-1, keepdims=True)  # exponents <= 0 do not overflow
    weights /= max(temperature, 1e-30)  # a smaller one would be 0 in float32
    np.exp(weights, out=weights)
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights


def top_k(probabilities: Array, k: int) -> Array:
    """The k likeliest tokens (Fan et al. 2018)."""
    count = min(k, probabilities.size)
    least = np.partition(probabilities, -count)[-count]
    return _likeliest(probabilities, np.flatnonzero(probabilities >= least), count, least)


def top_p(probabilities: Array, mass: float) -> Array:
    """The fewest tokens whose probabilities sum to at least `mass` (Holtzman et al. 2020)."""
    for floor in ((1 - mass) / 256, 0):  # usually few tokens matter, and sorting all is slow
        candidates = (probabilities > np.float32(floor)).nonzero()[0]
        descending = np.sort(probabilities[candidates])[::-1]
        cumulative = descending.cumsum(dtype=np.float64)
        if cumulative.size and cumulative[-1] >= mass:
            break
    count = min(int(cumulative.searchsorted(mass)) + 1, candidates.size)
    return _likeliest(probabilities, candidates, count, descending[count - 1])


def min_p(probabilities: Array, share: float) -> Array:
    """The tokens at least `share` times as likely as the likeliest (Nguyen et al. 2024)."""
    return np.flatnonzero(probabilities >= np.float32(share) * probabilities.max())


def _likeliest(probabilities: Array, candidates: Array, count: int, least: float) -> Array:
    """The `count` likeliest candidates, the last of which has probability `least`.

    Of equally likely ones those with the lowest ids.
    """
    kept = candidates[probabilities[candidates] >= least]
    surplus = kept.size - count
    if surplus:
        kept = np.delete(kept, np.flatnonzero(probabilities[kept] == least)[-surplus:])
    return kept


def draw(probabilities: Array, uniform: float) -> int:
    """The token at which the running sum of the probabilities passes `uniform`, in [0, 1)."""
    possible = (probabilities > 0).nonzero()[0]
    cumulative = probabilities[possible].cumsum(dtype=np.float64)
    passed = cumulative[:-1].searchsorted(uniform * cumulative[-1], side="right")
    return int(possible[passed])


def uniform(seed: int, sample: int, position: int) -> float:
    """The random number in [0, 1) of one token: a hash of its place.

    So no other token and no other sample affects it.
    """
    place = struct.pack("<QQQ", seed, sample, position)
    digest = hashlib.blake2b(place, digest_size=8).digest()
    return float(int.from_bytes(digest, "little") >> 11) * 2.0**-53


def choose(logits: Array, config: SampleConfig, chances: Sequence[float]) -> list[int]:
    """The whole ladder: logits (B, V) and a number in [0, 1) for each row to B token ids."""
    if config.temperature == 0:
        return logits.argmax(axis=1).tolist()  # type: ignore[no-any-return]
    rows = zip(softmax(logits, config.temperature), chances, strict=True)
    return [_filter_and_draw(probabilities, config, chance) for probabilities, chance in rows]


def _filter_and_draw(probabilities: Array, config: SampleConfig, chance: float) -> int:
    """The rungs behind softmax, for one row."""
    token_ids: Array | None = None  # all
    for filter_ in (top_k, top_p, min_p):
        setting = getattr(config, filter_.__name__)
        if setting is not None:
            kept = filter_(probabilities, setting)
            token_ids = kept if token_ids is None else token_ids[kept]
            probabilities = probabilities[kept]
            probabilities /= probabilities.sum()
    drawn = draw(probabilities, chance)
    return drawn if token_ids is None else int(token_ids[drawn])


def log_probabilities(logits: Array, token_ids: Sequence[int]) -> list[float]:
    """The log-probability [nats] of one token in each row of (B, V).

    It is the model's own: at temperature 1, with every token allowed.
    """
    shifted = logits - logits.max(axis=1, keepdims=True)
    chosen = shifted[range(len(token_ids)), token_ids]
    totals = np.exp(shifted, out=shifted).sum(axis=1)
    return [float(logit) - math.log(total) for logit, total in zip(chosen, totals, strict=True)]


class NewToken(NamedTuple):
    """One token that `generate` chose.

    Args:
        sample: number of the sample.
        token_id: the token.
        logprob: see log_probabilities.
        text: what may be shown now: whole characters, nothing that may still become a stop text.
        stop_reason: of the last token of a sample; None before.
    """

    sample: int
    token_id: int
    logprob: float
    text: str
    stop_reason: StopReason | None


@dataclass
class _Sample:
    """A sample that is being generated."""

    number: int
    text: "TextStream"
    token_ids: list[int] = field(default_factory=list)


def generate(
    decoder: Decoder,
    prompt: Sequence[int],
    config: SampleConfig,
    *,
    token_bytes: Callable[[int], bytes],
    end_of_text: int,
    samples: Sequence[int] = (0,),
) -> Iterator[NewToken]:
    """Continue a prompt, several samples side by side, token by token.

    A sample ends with the end-of-text token ("end_of_text"; with ignore_eos, that token is a blank
    line in the text), before a stop text ("stop"), after max_new_tokens ("length"), or, with
    overflow "stop", where the context is full ("context"). With "slide" the model then reads the
    newer half of the context again and goes on. A sample depends on (prompt, config, its number).

    Args:
        decoder: the model.
        prompt: token ids, at least one; only the last context_length are read.
        config: how to choose; `seed` must be set.
        token_bytes: the bytes of a token; none for the end-of-text token.
        end_of_text: the token that ends a text.
        samples: their numbers; at most as many as the decoder holds.
    Yields:
        One NewToken per token and sample.
    Raises:
        ValueError: the seed is None.
    """
    seed = config.seed
    if seed is None:
        raise ValueError("sample.seed is None; chance must be given")
    prompt = list(prompt[-decoder.context_length :])
    between_texts = b"\n\n" if config.ignore_eos else b""
    running = [_Sample(number, TextStream(config.stop)) for number in samples]

    # 1. Prefill: read the prompt once, for all samples
    logits = np.repeat(decoder.prefill([prompt]), len(running), axis=0)  # (B, V)
    decoder.reorder([0] * len(running))
    while running:
        # 2. Choose a token for each sample
        chances = [uniform(seed, sample.number, len(sample.token_ids)) for sample in running]
        token_ids = choose(logits, config, chances)
        logprobs = log_probabilities(logits, token_ids)

        # 3. Emit it, with the text that it completes
        full = decoder.length == decoder.context_length
        finished = []
        for row in reversed(range(len(running))):
            sample = running[row]
            sample.token_ids.append(token_ids[row])
            reason = _stop_reason(sample.token_ids, config, end_of_text, full=full)
            data = token_bytes(token_ids[row]) or between_texts
            text = sample.text.push(data, final=reason is not None)
            if sample.text.stopped:
                reason = "stop"
            yield NewToken(sample.number, token_ids[row], logprobs[row], text, reason)
            if reason is not None:
                finished.append(row)

        # 4. Drop the finished samples
        rows = _without(len(running), finished)
        running = [running[row] for row in rows]
        decoder.reorder(rows)

        # 5. Decode: read the chosen tokens
        if running:
            most = decoder.context_length
            texts = [prompt + sample.token_ids[-most:] for sample in running]
            logits = _read_on(decoder, texts)


def _without(count: int, finished: Sequence[int]) -> list[int]:
    """The rows that go on, 0 to count - 1 without those finished, which come in descending order.

    The last row takes the place of a finished one, so that one row moves and not all behind it.
    """
    rows = list(range(count))
    for row in finished:
        rows[row] = rows[-1]
        rows.pop()
    return rows


def _stop_reason(
    token_ids: Sequence[int], config: SampleConfig, end_of_text: int, *, full: bool
) -> StopReason | None:
    """Why a sample ends with its newest token, if it does.

    Args:
        full: the newest token is the first beyond the context.
    """
    if token_ids[-1] == end_of_text and not config.ignore_eos:
        return "end_of_text"
    if len(token_ids) == config.max_new_tokens:
        return "length"
    return "context" if full and config.overflow == "stop" else None


def _read_on(decoder: Decoder, texts: Sequence[list[int]]) -> Array:
    """Read the last token of each text; the tokens before it are in the cache.

    If the context is full, read its newer half again.
    """
    if decoder.length == decoder.context_length:
        half = decoder.context_length // 2
        return decoder.prefill([text[-half:] for text in texts])
    return decoder.decode(np.array([text[-1:] for text in texts]))


class XRay(NamedTuple):
    """How sure the model was of a token, at temperature 1 and with every token allowed.

    Args:
        token_id: the token.
        probability: that the model gave it.
        entropy: of the whole distribution [bits].
        alternatives: the likeliest other tokens with their probabilities.
    """

    token_id: int
    probability: float
    entropy: float
    alternatives: list[tuple[int, float]]


def xray(
    decoder: Decoder, prompt: Sequence[int], token_ids: Sequence[int], alternatives: int = 3
) -> Iterator[XRay]:
    """Re-score generated text with the same context windows that `generate` used."""
    text = list(prompt[-decoder.context_length :])
    logits = decoder.prefill([text])
    for token_id in token_ids:
        probabilities = softmax(logits[0].astype(np.float64))
        possible = probabilities[probabilities > 0]
        entropy = float(possible.dot(np.log2(1 / possible)))
        likeliest = top_k(probabilities, alternatives + 1)
        ordered = likeliest[np.argsort(-probabilities[likeliest], kind="stable")].tolist()
        others = [(other, float(probabilities[other])) for other in ordered if other != token_id]
        yield XRay(token_id, float(probabilities[token_id]), entropy, others[:alternatives])
        text.append(token_id)
        logits = _read_on(decoder, [text])


class TextStream:
    """Bytes of tokens in, text out that will not have to be taken back.

    Args:
        stops: texts that end the stream; of several, the one that is complete first.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self.stops = stops
        self.stopped = False
        self._held = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, data: bytes, *, final: bool = False) -> str:
        """Add the bytes of a token, and return the text that may be shown now.

        Incomplete characters are held back, and so is what may become a stop text, unless `final`.
        """
        text = self._held + self._decoder.decode(data, final)
        starts = [(text.find(stop), stop) for stop in self.stops]
        found = [(at + len(stop), at) for at, stop in starts if at >= 0]
        if found:
            self.stopped = True
            _, at = min(found)
            return text[:at]
        hold = 0 if final else max((_overlap(text, stop) for stop in self.stops), default=0)
        settled = len(text) - hold
        self._held = text[settled:]
        return text[:settled]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
