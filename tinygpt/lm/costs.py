"""What a model and a recipe cost: parameters, floating-point operations, memory."""

from typing import NamedTuple

from tinygpt.config import ModelConfig, TrainConfig


class Costs(NamedTuple):
    """Counts for one model under one recipe.

    Args:
        embedding_parameters: token and position embeddings, and the last matrix where it is not tied.
        block_parameters: all blocks, and the last LayerNorm.
        flops_per_token: of training (forward and backward), nothing recomputed counted.
        tokens_per_step: of the global batch.
        memory_bytes: weights, gradients, optimizer state and the activations of one micro-batch; an estimate.
    """

    embedding_parameters: int
    block_parameters: int
    flops_per_token: int
    tokens_per_step: int
    memory_bytes: int

    @property
    def parameters(self) -> int:
        """All of them."""
        return self.embedding_parameters + self.block_parameters


def costs(model: ModelConfig, train: TrainConfig, vocab_size: int) -> Costs:
    """Count; the FLOP formula is 6 per matrix parameter and token (Kaplan et al. 2020, §2.1) plus causal attention."""
    C, F, T, L = model.d_model, model.d_ff, model.context_length, model.n_layers
    block_matrices = L * (4 * C * C + 2 * C * F)
    block_vectors = L * (4 * C + C + F + 4 * C) + (2 * C if model.norm == "pre" else 0)  # biases, LayerNorms
    head = vocab_size * C
    embeddings = head * (1 if model.tie_embeddings else 2) + (T * C if model.positions == "learned" else 0)
    parameters = embeddings + block_matrices + block_vectors
    attention = 6 * L * C * T  # two products over T / 2 earlier positions on average, forward and twice that backward
    kept_per_token = 4 * (L * (14 * C + 3 * F) + 4 * C)  # what the backward pass needs, fp32
    flops = 6 * (block_matrices + head) + attention
    memory = 4 * 4 * parameters + train.batch_size * T * kept_per_token
    return Costs(embeddings, block_matrices + block_vectors, flops, train.batch_size * train.grad_accum_steps * T, memory)
