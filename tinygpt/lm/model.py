"""A GPT: token and position embeddings, n_layers blocks of attention and feed-forward, one matrix back to the vocabulary.

The decoder of "Attention Is All You Need" (Vaswani et al. 2017) in the form of GPT-2 (Radford et al. 2019).
Shapes: B batch, T time, C = d_model, H heads, D = C / H, V vocabulary.
"""

import math
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinygpt.config import ModelConfig
from tinygpt.lm.attention import causal_attention
from tinygpt.lm.feed_forward import feed_forward
from tinygpt.lm.noise import Noise, Place, dropout


class CausalSelfAttention(nn.Module):
    """Causal multi-head self-attention (Vaswani et al. 2017, §3.2.2)."""

    causal: Tensor

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.n_heads, self.dropout, self.layer = config.n_heads, config.dropout, layer
        self.qkv = nn.Linear(config.d_model, 3 * config.d_model)
        self.out = nn.Linear(config.d_model, config.d_model)
        ones = torch.ones(config.context_length, config.context_length, dtype=torch.bool)
        self.register_buffer("causal", ones.tril(), persistent=False)

    def forward(self, x: Tensor, noise: Noise | None = None, *, explicit: bool = False) -> Tensor:
        """Mix each position with those before it.

        Args:
            x: activations, (B, T, C) with T <= context_length.
            noise: where dropout masks come from; None for none.
            explicit: compute what is written here, not the fast form of lm/attention.py.
        Returns:
            (B, T, C).
        """
        q, k, v = self.heads(x)
        if explicit:
            weights = dropout(self.weights(q, k), self.dropout, noise, self.layer, Place.ATTENTION)
            y = weights.to(v.dtype) @ v  # (B, H, T, D)
        else:
            y = causal_attention(q, k, v, self.dropout, noise, self.layer)  # the same numbers, sooner
        y = self.out(y.transpose(1, 2).flatten(2))  # (B, T, C)
        return dropout(y, self.dropout, noise, self.layer, Place.ATTENTION_OUT)

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (B, H, T, D)."""
        B, T, _ = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)  # each (B, H, T, D)
        return q, k, v

    def weights(self, q: Tensor, k: Tensor) -> Tensor:
        """How much each position (row) attends to each (column), (B, H, T, T); rows sum to 1, above the diagonal exactly 0."""
        T, D = q.shape[-2:]
        scores = q @ k.transpose(-2, -1) / math.sqrt(D)  # keeps the variance near 1, so that softmax stays unsaturated
        return scores.masked_fill(~self.causal[:T, :T], -math.inf).softmax(dim=-1)


class MLP(nn.Module):
    """Position-wise feed-forward network (Vaswani et al. 2017, §3.3)."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.dropout, self.layer = config.dropout, layer
        self.up = nn.Linear(config.d_model, config.d_ff)
        self.activation = partial(F.gelu, approximate="tanh") if config.activation == "gelu" else torch.relu
        self.down = nn.Linear(config.d_ff, config.d_model)

    def forward(self, x: Tensor, noise: Noise | None = None, *, explicit: bool = False) -> Tensor:
        """(B, T, C) -> (B, T, C), each position by itself; see CausalSelfAttention."""
        if explicit or self.activation is torch.relu:
            x = self.down(self.activation(self.up(x)))
        else:
            x = feed_forward(x, self.up, self.down)  # the same numbers, sooner
        return dropout(x, self.dropout, noise, self.layer, Place.MLP_OUT)


