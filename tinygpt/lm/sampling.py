"""From logits to a story: a ladder of small functions, and the loop that climbs it for each token.

    logits -> softmax (with temperature) -> probabilities -> top_k -> top_p -> min_p -> draw -> token

A filter takes probabilities (V,) and says which tokens stay, by their ids in order; the next one sees only these, their sum 1
again. Nothing here is cached or fused; what reads the text and gives the logits is lm/decoder.py. Ties go to the lowest token id,
and chance is an argument: the same seed tells the same story.
"""

import codecs
import hashlib
import math
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from tinygpt.config import SampleConfig
from tinygpt.lm.decoder import Array, Decoder

StopReason = Literal["end_of_story", "stop", "length", "context"]


def softmax(logits: Array, temperature: float = 1.0) -> Array:
    """Probabilities (..., V) in proportion to exp(logit / temperature): below 1 the likely gain, above 1 the unlikely."""
    weights: Array = logits - logits.max(axis=-1, keepdims=True)  # no exponent above 0, so nothing overflows
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
    for floor in ((1 - mass) / 256, 0):  # the fewest are few as a rule, and to sort all is slow
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
    """The `count` likeliest candidates, the last of which has probability `least`; of equal ones the lowest ids."""
    kept = candidates[probabilities[candidates] >= least]
    if surplus := kept.size - count:
        kept = np.delete(kept, np.flatnonzero(probabilities[kept] == least)[-surplus:])
    return kept


def draw(probabilities: Array, uniform: float) -> int:
    """The token at which the running sum of the probabilities passes `uniform`, a number in [0, 1)."""
    possible = (probabilities > 0).nonzero()[0]
    cumulative = probabilities[possible].cumsum(dtype=np.float64)
    return int(possible[cumulative[:-1].searchsorted(uniform * cumulative[-1], side="right")])


def uniform(seed: int, sample: int, position: int) -> float:
    """The random number in [0, 1) of one token: a hash of its place, so that no other token or story has a say in it."""
    digest = hashlib.blake2b(struct.pack("<QQQ", seed, sample, position), digest_size=8).digest()
    return float(int.from_bytes(digest, "little") >> 11) * 2.0**-53


def choose(logits: Array, config: SampleConfig, chances: Sequence[float]) -> list[int]:
    """The whole ladder: logits (B, V) and a number in [0, 1) for each row to a token id for each row."""
    if config.temperature == 0:
        return logits.argmax(axis=1).tolist()  # type: ignore[no-any-return]
    rows = zip(softmax(logits, config.temperature), chances, strict=True)
    return [_filter_and_draw(probabilities, config, chance) for probabilities, chance in rows]


def _filter_and_draw(probabilities: Array, config: SampleConfig, chance: float) -> int:
    """The rungs behind softmax, for one row."""
    token_ids: Array | None = None  # all
    for filter_ in (top_k, top_p, min_p):
        if (setting := getattr(config, filter_.__name__)) is not None:
            kept = filter_(probabilities, setting)
            token_ids = kept if token_ids is None else token_ids[kept]
            probabilities = probabilities[kept]
            probabilities /= probabilities.sum()
    drawn = draw(probabilities, chance)
    return drawn if token_ids is None else int(token_ids[drawn])


