"""What a model computed when it was trained: whoever reads it checks that it still does.

Code may change after a model was trained, and much of the model's code is written twice: lm/fast
repeats lm/model.py, in PyTorch and in numpy. A probe is a text of random tokens with the logits
that lm/model.py gave for it, in fp32 on a CPU. Reading one does not need torch; making one does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import safetensors.numpy

from tinygpt.config import ModelConfig
from tinygpt.errors import ArtifactError, CorruptArtifactError, DivergedError
from tinygpt.lm.sampling import Decoder, uniform
from tinygpt.lm.weights import Array, model_of, read_arrays

if TYPE_CHECKING:
    from tinygpt.lm.model import GPT

LENGTH = 256  # tokens at most: 11 ms in numpy for the reference model
POSITIONS = 3  # the last ones, whose logits are compared
# Times the change that one unit in the last place of every weight makes. Decoders and fast forms
# differed by up to 2.5 times that change, the smallest edits (LayerNorm's epsilon from 1e-5 to
# 1e-6, GELU's exact form) by over 260 times.
MARGIN = 32
LARGEST_LOGIT = 1e4  # of weights worth keeping: those of models that have learned are below 100


@dataclass(frozen=True)
class Probe:
    """A text and the logits after its last positions; P positions, V vocabulary.

    Args:
        token_ids: of the text.
        logits: (P, V); None if they are unknown, and any below LARGEST_LOGIT will do.
        tolerance: by how much logits of the same model may differ from these.
    """

    token_ids: Sequence[int]
    logits: Array | None = None
    tolerance: float = 0.0

    @property
    def positions(self) -> int:
        """P, how many of the last positions are compared."""
        return min(POSITIONS, len(self.token_ids))

    def agrees(self, found: Array) -> bool:
        """Whether logits, (P, V), are those of the probe; NaN and infinity never are."""
        if self.logits is None:
            return bool(np.abs(found).max() < LARGEST_LOGIT)
        with np.errstate(invalid="ignore"):
            return bool(np.abs(found - self.logits).max() <= self.tolerance)

    def error(self, found: Array) -> ArtifactError:
        """What to raise for logits, (P, V), that lm/model.py gives and that do not agree."""
        if not np.abs(found).max() < LARGEST_LOGIT:
            return CorruptArtifactError(
                f"the model's weights give logits {_size(np.abs(found).max())}",
                hint="train it again, with a lower `train.learning_rate` if the loss had grown",
            )
        assert self.logits is not None
        largest = np.abs(found - self.logits).max()
        return ArtifactError(
            "the code in `tinygpt/lm/` computes other logits than when the model was trained: they "
            f"differ by up to {largest:.2g}, by rounding alone they would by {self.tolerance:.1g}",
            hint="`tinygpt train --force` trains the model with the code as it is now",
        )


def _size(largest: float) -> str:
    return f"up to {largest:.2g}" if np.isfinite(largest) else "that are not finite"


def random_text(vocab_size: int, context_length: int, end_of_text: int, seed: int) -> Probe:
    """A probe without logits: random tokens, with the end of a document in the middle."""
    length = min(LENGTH, context_length)
    token_ids = [int(uniform(seed, 0, position) * vocab_size) for position in range(length)]
    token_ids[0] = token_ids[length // 2] = end_of_text
    return Probe(token_ids)


def decoder_logits(decoder: Decoder, probe: Probe) -> Array:
    """The logits of a decoder for a probe, (P, V); the first row is prefilled, others decoded."""
    prefilled = len(probe.token_ids) - probe.positions + 1
    logits = [decoder.prefill([probe.token_ids[:prefilled]])]
    for token_id in probe.token_ids[prefilled:]:
        logits.append(decoder.decode(np.array([[token_id]])))
    return np.concatenate(logits)


def model_logits(model: "GPT", probe: Probe, *, explicit: bool) -> Array:
    """The logits of a model for a probe, (P, V).

    Args:
        model: on the CPU.
        probe: its text.
        explicit: as lm/model.py spells them out; False for the way of evaluation and sampling.
    """
    import torch

    token_ids = torch.tensor([probe.token_ids])
    with torch.inference_mode():
        if explicit:
            logits = model(token_ids, explicit=True)[0, -probe.positions :]
        else:
            logits = model.lm_head(model.hidden(token_ids)[0, -probe.positions :])
    return logits.numpy()  # type: ignore[no-any-return]


def check_model(model: "GPT", probe: Probe) -> None:
    """Check a model on the CPU; where lm/fast alone computes something else, it is not used.

    Raises:
        ArtifactError: lm/model.py computes other logits than those of the probe.
        CorruptArtifactError: its logits are not finite, or beyond LARGEST_LOGIT.
    """
    spelled_out = model_logits(model, probe, explicit=True)
    if not probe.agrees(spelled_out):
        raise probe.error(spelled_out)
    model.explicit = not probe.agrees(model_logits(model, probe, explicit=False))


def measure(
    config: ModelConfig, vocab_size: int, arrays: Mapping[str, Array], text: Probe
) -> Probe:
    """The probe of a model: the logits of lm/model.py, and how far rounding can move them.

    The latter is measured by moving each weight to a neighboring number.

    Args:
        config, vocab_size, arrays: the model.
        text: the tokens to read.
    Raises:
        DivergedError: a logit is not finite, or beyond LARGEST_LOGIT.
    """
    model = model_of(config, vocab_size, arrays)
    logits = model_logits(model, text, explicit=True)
    chance = np.random.default_rng(0)
    for parameter in model.parameters():
        values = parameter.detach().numpy()
        directions = chance.choice(np.array([-np.inf, np.inf], np.float32), values.shape)
        np.nextafter(values, directions, out=values)
    with np.errstate(invalid="ignore"):
        change = np.abs(model_logits(model, text, explicit=True) - logits).max()
    largest = np.abs(logits).max() + change
    if not largest < LARGEST_LOGIT:
        raise DivergedError(
            f"training diverged: the weights give logits {_size(largest)}",
            hint="lower `train.learning_rate`, or lengthen the warm-up",
        )
    return replace(text, logits=logits, tolerance=MARGIN * float(change))


def to_bytes(probes: Mapping[str, Probe]) -> bytes:
    """Probes of one text, by the name of their weights, as safetensors."""
    arrays = {}
    for name, probe in probes.items():
        assert probe.logits is not None
        arrays["token_ids"] = np.array(probe.token_ids)
        arrays[f"{name}.logits"] = probe.logits
        arrays[f"{name}.tolerance"] = np.array([probe.tolerance], np.float32)
    return safetensors.numpy.save(arrays)


def from_bytes(data: bytes, name: str, vocab_size: int, context_length: int) -> Probe:
    """The probe of the weights of that name.

    Raises:
        CorruptArtifactError: these are not the bytes of a probe, or it is one of another model.
    """
    arrays = read_arrays(data)
    try:
        token_ids, logits = arrays["token_ids"], arrays[f"{name}.logits"]
        (tolerance,) = arrays[f"{name}.tolerance"].tolist()
        probe = Probe(token_ids.tolist(), logits, tolerance)
        fits = token_ids.dtype == np.int64 and 0 < token_ids.size <= context_length
        fits = fits and set(probe.token_ids) <= set(range(vocab_size))
        if not (fits and logits.shape == (probe.positions, vocab_size)):
            raise ValueError(f"{token_ids.size} tokens, logits {logits.shape}")
    except (KeyError, ValueError, TypeError) as error:
        raise CorruptArtifactError(f"not a probe of this model: {error}") from error
    return probe