class Block(nn.Module):
    """Attention, then feed-forward, each added to the residual stream."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.pre_norm = config.norm == "pre"
        self.norm_1 = nn.LayerNorm(config.d_model)
        self.attention = CausalSelfAttention(config, layer)
        self.norm_2 = nn.LayerNorm(config.d_model)
        self.mlp = MLP(config, layer)

    def forward(self, x: Tensor, noise: Noise | None = None, *, explicit: bool = False) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        if self.pre_norm:  # GPT-2: the residual stream itself is never normalised
            x = x + self.attention(self.norm_1(x), noise, explicit=explicit)
            x = x + self.mlp(self.norm_2(x), noise, explicit=explicit)
        else:
            x = self.norm_1(x + self.attention(x, noise, explicit=explicit))
            x = self.norm_2(x + self.mlp(x, noise, explicit=explicit))
        return x


class GPT(nn.Module):
    """The language model.

    Args:
        config: its shape.
        vocab_size: V, the entries of the tokenizer.
    """

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.config, self.vocab_size = config, vocab_size
        self.token_embedding = nn.Embedding(vocab_size, config.d_model)
        if config.positions == "learned":
            self.position_embedding = nn.Embedding(config.context_length, config.d_model)
        elif config.positions == "sinusoidal":
            self.sinusoids: Tensor
            self.register_buffer("sinusoids", sinusoids(config.context_length, config.d_model), persistent=False)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layers))
        self.norm = nn.LayerNorm(config.d_model) if config.norm == "pre" else nn.Identity()
        self.unembed = nn.Linear(config.d_model, vocab_size, bias=False)
        if config.tie_embeddings:  # Press & Wolf 2017
            self.unembed.weight = self.token_embedding.weight

    def forward(self, token_ids: Tensor, noise: Noise | None = None, *, explicit: bool = False) -> Tensor:
        """Predict the next token at every position.

        Args:
            token_ids: (B, T) int64 with 1 <= T <= context_length.
            noise: where dropout masks come from; None (evaluation, sampling) for no dropout.
            explicit: see CausalSelfAttention.
        Returns:
            Logits, (B, T, V).
        Raises:
            ValueError: T exceeds context_length.
        """
        logits: Tensor = self.unembed(self.hidden(token_ids, noise, explicit=explicit))  # (B, T, V)
        return logits

    def hidden(self, token_ids: Tensor, noise: Noise | None = None, *, explicit: bool = False) -> Tensor:
        """What forward computes before the last matrix, (B, T, C)."""
        x = self.embed(token_ids, noise)
        for block in self.blocks:
            x = block(x, noise, explicit=explicit)
        normed: Tensor = self.norm(x)
        return normed

    def embed(self, token_ids: Tensor, noise: Noise | None = None, *, first: int = 0) -> Tensor:
        """Tokens and their positions, from `first` on, as vectors, (B, T) -> (B, T, C)."""
        end = first + token_ids.shape[1]
        if end > self.config.context_length:
            raise ValueError(f"{end} tokens exceed the context of {self.config.context_length}")
        x = self.token_embedding(token_ids)
        if self.config.positions == "learned":
            x = x + self.position_embedding.weight[first:end]
        elif self.config.positions == "sinusoidal":
            x = x + self.sinusoids[first:end]
        return dropout(x, self.config.dropout, noise, 0, Place.EMBEDDING)

    @torch.no_grad()
    def attention_weights(self, token_ids: Tensor) -> list[Tensor]:
        """The attention weights of every layer, n_layers tensors (B, H, T, T)."""
        x, maps = self.embed(token_ids), []
        for block in cast(list[Block], self.blocks):
            attention_input = block.norm_1(x) if block.pre_norm else x
            q, k, _ = block.attention.heads(attention_input)
            maps.append(block.attention.weights(q, k))
            x = block(x)
        return maps


def sinusoids(length: int, d_model: int) -> Tensor:
    """Fixed position embeddings (Vaswani et al. 2017, §3.5), (length, d_model)."""
    angle = torch.arange(length).unsqueeze(1) * torch.exp(torch.arange(0, d_model, 2) * (-math.log(10_000) / d_model))
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)


@torch.no_grad()
def initialise(model: GPT, seed: int) -> GPT:
    """Draw the weights as GPT-2 does (Radford et al. 2019, §2.3), from `seed` alone, and return the model.

    Matrices from N(0, 0.02), those that write into the residual stream divided by sqrt(2 n_layers), so that the stream's variance
    does not grow with depth; biases 0; LayerNorms the identity.

    With `model.initialisation` = "copying", attention's value matrix is orthogonal instead, and its output matrix the transpose:
    the heads begin by adding the mean of what came before (cf. Trockman & Kolter 2023, "Mimetic Initialization of Self-Attention
    Layers"). To take up a name again they then only have to learn where to look. From random matrices they have to learn what
    to copy at the same time, and neither helps before the other is there.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.dim() >= 2:
            writes_residual = name.endswith(("attention.out.weight", "mlp.down.weight"))
            std = 0.02 / math.sqrt(2 * model.config.n_layers) if writes_residual else 0.02
            parameter.copy_(torch.empty(parameter.shape).normal_(0, std, generator=generator))
        elif name.endswith("bias"):
            parameter.zero_()
        else:
            parameter.fill_(1)
    if model.config.initialisation == "copying":
        for attention in (block.attention for block in cast(list[Block], model.blocks)):
            _, _, value = attention.qkv.weight.chunk(3)  # (C, C)
            orthogonal, _ = torch.linalg.qr(torch.empty_like(value, dtype=torch.float64).normal_(generator=generator))
            value.copy_(orthogonal)
            attention.out.weight.copy_(orthogonal.T)
    return model
