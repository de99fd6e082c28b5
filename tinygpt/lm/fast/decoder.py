"""The choice between the decoder in numpy and the one in PyTorch."""

from tinygpt.config import ModelConfig
from tinygpt.lm.fast.numpy_decoder import NumpyDecoder, Weights
from tinygpt.lm.sampling import Decoder
from tinygpt.lm.weights import model_of

# Weights times sequences, above which the import of PyTorch is a small part of the wait
LARGE = 10**8


def decoder_for(
    config: ModelConfig, vocab_size: int, weights: Weights, device: str, max_sequences: int = 1
) -> Decoder:
    """The decoder for `runtime.device`: numpy's for a CPU, PyTorch's for a GPU.

    Args:
        config, vocab_size, weights, max_sequences: see NumpyDecoder.
        device: `runtime.device`; "auto" takes PyTorch's decoder only for much work.
    Raises:
        ConfigError: see choose_device.
        CorruptArtifactError: see NumpyDecoder.
    """
    size = sum(array.size for array in weights.values())
    if device == "cpu" or (device == "auto" and size * max_sequences < LARGE):
        return NumpyDecoder(config, vocab_size, weights, max_sequences=max_sequences)
    from tinygpt.lm.fast.model_decoder import ModelDecoder
    from tinygpt.lm.fast.precision import choose_device

    model = model_of(config, vocab_size, weights).to(choose_device(device))
    return ModelDecoder(model, max_sequences=max_sequences)
