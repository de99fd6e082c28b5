"""The tables of tinygpt.toml. A default here is the value of the published recipe (docs/design.md, section 7).

Every key is described once, here: the README's tables, `tinygpt init` and `tinygpt config show` are made from these fields.
"""

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, Field, model_validator

MAX_VOCAB_SIZE = 65_536  # token ids are stored as uint16

Fraction = Annotated[float, Field(ge=0, le=1)]


class Table(BaseModel, extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=True):
    """A frozen table that refuses keys it does not know, infinities, and a value of another type (`true` or `"16"` for a number).

    The word "none" is None wherever a key may be None, because TOML has no null.
    """

    @model_validator(mode="before")
    @classmethod
    def _none_is_a_word(cls, values: object) -> object:
        if not isinstance(values, dict):
            return values
        optional = {key for key, field in cls.model_fields.items() if type(None) in get_args(field.annotation)}
        return {key: None if key in optional and value == "none" else value for key, value in values.items()}


_SOURCE = "hub data set (`org/name[@revision]`), file, folder, glob, `-` for standard input, or `builtin[@SEED]`"


class DataConfig(Table):
    """Where the stories come from."""

    source: str = Field("roneneldan/TinyStories", min_length=1, description=_SOURCE)
    split: str = Field("train", min_length=1, description="split of a hub data set; other sources have only one")
    text_field: str = Field("text", min_length=1, description="column or JSON field that holds the story")
    max_stories: int | None = Field(50_000, ge=1, description='stories taken from the start of the source; "none" for all')
    clean: bool = Field(False, description="repair mojibake such as `â€œ` with ftfy")


class TokenizerConfig(Table):
    """Byte-level BPE (Radford et al. 2019, §2.2), trained on the train split only."""

    vocab_size: int = Field(8_000, ge=257, le=MAX_VOCAB_SIZE, description="entries: 256 bytes, end of story, and the merges")
    min_frequency: int = Field(2, ge=1, description="times a pair must occur to be merged")


class DatasetConfig(Table):
    """Tokens on disk."""

    val_fraction: float = Field(0.05, gt=0, lt=1, description="share of stories held out, chosen by a hash of each story")


class ModelConfig(Table):
    """The transformer (Vaswani et al. 2017; Radford et al. 2019)."""

    d_model: int = Field(128, ge=1, le=16_384, description="width of the residual stream")
    n_layers: int = Field(4, ge=1, le=256, description="transformer blocks")
    n_heads: int = Field(4, ge=1, le=256, description="attention heads per block; divides d_model")
    d_ff: int = Field(512, ge=1, le=131_072, description="width of the feed-forward layer")
    context_length: int = Field(256, ge=2, le=65_536, description="tokens the model sees at once")
    dropout: float = Field(0.1, ge=0, lt=1, description="on embeddings, residual branches and attention weights; 0 for none")
    norm: Literal["pre", "post"] = Field("pre", description="LayerNorm before (GPT-2) or after (2017) each residual branch")
    activation: Literal["gelu", "relu"] = Field("gelu", description="GELU in its tanh form, or ReLU")
    positions: Literal["learned", "sinusoidal", "none"] = Field("learned", description="position embeddings")
    tie_embeddings: bool = Field(True, description="unembed with the token embedding matrix")
    initialisation: Literal["gpt2", "copying"] = Field("gpt2", description="first weights: GPT-2's, or heads begin by copying")

    @model_validator(mode="after")
    def _shapes_fit(self) -> "ModelConfig":
        if self.d_model % self.n_heads:
            lower = self.d_model // self.n_heads * self.n_heads
            near = f"{lower} or {lower + self.n_heads}" if lower else str(self.n_heads)
            raise ValueError(f"`model.d_model` = {self.d_model} is not divisible by `model.n_heads` = {self.n_heads}; use {near}")
        if self.positions == "sinusoidal" and self.d_model % 2:
            raise ValueError(f"`model.d_model` = {self.d_model} must be even with sinusoidal positions")
        return self


