"""The JSON files that stages write, each key with its meaning; every reader uses these types.

| file | record | stage |
|---|---|---|
| summary.json | Summary | every stage |
| meta.json | CorpusMeta | corpus |
| statistics.json | TokenizerStatistics | tokenize |
| meta.json | DatasetMeta | build-dataset |
| config.json | ModelFile | train, and its checkpoints |
| metrics.jsonl, a line each | StepRow or EvalRow | train, and its checkpoints |
| state.json | RunState | checkpoints of train |
| eval.json | EvalRecord | eval |
| samples.jsonl, a line each | SampleRecord | sample |
"""

from typing import Any, Literal, NotRequired, TypedDict


class Summary(TypedDict):
    """The result table that a stage ends with."""

    rows: list[list[str]]
    """Label and value of each line."""
    pictures: NotRequired[list[str]]
    """Files of the pictures (plot alone)."""


class SourceRecord(TypedDict):
    """Where documents come from.

    Without path and commit, so that equal texts give equal artifacts.
    """

    kind: Literal["builtin", "hub", "files"]
    seed: NotRequired[int]
    """Of the builtin generator."""
    name: NotRequired[str]
    """Of a hub dataset."""
    split: NotRequired[str]
    """Of a hub dataset."""
    files: NotRequired[int]
    """Number of files."""
    label: NotRequired[str]
    """A warning that stands beside every number measured on this source."""


class CorpusMeta(TypedDict):
    """What a corpus holds."""

    documents: int
    bytes: int
    """Of their UTF-8 text."""
    empty: int
    """Documents without a visible character, which were dropped."""
    source: SourceRecord


class TrainSplitStatistics(TypedDict):
    """The train split, as the tokenizer saw it."""

    documents: int
    words: int
    """Runs of characters between white space."""
    bytes: int
    tokens: int


class TokenizerStatistics(TypedDict):
    """How well a tokenizer compresses the train split."""

    vocab_size: int
    vocab_size_asked: int
    """`tokenizer.vocab_size`, which a small corpus does not reach."""
    unused_entries: int
    """Entries that no text of the train split uses."""
    longest_entries: list[str]
    bytes_per_token: float
    tokens_per_word: float
    train: TrainSplitStatistics


class SplitSize(TypedDict):
    """The size of a split."""

    documents: int
    tokens: int
    """The end-of-text token of each document included."""
    bytes: int


class DatasetMeta(TypedDict):
    """What token shards hold."""

    vocab_size: int
    end_of_text: int
    """Id of the end-of-text token."""
    duplicates: int
    """Documents equal to an earlier one."""
    train: SplitSize
    val: SplitSize
    label: NotRequired[str]
    """See SourceRecord."""


class ModelFile(TypedDict):
    """config.json: what a model is and how it was trained."""

    model: dict[str, Any]
    """The table [model]."""
    train: dict[str, Any]
    """The table [train]."""
    vocab_size: int
    precision: str
    """The precision that was used: fp32 or bf16."""
    step: int
    """Optimizer steps that made the weights."""


class StepRow(TypedDict):
    """One optimizer step."""

    kind: Literal["step"]
    step: int
    tokens: int
    """Training tokens seen so far."""
    loss: float
    """Mean cross-entropy of the global batch before the update [nats per token]."""
    learning_rate: float
    grad_norm: float
    """2-norm of the whole gradient before clipping."""
    chain: str
    """16 hex digits of a rolling SHA-256 over losses and gradient norms."""


class EvalRow(TypedDict):
    """One evaluation during training."""

    kind: Literal["eval"]
    step: int
    tokens: int
    val_loss: float
    """Mean cross-entropy over the validation split [nats per token]."""
    val_perplexity: float
    best: bool
    """Whether this was the lowest validation loss so far."""
    sample: str
    """A text generated from `train.sample_prompt`."""


MetricsRow = StepRow | EvalRow


class RunState(TypedDict):
    """What a run remembers besides weights, optimizer state and metrics."""

    step: int
    chain: str
    """The rolling SHA-256; two runs agree up to the first step where it differs."""
    best_step: int
    """Step of the lowest validation loss; 0 for none."""
    best_loss: float
    exact: bool
    """Every step so far ran in one environment, so that the run can be repeated bit for bit."""
    environment: dict[str, str]
    """What the last bits of a step depend on."""
    snapshots: dict[str, str]
    """SHA-256 of each weight snapshot, by file name."""


class ScoreRecord(TypedDict):
    """How well predictions fit a text."""

    loss: float
    """Mean cross-entropy [nats per token]."""
    perplexity: float
    bits_per_byte: float | None
    """None where there is no text."""


class EstimateRecord(TypedDict):
    """A measure and its 95 % interval."""

    value: float
    low: float
    high: float


class LongestCopy(TypedDict):
    """The longest run of tokens that a generated text shares with the training text."""

    tokens: int
    text: str
    sample: int
    """Number of the generated text that has it."""
    generated: str
    """That generated text."""
    origin: int
    """Number of the first training document that has it; 0 is the first in train.bin."""
    training: str
    """That document, from `max_tokens` before the copy begins to `max_tokens` after."""


class GenerationQuality(TypedDict):
    """Texts generated without a prompt, compared with as many documents of the validation split."""

    count: int
    temperature: float
    max_tokens: int
    """To which both were cut."""
    seed: int
    generated: dict[str, EstimateRecord]
    """Each measure of analysis.generation_metrics, of the generated texts."""
    validation: dict[str, EstimateRecord]
    """The same of the validation documents."""
    unseen: list[str]
    """Generated words that no training document has."""
    longest: LongestCopy


class EvalRecord(TypedDict):
    """The result of an evaluation."""

    judged: Literal["validation split", "text"]
    step: int
    label: str | None
    loss: float
    perplexity: float
    bits_per_byte: float | None
    tokens: int
    """Predicted."""
    bytes: int
    """Of their text."""
    documents: int
    """With at least one predicted token."""
    standard_error: float | None
    """Of the loss, if the documents are a sample of all such documents; None for fewer than two."""
    baselines: dict[str, ScoreRecord]
    """uniform, unigram, bigram, trigram and the untrained model."""
    generation_metrics: GenerationQuality | None


class SampleRecord(TypedDict):
    """A generated text."""

    sample: int
    """Its number."""
    prompt: str | None
    """None where the model began by itself."""
    text: str
    """Prompt and continuation."""
    token_ids: list[int]
    """Of the continuation, the end-of-text token or stop text included."""
    logprobs: list[float]
    """Of these tokens, by the model itself at temperature 1 [nats]."""
    stop_reason: Literal["end_of_text", "stop", "length", "context"]
    seed: int
    model: str
    """Digest of the train artifact."""
    tokenizer: str
    """Digest of the tokenize artifact."""
    decoder: str
    """What computed it, e.g., "numpy"."""
