"""The choice among the decoders: the fastest that computes what the model computed in training."""

from collections.abc import Callable

import numpy as np

from tinygpt.config import ModelConfig
from tinygpt.errors import CorruptArtifactError
from tinygpt.lm.fast.numpy_decoder import NumpyDecoder, Weights
from tinygpt.lm.probe import Probe, decoder_logits, model_logits
from tinygpt.lm.sampling import Decoder
from tinygpt.lm.weights import model_of

# Weights times sequences, above which the import of PyTorch is a small part of the wait
LARGE = 10**8


def decoder_for(
    config: ModelConfig,
    vocab_size: int,
    weights: Weights,
    device: str,
    max_sequences: int = 1,
    *,
    probe: Probe,
    note: Callable[[str], None] = lambda text: None,
) -> Decoder:
    """The fastest decoder that gives the logits of the probe.

    For `runtime.device` = cpu that is numpy's if it does, for a GPU PyTorch's.

    Args:
        config, vocab_size, weights, max_sequences: see NumpyDecoder.
        device: `runtime.device`; "auto" takes PyTorch's decoder only for much work.
        probe: what the model computed when it was trained.
        note: receives a line where numpy's decoder is not used because its logits differ.
    Raises:
        ConfigError: see choose_device.
        CorruptArtifactError: see NumpyDecoder, or logits are not finite.
        ArtifactError: the code in lm/ computes other logits than those of the probe.
    """
    size = sum(array.size for array in weights.values())
    if device != "cpu" and (device != "auto" or size * max_sequences >= LARGE):
        return _torch_decoder(config, vocab_size, weights, device, max_sequences, probe)
    in_numpy = _numpy_decoder(config, vocab_size, weights, max_sequences, probe)
    if in_numpy is not None:
        return in_numpy
    decoder = _torch_decoder(config, vocab_size, weights, device, max_sequences, probe)
    note(f"the decoder in numpy computes other logits than this model; using {decoder.name}")
    return decoder


def _numpy_decoder(
    config: ModelConfig, vocab_size: int, weights: Weights, max_sequences: int, probe: Probe
) -> NumpyDecoder | None:
    """The decoder in numpy, if it gives the logits of the probe."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            decoder = NumpyDecoder(config, vocab_size, weights, max_sequences=max_sequences)
            agrees = probe.agrees(decoder_logits(decoder, probe))
    except CorruptArtifactError:  # a changed lm/model.py may have other parameters
        return None
    return decoder if agrees else None


def _torch_decoder(
    config: ModelConfig,
    vocab_size: int,
    weights: Weights,
    device: str,
    max_sequences: int,
    probe: Probe,
) -> Decoder:
    """A decoder in PyTorch: with lm/fast, else as lm/model.py spells it out, else uncached."""
    from tinygpt.lm.fast.model_decoder import ModelDecoder, RereadingDecoder
    from tinygpt.lm.fast.precision import choose_device

    model = model_of(config, vocab_size, weights)
    for explicit in (False, True):
        model.explicit = explicit
        if probe.agrees(decoder_logits(ModelDecoder(model), probe)):
            return ModelDecoder(model.to(choose_device(device)), max_sequences=max_sequences)
    spelled_out = model_logits(model, probe, explicit=True)
    if not probe.agrees(spelled_out):
        raise probe.error(spelled_out)
    return RereadingDecoder(model.to(choose_device(device)), max_sequences=max_sequences)
