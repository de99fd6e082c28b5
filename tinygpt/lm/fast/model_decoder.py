"""The decoders in PyTorch: for GPUs, for work worth all cores, and for a changed lm/model.py."""

import numpy as np
import torch

from tinygpt.lm.fast.kv_cache import KVCache
from tinygpt.lm.model import GPT, ForwardOptions
from tinygpt.lm.sampling import Decoder
from tinygpt.lm.weights import Array


class ModelDecoder(Decoder):
    """lm/model.py with a KV cache, on any device.

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
        if self.model.explicit:
            logits = self.model(ids, cache=self.cache)[:, -1]  # (B, V)
        else:
            hidden = self.model.hidden(ids, ForwardOptions(cache=self.cache))  # (B, T, C)
            logits = self.model.lm_head(hidden[:, -1])
        return logits.cpu().numpy()  # type: ignore[no-any-return]


class RereadingDecoder(Decoder):
    """lm/model.py on the whole text for each token, for changes with which a cache does not work.

    Args:
        model, max_sequences: see ModelDecoder.
    """

    def __init__(self, model: GPT, *, max_sequences: int = 1) -> None:
        self.model = model
        self.device = model.token_embedding.weight.device
        self.name = f"torch, {self.device.type}, without a cache"
        context = model.config.context_length
        self.token_ids = np.empty((max_sequences, context), np.int64)
        # In the place of keys and values, so that `reorder` moves the texts
        super().__init__(context, self.token_ids[None], np.empty((1, max_sequences, 0)))

    @torch.inference_mode()
    def _forward(self, token_ids: Array) -> Array:
        B, T = token_ids.shape
        self.token_ids[:B, self.length : self.length + T] = token_ids
        text = torch.tensor(self.token_ids[:B, : self.length + T], device=self.device)
        return self.model(text)[:, -1].cpu().numpy()  # type: ignore[no-any-return]
