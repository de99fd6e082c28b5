"""The tables of tinygpt.toml; a default is the value of the published recipe (docs/results.md).

Every key is described once, here: docs/configuration.md, `tinygpt init` and `tinygpt config show`
are made from these fields.
"""

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from tinygpt.config.source import check_separator, document_limit
from tinygpt.config.table import Table

MAX_VOCAB_SIZE = 65_536  # token ids are stored as uint16

Fraction = Annotated[float, Field(ge=0, le=1)]


class DataConfig(Table):
    """Where the text comes from."""

    source: str = Field(
        "roneneldan/TinyStories",
        min_length=1,
        description="hub dataset (`org/name[@revision]`), file, folder, glob, "
        "`-` for standard input, or `builtin[@SEED]`",
    )
    split: str = Field(
        "train", min_length=1, description="split of a hub dataset; other sources have only one"
    )
    text_field: str = Field(
        "text", min_length=1, description="column or JSON field that holds the text"
    )
    separator: str = Field(
        "auto",
        min_length=1,
        description="what separates the documents of a text: `auto`, `end_of_text`, "
        "`blank_lines`, `lines`, `file` or `regex:...`",
    )
    max_documents: Annotated[int, Field(ge=1)] | Literal["auto"] | None = Field(
        "auto",
        description="documents taken from the start of the source; auto takes 50,000 from the hub, "
        '20,000 of builtin, and all from files; "none" for all',
    )
    clean: bool = Field(False, description="repair mojibake such as `â€œ` with ftfy")

    @field_validator("max_documents")
    @classmethod
    def _auto_is_a_number(cls, limit: int | str | None, info: ValidationInfo) -> int | None:
        return document_limit(limit, info.data.get("source", ""))

    @field_validator("separator")
    @classmethod
    def _separator_has_a_meaning(cls, separator: str) -> str:
        return check_separator(separator)


class TokenizerConfig(Table):
    """Byte-level BPE (Radford et al. 2019, §2.2), trained on the train split only."""

    vocab_size: Annotated[int, Field(ge=257, le=MAX_VOCAB_SIZE)] | Literal["auto"] = Field(
        8_000,
        description="vocabulary entries: 256 bytes, the end-of-text token, and the merges; auto "
        "goes by the size of the text",
    )
    min_frequency: int = Field(2, ge=1, description="how often a pair must occur to be merged")
    from_: str | None = Field(
        None,
        alias="from",
        description="id of a model or tokenize artifact whose tokenizer is used as it is, instead "
        "of learning one",
    )


class DatasetConfig(Table):
    """Tokens on disk."""

    val_fraction: float = Field(
        0.05, gt=0, lt=1, description="share of the text held out for validation"
    )
    test_fraction: float = Field(
        0.0, ge=0, lt=1, description="share held out for `tinygpt eval --split test` alone"
    )
    holdout: Literal["auto", "hash", "end"] = Field(
        "auto",
        description="what is held out: documents chosen by a hash of each, or the end of the text; "
        "auto takes the end of one text, also where its paragraphs or lines are documents, and of "
        "fewer than 20 documents",
    )

    @model_validator(mode="after")
    def _something_is_left_to_train_on(self) -> "DatasetConfig":
        if self.val_fraction + self.test_fraction >= 1:
            shares = (
                f"`dataset.val_fraction` = {self.val_fraction} and "
                f"`dataset.test_fraction` = {self.test_fraction}"
            )
            raise ValueError(f"{shares} leave nothing to train on; their sum must be below 1")
        return self


class ModelConfig(Table):
    """The transformer (Vaswani et al. 2017; Radford et al. 2019)."""

    d_model: int = Field(128, ge=1, le=16_384, description="width of the residual stream")
    n_layers: int = Field(4, ge=1, le=256, description="transformer blocks")
    n_heads: int = Field(4, ge=1, le=256, description="attention heads per block; divides d_model")
    d_ff: int = Field(512, ge=1, le=131_072, description="width of the feed-forward layer")
    context_length: int = Field(256, ge=2, le=65_536, description="tokens the model sees at once")
    dropout: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="dropout on embeddings, residual branches and attention weights; 0 for none",
    )
    norm: Literal["pre", "post"] = Field(
        "pre", description="LayerNorm before (GPT-2) or after (2017) each residual branch"
    )
    activation: Literal["gelu", "relu"] = Field(
        "gelu", description="GELU in its tanh form, or ReLU"
    )
    positions: Literal["learned", "sinusoidal", "none"] = Field(
        "learned", description="position embeddings"
    )
    tie_embeddings: bool = Field(True, description="lm_head shares the token embedding matrix")
    weight_init: Literal["gpt2", "copying"] = Field(
        "gpt2",
        description="weight initialization: GPT-2's, or heads that start out copying",
    )

    @model_validator(mode="after")
    def _shapes_fit(self) -> "ModelConfig":
        width = f"`model.d_model` = {self.d_model}"
        if self.d_model % self.n_heads:
            lower = self.d_model // self.n_heads * self.n_heads
            near = f"{lower} or {lower + self.n_heads}" if lower else str(self.n_heads)
            heads = f"`model.n_heads` = {self.n_heads}"
            raise ValueError(f"{width} is not divisible by {heads}; use {near}")
        if self.positions == "sinusoidal" and self.d_model % 2:
            raise ValueError(f"{width} must be even with sinusoidal positions")
        return self


