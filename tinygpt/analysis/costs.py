"""What a model and a training recipe cost: parameters, floating-point operations, memory."""

from typing import NamedTuple

from tinygpt.config import ModelConfig, TrainConfig

FLOAT_BYTES = 4  # fp32


class Costs(NamedTuple):
    """Counts for one model under one recipe.

    Args:
        embedding_parameters: token and position embeddings, and lm_head where it is not tied.
        block_parameters: all blocks, and the last LayerNorm.
        flops_per_token: of training, forward and backward; nothing recomputed is counted.
        tokens_per_step: of the global batch.
        memory_bytes: estimate for weights, gradients, optimizer state and the activations of one
            micro-batch.
    """

    embedding_parameters: int
    block_parameters: int
    flops_per_token: int
    tokens_per_step: int
    memory_bytes: int

    @property
    def parameters(self) -> int:
        """Number of all parameters."""
        return self.embedding_parameters + self.block_parameters


def costs(model: ModelConfig, train: TrainConfig, vocab_size: int) -> Costs:
    """Count parameters, operations and memory.

    Training takes 6 operations per matrix parameter and token (Kaplan et al. 2020, §2.1), plus
    causal attention.

    Args:
        model: shape of the model.
        train: the batch sizes.
        vocab_size: entries of the tokenizer.
    """
    C, F, T, L = model.d_model, model.d_ff, model.context_length, model.n_layers
    lm_head = vocab_size * C
    embeddings = lm_head if model.tie_embeddings else 2 * lm_head
    if model.positions == "learned":
        embeddings += T * C

    matrices = L * (4 * C * C + 2 * C * F)  # qkv and out; up and down
    biases = L * (4 * C + F + C)  # of these
    norms = L * 4 * C  # gain and bias of two LayerNorms
    if model.norm == "pre":
        norms += 2 * C  # the last LayerNorm
    blocks = matrices + biases + norms

    # Scores and weighted values over T / 2 earlier positions on average: 2 C T; twice that backward
    attention = L * 6 * C * T
    activations = L * (14 * C + 3 * F) + 4 * C  # per token, kept for the backward pass
    values_per_parameter = 4  # weight, gradient, two optimizer moments
    tokens_per_micro_batch = train.batch_size * T
    floats = values_per_parameter * (embeddings + blocks) + tokens_per_micro_batch * activations
    return Costs(
        embedding_parameters=embeddings,
        block_parameters=blocks,
        flops_per_token=6 * (matrices + lm_head) + attention,
        tokens_per_step=tokens_per_micro_batch * train.grad_accum_steps,
        memory_bytes=FLOAT_BYTES * floats,
    )
