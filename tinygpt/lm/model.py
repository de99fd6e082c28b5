"""A GPT: embeddings, blocks of attention and feed-forward, and a matrix back to the vocabulary.

The decoder of "Attention Is All You Need" (Vaswani et al. 2017) in the form of GPT-2 (Radford et
al. 2019). Shapes: B batch, T time, C = d_model, H heads, D = C / H, V vocabulary; S is T plus the
positions that a KV cache holds.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinygpt.config import ModelConfig
from tinygpt.lm.fast.attention import causal_attention
from tinygpt.lm.fast.dropout import DropoutKey, DropoutSite, dropout
from tinygpt.lm.fast.feed_forward import feed_forward
from tinygpt.lm.fast.kv_cache import KVCache


class ForwardOptions(NamedTuple):
    """The options of GPT.forward, as it passes them to its blocks."""

    dropout_key: DropoutKey | None = None
    cache: KVCache | None = None
    attention: list[Tensor] | None = None
    explicit: bool = False


DEFAULT_OPTIONS = ForwardOptions()


class CausalSelfAttention(nn.Module):
    """Causal multi-head self-attention (Vaswani et al. 2017, §3.2.2)."""

    causal: Tensor

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.p = config.dropout
        self.layer = layer
        self.qkv = nn.Linear(config.d_model, 3 * config.d_model)
        self.out = nn.Linear(config.d_model, config.d_model)
        ones = torch.ones(config.context_length, config.context_length, dtype=torch.bool)
        self.register_buffer("causal", ones.tril(), persistent=False)

    def forward(self, x: Tensor, options: ForwardOptions = DEFAULT_OPTIONS) -> Tensor:
        """Mix each position with those before it, (B, T, C) -> (B, T, C)."""
        B, T, _ = x.shape
        key = options.dropout_key
        q, k, v = self.qkv(x).view(B, T, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)
        if options.cache is not None:
            k, v = options.cache.extend(self.layer, k, v)  # (B, H, S, D); q is (B, H, T, D)
        if options.explicit or options.attention is not None:
            weights = self.weights(q, k)  # (B, H, T, S)
            if options.attention is not None:
                options.attention.append(weights)
            weights = dropout(weights, self.p, key, self.layer, DropoutSite.ATTENTION)
            y = weights.to(v.dtype) @ v  # (B, H, T, D)
        else:
            y = causal_attention(q, k, v, self.p, key, self.layer)  # the same numbers, faster
        y = self.out(y.transpose(1, 2).flatten(2))  # (B, T, C)
        return dropout(y, self.p, key, self.layer, DropoutSite.ATTENTION_OUT)

    def weights(self, q: Tensor, k: Tensor) -> Tensor:
        """How much each position attends to each, (B, H, T, S); rows sum to 1, the future is 0."""
        T, S, D = q.shape[-2], k.shape[-2], q.shape[-1]
        scores = q @ k.transpose(-2, -1) / math.sqrt(D)  # variance near 1: softmax is unsaturated
        future = ~self.causal[S - T : S, :S]
        return scores.masked_fill(future, -math.inf).softmax(dim=-1)


class MLP(nn.Module):
    """Position-wise feed-forward network (Vaswani et al. 2017, §3.3)."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.activation = config.activation
        self.p = config.dropout
        self.layer = layer
        self.up = nn.Linear(config.d_model, config.d_ff)
        self.down = nn.Linear(config.d_ff, config.d_model)

    def forward(self, x: Tensor, options: ForwardOptions = DEFAULT_OPTIONS) -> Tensor:
        """Transform each position by itself, (B, T, C) -> (B, T, C)."""
        if self.activation == "relu":
            y = self.down(torch.relu(self.up(x)))
        elif options.explicit:
            y = self.down(F.gelu(self.up(x), approximate="tanh"))
        else:
            y = feed_forward(x, self.up, self.down)  # the same numbers, faster
        return dropout(y, self.p, options.dropout_key, self.layer, DropoutSite.MLP_OUT)