class TrainConfig(Table):
    """Training. A step is an optimizer step over batch_size x grad_accum_steps sequences."""

    max_steps: int = Field(
        10_000, ge=1, description="optimizer steps; the learning-rate schedule spans them"
    )
    batch_size: int = Field(16, ge=1, le=65_536, description="sequences per micro-batch")
    grad_accum_steps: int = Field(16, ge=1, le=65_536, description="micro-batches per step")
    document_starts: Fraction = Field(
        0.0,
        description="share of sequences that move back to the start of their document, if it is "
        "less than a context away; others begin anywhere",
    )
    optimizer: Literal["adamw", "muon"] = Field(
        "adamw", description="AdamW, or Muon for the matrices of the blocks and AdamW for the rest"
    )
    learning_rate: float = Field(3e-4, gt=0, description="peak learning rate of AdamW")
    muon_learning_rate: float = Field(0.02, gt=0, description="peak learning rate of Muon")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW: decay of the mean gradient")
    beta2: float = Field(0.95, ge=0, lt=1, description="AdamW: decay of the mean squared gradient")
    weight_decay: float = Field(
        0.1,
        ge=0,
        description="weight decay of AdamW, on matrices only, never on biases and LayerNorms",
    )
    muon_weight_decay: float = Field(0.1, ge=0, description="weight decay of Muon")
    grad_clip: float | None = Field(
        1.0, gt=0, description='clip the gradient to this norm; "none" for no clipping'
    )
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="how the learning rate decays after warm-up"
    )
    warmup_steps: int | None = Field(
        500, ge=1, description='linear warm-up in steps; "none" for none'
    )
    warmup_fraction: Fraction | None = Field(
        None, description="linear warm-up as a share of max_steps, instead of warmup_steps"
    )
    decay_fraction: float = Field(
        1.0,
        gt=0,
        le=1,
        description="last share of the steps after warm-up, in which the learning rate decays",
    )
    final_lr_fraction: Fraction = Field(
        0.0, description="learning rate at the end, as a share of the peak"
    )
    eval_every: int = Field(
        500,
        ge=1,
        description="steps between evaluations, besides those at steps 1, 10, 100 and the last",
    )
    snapshots: int = Field(
        16,
        ge=0,
        le=1_000,
        description="weight snapshots to keep, evenly spaced in log(step); 0 for none",
    )
    sample_prompt: str = Field(
        "Once upon a time", description="prompt of the sample generated at each evaluation"
    )
    sample_tokens: int = Field(
        128, ge=0, le=65_536, description="longest sample at an evaluation, in tokens; 0 for none"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="number format of the matrix products; weights stay fp32"
    )
    loss: Literal["fused", "plain"] = Field(
        "fused", description="cross-entropy that never stores all logits, or the textbook one"
    )
    seed: int = Field(
        1337, ge=0, lt=2**63, description="seed of initial weights, batch order and dropout"
    )
    init_from: str | None = Field(
        None,
        description="id of a finished model to continue, with its optimizer state, as a new run "
        "with a fresh learning-rate schedule",
    )

    @model_validator(mode="after")
    def _one_warmup(self) -> "TrainConfig":
        if self.warmup_steps is not None and self.warmup_fraction is not None:
            steps = f"`train.warmup_steps` = {self.warmup_steps}"
            fraction = f"`train.warmup_fraction` = {self.warmup_fraction}"
            raise ValueError(f'{steps} and {fraction} are both set; set one of them to "none"')
        return self


Weights = Annotated[
    Literal["auto", "best", "last"],
    Field(
        description="weights of the last step, or of the lowest validation loss; auto takes best "
        "where the last validation loss is more than 0.01 above it",
    ),
]


