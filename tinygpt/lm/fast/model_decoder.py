"""The decoder in PyTorch, lm/model.py with a KV cache: for GPUs, and for work worth all cores."""

import torch

from tinygpt.lm.fast.kv_cache import KVCache
from tinygpt.lm.model import GPT, ForwardOptions
from tinygpt.lm.sampling import Decoder
from tinygpt.lm.weights import Array


class ModelDecoder(Decoder):
    """A decoder for any device.

    Args:
        model: on the device where it is to run.
        max_sequences: the most sequences read side by side, B.
    """

    def __init__(self, model: GPT, *, max_sequences: int = 1) -> None:
        self.model = model
        self.device = model.token_embedding.weight.device
        self.name = f"torch, {self.device.type}"
        self.cache = KVCache(model.config, max_sequences, self.device)
        super().__init__(model.config.context_length, self.cache.keys, self.cache.values)

    @torch.inference_mode()
    def _forward(self, token_ids: Array) -> Array:
        self.cache.length = self.length
        ids = torch.tensor(token_ids.tolist(), device=self.device)
        hidden = self.model.hidden(ids, ForwardOptions(cache=self.cache))  # (B, T, C)
        return self.model.lm_head(hidden[:, -1]).cpu().numpy()  # type: ignore[no-any-return]