class TrainConfig(Table):
    """The recipe. A step is an optimizer step over batch_size x grad_accum_steps sequences."""

    max_steps: int = Field(10_000, ge=1, description="optimizer steps, schedule included")
    batch_size: int = Field(16, ge=1, le=65_536, description="sequences per micro-batch")
    grad_accum_steps: int = Field(16, ge=1, le=65_536, description="micro-batches per step")
    story_starts: Fraction = Field(0.0, description="share of sequences that begin where a story begins; the others, anywhere")
    optimizer: Literal["adamw", "muon"] = Field("adamw", description="AdamW, or Muon for blocks' matrices, AdamW for the rest")
    learning_rate: float = Field(3e-4, gt=0, description="peak rate of AdamW")
    muon_learning_rate: float = Field(0.02, gt=0, description="peak rate of Muon")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW: decay of the mean gradient")
    beta2: float = Field(0.95, ge=0, lt=1, description="AdamW: decay of the mean squared gradient")
    weight_decay: float = Field(0.1, ge=0, description="AdamW: on matrices only, never on biases and LayerNorms")
    muon_weight_decay: float = Field(0.1, ge=0, description="weight decay of Muon")
    grad_clip: float | None = Field(1.0, gt=0, description='largest norm of the gradient; "none" for no clipping')
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="decay of the rate after warm-up")
    warmup_steps: int | None = Field(500, ge=1, description='linear warm-up in steps; "none" for none')
    warmup_fraction: Fraction | None = Field(None, description="linear warm-up as a share of max_steps, instead of warmup_steps")
    decay_fraction: float = Field(1.0, gt=0, le=1, description="last share of the steps after warm-up, in which the rate decays")
    final_lr_fraction: Fraction = Field(0.0, description="rate at the end, as a share of the peak")
    eval_every: int = Field(500, ge=1, description="steps between evaluations, beside steps 1, 10, 100 and the last")
    snapshots: int = Field(16, ge=0, le=1_000, description="weight snapshots kept, spaced evenly in log(step); 0 for none")
    sample_prompt: str = Field("Once upon a time", description="prompt of the story told at each evaluation")
    sample_tokens: int = Field(128, ge=0, le=65_536, description="longest story told at an evaluation; 0 for none")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="arithmetic of the matrix products; weights stay fp32")
    loss: Literal["fused", "plain"] = Field("fused", description="cross-entropy that never holds all logits, or the textbook one")
    seed: int = Field(1337, ge=0, lt=2**63, description="of the initial weights, batch order and dropout")
    init_from: str | None = Field(None, description="id of a model to go on from, optimizer state too; the schedule starts anew")

    @model_validator(mode="after")
    def _one_warmup(self) -> "TrainConfig":
        if self.warmup_steps is not None and self.warmup_fraction is not None:
            both = f"`train.warmup_steps` = {self.warmup_steps} and `train.warmup_fraction` = {self.warmup_fraction}"
            raise ValueError(f'{both} are both set; set one of them to "none"')
        return self


class EvalConfig(Table):
    """How a trained model is judged."""

    text: str | None = Field(None, description="file to judge instead of the validation split")
    baselines: bool = Field(True, description="count uniform, unigram, bigram and trigram models and judge the untrained model")
    stories: int | None = Field(64, ge=1, le=10_000, description='stories told for the report card; "none" to skip it')


class SampleConfig(Table):
    """How stories are told."""

    prompt: str | None = Field(None, description='beginning of the story; "none" lets the model begin')
    temperature: float = Field(0.8, ge=0, le=100, description="divides the logits; 0 always takes the likeliest token")
    top_k: int | None = Field(None, ge=1, description='keep the k likeliest tokens; "none" for all')
    top_p: float | None = Field(None, gt=0, le=1, description='keep the likeliest tokens up to this probability; "none" for all')
    min_p: float | None = Field(None, gt=0, le=1, description='least probability, as a share of the highest; "none" for all')
    max_new_tokens: int = Field(256, ge=1, le=100_000, description="longest continuation")
    num_samples: int = Field(1, ge=1, le=10_000, description="stories told")
    # not strict, so that a list, as TOML and YAML have it, is taken for a tuple
    stop: tuple[str, ...] = Field((), strict=False, description="texts that end a story, beside the end-of-story token")
    overflow: Literal["slide", "stop"] = Field("slide", description="at a full context: re-read its newer half, or end the story")
    seed: int | None = Field(None, ge=0, lt=2**63, description='of the random numbers; "none" draws one and says which')


class PlotConfig(Table):
    """The pictures."""

    text: str | None = Field(None, description='text whose attention is drawn; "none" takes a validation story')
    ablation_tokens: int | None = Field(8_192, ge=2, description='validation tokens to judge each head on; "none" to skip that')
    format: Literal["png", "svg"] = Field("png", description="of the pictures")


class RuntimeConfig(Table):
    """Where and how visibly to run. Nothing here enters a key; what may move the last bits is recorded in provenance."""

    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="cuda, then mps, then cpu")
    compile: bool = Field(False, description="have torch.compile fuse the blocks; slow to begin, for long runs")
    threads: int | None = Field(None, ge=1, le=4_096, description='CPU threads; "none" for one per core')
    progress: Literal["auto", "bar", "plain", "none"] = Field("auto", description="bars on a terminal, plain lines elsewhere")
    checkpoint_every: int = Field(50, ge=1, description="steps between checkpoints")
    keep_checkpoints: int = Field(2, ge=1, description="newest checkpoints kept while a run is unfinished")
    lock_timeout: float | None = Field(600.0, ge=0, description='seconds to wait for another process; "none" for ever')


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
    runtime: RuntimeConfig = RuntimeConfig()
