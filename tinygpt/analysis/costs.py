"""What a model and a training recipe cost: parameters, floating-point operations, memory."""

from typing import NamedTuple

from tinygpt.config import ModelConfig, TrainConfig
from tinygpt.lm.evaluation import LOGITS, TOKENS, WINDOWS
from tinygpt.lm.fast.attention import ROWS
from tinygpt.lm.fast.cross_entropy import CHUNK_LOGITS

PROCESS = 340 * 2**20  # bytes of Python with torch and the kernels that training loads


class Costs(NamedTuple):
    """Counts for one model under one recipe.

    Args:
        embedding_parameters: token and position embeddings, and lm_head where it is not tied.
        block_parameters: all blocks, and the last LayerNorm.
        flops_per_token: of training, forward and backward; nothing recomputed is counted.
        tokens_per_step: of the global batch.
    """

    embedding_parameters: int
    block_parameters: int
    flops_per_token: int
    tokens_per_step: int

    @property
    def parameters(self) -> int:
        """Number of all parameters."""
        return self.embedding_parameters + self.block_parameters


def costs(model: ModelConfig, train: TrainConfig, vocab_size: int) -> Costs:
    """Count parameters and operations.

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
    return Costs(
        embedding_parameters=embeddings,
        block_parameters=blocks,
        flops_per_token=6 * (matrices + lm_head) + attention,
        tokens_per_step=train.batch_size * train.grad_accum_steps * T,
    )


def peak_memory(
    model: ModelConfig, train: TrainConfig, vocab_size: int, precision: str, processes: int = 1
) -> int:
    """Bytes that training takes at its peak on a CPU, in each of the processes that share it.

    Computed from shapes; the factors without a reason of their own were fitted to measured peaks
    (docs/performance.md).

    Args:
        model, train, vocab_size: see costs.
        precision: of the matrix products, "fp32" or "bf16".
        processes: that share each step.
    """
    C, F, T, L = model.d_model, model.d_ff, model.context_length, model.n_layers
    element = 2 if precision == "bf16" else 4
    sequences = min(train.batch_size, train.batch_size * train.grad_accum_steps // processes)
    tokens = sequences * T  # of a micro-batch

    cost = costs(model, train, vocab_size)
    matrices = L * (4 * C * C + 2 * C * F)
    moments = 2 * cost.parameters - (matrices if train.optimizer == "muon" else 0)
    # Gradients, and weights: in use, in the copy that shows the pace, best and last as bytes. What
    # the optimizer keeps is written as bytes, too. Three gradients of the embeddings are added up
    weights = 4 * (5 * cost.parameters + 2 * moments + 3 * vocab_size * C)

    # Kept of a token in each layer: the residual stream twice, in fp32; the factors of all products
    attended = model.n_heads * (T + ROWS) // 2
    kept = 8 * C + (7 * C + 2 * F + attended) * element
    squares = L + element  # of T x T: the causal masks
    if model.dropout:
        kept += 2 * attended + 4 * C  # masks of two bytes
        squares += 2 * model.n_heads
    activations = int((L + 1.4) * kept * tokens)
    if train.loss == "plain":
        logits = (element + 12) * tokens * vocab_size
    else:
        logits = 2 * element * min(tokens * vocab_size, CHUNK_LOGITS)
    evaluated = min(WINDOWS, max(1, TOKENS // T)) * T
    evaluation = 4 * (2 * F + 8 * C) * evaluated + 12 * LOGITS
    return PROCESS + weights + squares * T * T + max(activations + logits, evaluation)


def useful_passes(tokens: int) -> int:
    """How often training may read a text before validation gets worse, as far as was measured.

    With preset laptop, validation improved up to 13 passes over 1.4 M tokens of stories, and up to
    5 over Shakespeare, whole (0.3 M) or a quarter of it (docs/notebook.md).

    Args:
        tokens: of the training text.
    """
    return 13 if tokens >= 1_000_000 else 5
