"""Keys and values of earlier positions, so that a new token costs one position and not all."""

import torch
from torch import Tensor

from tinygpt.config import ModelConfig


class KVCache:
    """Keys and values of every layer (Shazeer 2019, §2.4.1); B, H, S, D as in lm/model.py.

    Args:
        config: the model's shape.
        max_sequences: the most sequences it holds side by side.
        device: where the model is.

    Attributes:
        keys, values: (n_layers, max_sequences, H, context_length, D).
        length: positions held.
    """

    def __init__(
        self, config: ModelConfig, max_sequences: int = 1, device: torch.device | str = "cpu"
    ) -> None:
        d_head = config.d_model // config.n_heads
        shape = (config.n_layers, max_sequences, config.n_heads, config.context_length, d_head)
        self.keys = torch.empty(shape, device=device)
        self.values = torch.empty(shape, device=device)
        self.length = 0

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append a layer's keys and values of new positions.

        `length` does not change; GPT.hidden increases it after the last layer.

        Args:
            layer: index of the block.
            keys, values: of the new positions, (B, H, T, D).
        Returns:
            Keys and values of all positions, (B, H, S, D); views.
        """
        B, _, T, _ = keys.shape
        end = self.length + T
        all_keys = self.keys[layer, :B, :, :end]
        all_values = self.values[layer, :B, :, :end]
        all_keys[:, :, self.length :] = keys
        all_values[:, :, self.length :] = values
        return all_keys, all_values