def log_probabilities(logits: Array, token_ids: Sequence[int]) -> list[float]:
    """What the model itself, at temperature 1 and with every token allowed, gives the one token of each row (B, V) [nats]."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    chosen = shifted[range(len(token_ids)), token_ids]
    totals = np.exp(shifted, out=shifted).sum(axis=1)
    return [float(logit) - math.log(total) for logit, total in zip(chosen, totals, strict=True)]


class NewToken(NamedTuple):
    """What `generate` tells about each token."""

    sample: int
    token_id: int
    logprob: float  # log_probabilities
    text: str  # what may be shown now: whole characters, nothing that may still turn out to be a stop text
    stop_reason: StopReason | None  # of the story's last token; None before


def generate(
    reader: Decoder,
    prompt: Sequence[int],
    config: SampleConfig,
    *,
    token_bytes: Callable[[int], bytes],
    end_of_story: int,
    samples: Sequence[int] = (0,),
) -> Iterator[NewToken]:
    """Tell stories side by side, token by token.

    A story ends with the end-of-story token ("end_of_story"), with a stop text ("stop"; the text goes up to it), after
    max_new_tokens ("length"), or, with overflow "stop", where the context is full ("context"). With "slide" the model then reads
    the newest half of the context again and goes on. A story depends on (prompt, config, its number), not on those beside it.

    Args:
        reader: the model.
        prompt: token ids, at least one; only the last context_length are read.
        config: how to choose; `seed` must be set.
        token_bytes: the bytes of a token; none for the end-of-story token.
        end_of_story: the token that ends a story.
        samples: numbers of the stories to tell; at most as many as the reader holds.
    Yields:
        One NewToken per token and story.
    Raises:
        ValueError: the seed is None.
    """
    if (seed := config.seed) is None:
        raise ValueError("sample.seed is None; chance must be given")
    prompt = list(prompt[-reader.context_length :])
    stories = [(sample, list[int](), TextStream(config.stop)) for sample in samples]
    logits = np.repeat(reader.start([prompt]), len(stories), axis=0)  # (B, V)
    reader.keep([0] * len(stories))
    while stories:
        rows = list(range(len(stories)))
        token_ids = choose(logits, config, [uniform(seed, sample, len(told)) for sample, told, _ in stories])
        logprobs = log_probabilities(logits, token_ids)
        for row in reversed(rows):
            sample, told, stream = stories[row]
            told.append(token_ids[row])
            reason = _stop_reason(told, config, end_of_story, full=reader.length == reader.context_length)
            text = stream.push(token_bytes(token_ids[row]), final=reason is not None)
            reason = "stop" if stream.stopped else reason
            yield NewToken(sample, token_ids[row], logprobs[row], text, reason)
            if reason is not None:  # the last row takes its place, so that one row moves and not all behind it
                rows[row] = rows[-1]
                rows.pop()
        stories = [stories[row] for row in rows]
        reader.keep(rows)
        if stories:
            logits = _read_on(reader, [prompt + told[-reader.context_length :] for _, told, _ in stories])


def _stop_reason(token_ids: Sequence[int], config: SampleConfig, end_of_story: int, *, full: bool) -> StopReason | None:
    """Why a story ends with the newest of its tokens, if it does; `full` says that this is the first beyond the context."""
    if token_ids[-1] == end_of_story:
        return "end_of_story"
    if len(token_ids) == config.max_new_tokens:
        return "length"
    return "context" if full and config.overflow == "stop" else None


def _read_on(reader: Decoder, texts: Sequence[list[int]]) -> Array:
    """Read the last token of each text, where all before it is read; with the context full, read the newest half again."""
    if reader.length == reader.context_length:
        return reader.start([text[-(reader.context_length // 2) :] for text in texts])
    return reader.read(np.array([text[-1:] for text in texts]))


class XRay(NamedTuple):
    """How sure the model was of a token, at temperature 1 and with every token allowed."""

    token_id: int
    probability: float
    entropy: float  # of the whole distribution [bits]
    alternatives: list[tuple[int, float]]  # the likeliest other tokens with their probabilities


def xray(reader: Decoder, prompt: Sequence[int], token_ids: Sequence[int], alternatives: int = 3) -> Iterator[XRay]:
    """Read a story again as `generate` read it while it told it, and say of each token how sure the model was."""
    text = list(prompt[-reader.context_length :])
    logits = reader.start([text])
    for token_id in token_ids:
        probabilities = softmax(logits[0].astype(np.float64))
        possible = probabilities[probabilities > 0]
        likeliest = top_k(probabilities, alternatives + 1)
        ordered = likeliest[np.argsort(-probabilities[likeliest], kind="stable")].tolist()
        others = [(other, float(probabilities[other])) for other in ordered if other != token_id][:alternatives]
        yield XRay(token_id, float(probabilities[token_id]), float(possible.dot(np.log2(1 / possible))), others)
        text.append(token_id)
        logits = _read_on(reader, [text])


class TextStream:
    """Bytes of tokens in, text out that will not have to be taken back.

    Args:
        stops: texts that end the stream; of several, the one that is complete first.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self.stops, self.stopped, self._held = stops, False, ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, data: bytes, *, final: bool = False) -> str:
        """Text that these bytes settle: no half character, no beginning of a stop text unless this is the end."""
        text = self._held + self._decoder.decode(data, final)
        if found := [(at + len(stop), at) for stop in self.stops if (at := text.find(stop)) >= 0]:
            self.stopped = True
            return text[: min(found)[1]]
        hold = 0 if final else max((_overlap(text, stop) for stop in self.stops), default=0)
        self._held = text[len(text) - hold :]
        return text[: len(text) - hold]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