class Block(nn.Module):
    """Attention, then feed-forward, each added to the residual stream."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.pre_norm = config.norm == "pre"
        self.norm_1 = nn.LayerNorm(config.d_model)
        self.attention = CausalSelfAttention(config, layer)
        self.norm_2 = nn.LayerNorm(config.d_model)
        self.mlp = MLP(config, layer)

    def forward(self, x: Tensor, options: ForwardOptions = DEFAULT_OPTIONS) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        if self.pre_norm:  # GPT-2: the residual stream itself is never normalized
            x = x + self.attention(self.norm_1(x), options)
            x = x + self.mlp(self.norm_2(x), options)
        else:  # Vaswani et al. 2017
            x = self.norm_1(x + self.attention(x, options))
            x = self.norm_2(x + self.mlp(x, options))
        return x


class GPT(nn.Module):
    """The language model.

    Args:
        config: its shape.
        vocab_size: V, the entries of the tokenizer.

    Attributes:
        explicit: compute only what this file spells out, because lm/fast computes something else.
    """

    sinusoids: Tensor

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        self.explicit = False
        self.token_embedding = nn.Embedding(vocab_size, config.d_model)
        if config.positions == "learned":
            self.position_embedding = nn.Embedding(config.context_length, config.d_model)
        elif config.positions == "sinusoidal":
            waves = sinusoids(config.context_length, config.d_model)
            self.register_buffer("sinusoids", waves, persistent=False)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layers))
        self.norm = nn.LayerNorm(config.d_model) if config.norm == "pre" else nn.Identity()
        self.lm_head = nn.Linear(config.d_model, vocab_size, bias=False)
        if config.tie_embeddings:  # Press & Wolf 2017
            self.lm_head.weight = self.token_embedding.weight

    def forward(
        self,
        token_ids: Tensor,
        dropout_key: DropoutKey | None = None,
        *,
        cache: KVCache | None = None,
        attention: list[Tensor] | None = None,
        explicit: bool = False,
    ) -> Tensor:
        """Predict the next token at every position.

        Args:
            token_ids: (B, T) int64, T >= 1.
            dropout_key: where dropout masks come from; None (evaluation, sampling): no dropout.
            cache: keys and values of earlier positions; those of `token_ids` are appended.
            attention: receives the attention weights of each layer, (B, H, T, S).
            explicit: compute what this file spells out, not the fast forms of lm/fast.
        Returns:
            Logits, (B, T, V).
        Raises:
            ValueError: S exceeds context_length.
        """
        explicit = explicit or self.explicit
        x = self.hidden(token_ids, ForwardOptions(dropout_key, cache, attention, explicit))
        logits: Tensor = self.lm_head(x)  # (B, T, V)
        return logits

    def hidden(self, token_ids: Tensor, options: ForwardOptions = DEFAULT_OPTIONS) -> Tensor:
        """The activations that lm_head turns into logits, (B, T, C)."""
        first = options.cache.length if options.cache is not None else 0
        x = self.embed(token_ids, options.dropout_key, first)
        for block in self.blocks:
            x = block(x, options)
        if options.cache is not None:
            options.cache.length = first + token_ids.shape[1]
        normed: Tensor = self.norm(x)
        return normed

    def embed(self, token_ids: Tensor, key: DropoutKey | None = None, first: int = 0) -> Tensor:
        """Tokens and their positions, from `first` on, as vectors, (B, T) -> (B, T, C)."""
        end = first + token_ids.shape[1]
        if end > self.config.context_length:
            raise ValueError(f"{end} tokens exceed the context of {self.config.context_length}")
        x = self.token_embedding(token_ids)
        if self.config.positions == "learned":
            x = x + self.position_embedding.weight[first:end]
        elif self.config.positions == "sinusoidal":
            x = x + self.sinusoids[first:end]
        return dropout(x, self.config.dropout, key, 0, DropoutSite.EMBEDDING)


def sinusoids(length: int, d_model: int) -> Tensor:
    """Fixed position embeddings (Vaswani et al. 2017, §3.5), (length, d_model)."""
    rates = torch.exp(torch.arange(0, d_model, 2) * (-math.log(10_000) / d_model))
    angles = torch.arange(length).unsqueeze(1) * rates
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)