class EvalConfig(Table):
    """How a trained model is evaluated."""

    text: str | None = Field(
        None,
        min_length=1,
        description="file, folder or glob to evaluate on instead of a split, read as `data.source`",
    )
    split: Literal["val", "test"] = Field(
        "val", description="split to evaluate on; test needs `dataset.test_fraction`"
    )
    weights: Weights = "auto"
    baselines: bool = Field(
        True,
        description="also evaluate uniform, unigram, bigram and trigram models and the untrained "
        "model",
    )
    num_samples: int | None = Field(
        64,
        ge=1,
        le=10_000,
        description='texts generated to measure generation quality; "none" to skip it',
    )

    @model_validator(mode="after")
    def _one_text(self) -> "EvalConfig":
        if self.text is not None and self.split == "test":
            both = f"`eval.text` = {self.text!r} and `eval.split` = test"
            raise ValueError(f"{both} are both set; leave one of them out")
        return self


class SampleConfig(Table):
    """How text is generated."""

    prompt: str | None = Field(
        None, description='beginning of the text; "none" lets the model begin'
    )
    temperature: float = Field(
        0.8, ge=0, le=100, description="divides the logits; 0 always takes the likeliest token"
    )
    top_k: int | None = Field(None, ge=1, description='keep the k likeliest tokens; "none" for all')
    top_p: float | None = Field(
        None,
        gt=0,
        le=1,
        description='keep the likeliest tokens up to this total probability; "none" for all',
    )
    min_p: float | None = Field(
        None,
        gt=0,
        le=1,
        description='keep tokens with at least this share of the top probability; "none" for all',
    )
    max_new_tokens: int = Field(256, ge=1, le=100_000, description="longest continuation in tokens")
    num_samples: int = Field(1, ge=1, le=10_000, description="samples to generate")
    # not strict, so that a list, as TOML and YAML have it, is taken for a tuple
    stop: tuple[str, ...] = Field(
        (), strict=False, description="texts that end a sample, besides the end-of-text token"
    )
    ignore_eos: bool = Field(
        False, description="go on past the end-of-text token instead of ending the sample there"
    )
    weights: Weights = "auto"
    overflow: Literal["slide", "stop"] = Field(
        "slide", description="when the context is full: re-read its newer half, or end the sample"
    )
    seed: int | None = Field(
        None, ge=0, lt=2**63, description='sampling seed; "none" picks one and prints it'
    )


class PlotConfig(Table):
    """The pictures that `tinygpt plot` draws."""

    text: str | None = Field(
        None, description='text whose attention is drawn; "none" takes a validation document'
    )
    weights: Weights = "auto"
    ablation_tokens: int | None = Field(
        8_192,
        ge=2,
        description='validation tokens on which each head is ablated; "none" to skip that',
    )
    format: Literal["png", "svg"] = Field("png", description="file format of the pictures")


PageDtype = Literal["f32", "f16", "int8"]


class PageConfig(Table):
    """The page that `tinygpt page` writes: the model itself in one HTML file."""

    weights: Weights = "auto"
    dtype: PageDtype = Field(
        "f16", description="number format of the weights in the page: 4, 2 or 1 bytes each"
    )
    snapshots: int = Field(
        3,
        ge=0,
        le=100,
        description="weight snapshots to show training with, in int8; none where the file would "
        "pass 25 MB",
    )


class RuntimeConfig(Table):
    """Device, threads, progress, checkpoints: not part of the cache key."""

    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="where to compute; auto takes cuda, then mps, then cpu"
    )
    compile: bool = Field(
        False,
        description="compile the blocks with torch.compile; starts slowly, pays off in long runs",
    )
    threads: int | None = Field(
        None, ge=1, le=4_096, description='CPU threads; "none" for one per core'
    )
    progress: Literal["auto", "bar", "plain", "none"] = Field(
        "auto", description="auto shows bars on a terminal, plain lines elsewhere"
    )
    checkpoint_every: int = Field(50, ge=1, description="steps between checkpoints")
    keep_checkpoints: int = Field(
        2, ge=1, description="newest checkpoints kept while a run is unfinished"
    )
    lock_timeout: float | None = Field(
        600.0, ge=0, description='seconds to wait for another process; "none" for no limit'
    )


class Config(Table):
    """All of tinygpt.toml, complete and frozen."""

    data: DataConfig = DataConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    dataset: DatasetConfig = DatasetConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()
    sample: SampleConfig = SampleConfig()
    plot: PlotConfig = PlotConfig()
    page: PageConfig = PageConfig()
    runtime: RuntimeConfig = RuntimeConfig()
