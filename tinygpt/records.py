"""The JSON files that stages write, each key with its meaning; every reader uses these types.

| file | record | stage |
|---|---|---|
| summary.json | Summary | every stage |
| meta.json | CorpusMeta | corpus |
| statistics.json | TokenizerStatistics | tokenize |
| meta.json | DatasetMeta | build-dataset |
| config.json | ModelFile | train, and its checkpoints |
| import.json | ImportRecord | train, of an imported model |
| metrics.jsonl, a line each | StepRow or EvalRow | train, and its checkpoints |
| state.json | RunState | checkpoints of train |
| eval.json | EvalRecord | eval |
| documents.jsonl, a line each | DocumentRow | eval |
| samples.jsonl, a line each | SampleRecord | sample |
"""

from typing import Annotated, Any, Literal, NotRequired

from annotated_types import Ge, Gt, Len, Lt
from typing_extensions import TypedDict  # pydantic cannot check that of Python 3.11

Count = Annotated[int, Ge(0), Lt(2**63)]
"""A number that is not negative and fits into 64 bits."""

Loss = Annotated[float, Gt(-1e40), Lt(1e40)]
"""Nats; what fp32 cannot hold is no loss, and sums of what it can are finite."""

PrecisionName = Literal["fp32", "bf16"]


class Summary(TypedDict):
    """The result table that a stage ends with."""

    rows: list[Annotated[list[str], Len(2, 2)]]
    """Label and value of each line."""
    pictures: NotRequired[list[str]]
    """Files of the pictures (plot alone)."""
    numbers: NotRequired["TrainingNumbers"]
    """Results of the run (train alone)."""


class TrainingNumbers(TypedDict):
    """What a training run did and reached."""

    steps: Count
    tokens: Count
    """Training tokens seen; a token that was seen twice counts twice."""
    passes: float
    """Over the training text: `tokens` divided by its length."""
    parameters: Count
    train_loss: Loss
    """Mean of the last 20 steps [nats per token]."""
    val_loss: Loss
    """Of the last weights [nats per token]."""
    val_perplexity: float
    """Of the last weights."""
    best_step: Count
    """Step of the lowest validation loss."""
    best_val_loss: Loss


class SourceRecord(TypedDict):
    """Where documents come from.

    Without path and commit, so that equal texts give equal artifacts.
    """

    kind: Literal["builtin", "hub", "files"]
    seed: NotRequired[Count]
    """Of the builtin generator."""
    name: NotRequired[str]
    """Of a hub dataset."""
    split: NotRequired[str]
    """Of a hub dataset."""
    files: NotRequired[Count]
    """Number of files."""
    label: NotRequired[str]
    """A warning that stands beside every number measured on this source."""


class CorpusMeta(TypedDict):
    """What a corpus holds."""

    documents: Count
    bytes: Count
    """Of their UTF-8 text."""
    empty: Count
    """Documents without a visible character, which were dropped."""
    unit: NotRequired[str]
    """"paragraph" or "line", if the documents are such parts of one text."""
    source: SourceRecord


class TrainSplitStatistics(TypedDict):
    """The train split, as the tokenizer saw it."""

    documents: Count
    words: Count
    """Runs of characters between white space."""
    bytes: Count
    tokens: Count


class TokenizerStatistics(TypedDict):
    """How well a tokenizer compresses the train split."""

    vocab_size: Count
    vocab_size_asked: Count
    """`tokenizer.vocab_size`, or the number that auto stands for; a small corpus has fewer."""
    unused_entries: Count
    """Entries that no text of the train split uses."""
    unused_bytes: Count
    """Those of them that are a single byte: every tokenizer has all 256."""
    longest_entries: list[str]
    bytes_per_token: float
    tokens_per_word: float
    train: TrainSplitStatistics


class SplitSize(TypedDict):
    """The size of a split."""

    documents: Count
    """One that is cut counts in each split that has a part of it."""
    tokens: Count
    """The end-of-text token of each document included."""
    bytes: Count


class DatasetMeta(TypedDict):
    """What token shards hold."""

    vocab_size: Count
    end_of_text: Count
    """Id of the end-of-text token."""
    holdout: Literal["hash", "end"]
    """Whether documents were held out by their hash, or the end of the text."""
    holdout_reason: str
    """Why, e.g., "auto: 12 documents, fewer than 20"."""
    duplicates: Count
    """Documents equal to an earlier one."""
    train: SplitSize
    val: SplitSize
    test: NotRequired[SplitSize]
    """With `dataset.test_fraction` > 0."""
    unit: NotRequired[str]
    """See CorpusMeta."""
    label: NotRequired[str]
    """See SourceRecord."""


class TrainTable(TypedDict):
    """The table [train]: of its keys those that are read again; the others are kept."""

    seed: Count
    optimizer: str
    max_steps: Count


TrainTable.__pydantic_config__ = {"extra": "allow"}  # type: ignore[attr-defined]


class ModelFile(TypedDict):
    """config.json: what a model is and how it was trained."""

    model: dict[str, Any]
    """The table [model]."""
    train: NotRequired[TrainTable]
    """Not of an imported model, whose training is not known."""
    vocab_size: Count
    precision: PrecisionName
    """The precision that was used."""
    step: Count
    """Optimizer steps that made the weights; 0 of an imported model."""


class ImportRecord(TypedDict):
    """import.json: what had to be done to the weights of an imported model."""

    numbers: list[str]
    """Types of the numbers in its files, e.g., "float16"; they are kept as float32."""
    dropped_rows: Count
    """Of the embedding, beyond the tokenizer's entries."""
    zero_biases: Count
    """Biases that the files lack."""
    masks: Count
    """Buffers in the files that are no weights."""
    gelu_difference: float | None
    """Largest difference of the probe's logits from those with the exact GELU, with which the model
    was trained; None if that was the tanh form.
    """


class StepRow(TypedDict):
    """One optimizer step."""

    kind: Literal["step"]
    step: Count
    tokens: Count
    """Training tokens seen so far."""
    loss: Loss
    """Mean cross-entropy of the global batch before the update [nats per token]."""
    learning_rate: float
    grad_norm: float
    """2-norm of the whole gradient before clipping."""
    chain: str
    """16 hex digits of a rolling SHA-256 over losses and gradient norms."""


class EvalRow(TypedDict):
    """One evaluation during training."""

    kind: Literal["eval"]
    step: Count
    tokens: Count
    val_loss: Loss
    """Mean cross-entropy over the validation split [nats per token]."""
    val_perplexity: float
    best: bool
    """Whether this was the lowest validation loss so far."""
    sample: str
    """A text generated from `train.sample_prompt`."""


MetricsRow = StepRow | EvalRow


class CodeRecord(TypedDict):
    """The code in lm/ that trained a model; in its provenance, and in the state of a checkpoint."""

    tinygpt: str
    """Version."""
    python: str
    """Version, e.g., "3.11"; digests of other versions cannot be compared."""
    source: str
    """Hash of the text of all modules."""
    modules: dict[str, str]
    """Hash of the syntax tree of each, without docstrings, by path, e.g., "lm/model.py"."""


class RunState(TypedDict):
    """What a run remembers besides weights, optimizer state and metrics."""

    step: Count
    chain: str
    """The rolling SHA-256; two runs agree up to the first step where it differs."""
    best_step: Count
    """Step of the lowest validation loss; 0 for none."""
    best_loss: Loss
    exact: bool
    """Every step so far ran in one environment, so that the run can be repeated bit for bit."""
    environment: dict[str, str]
    """What the last bits of a step depend on."""
    code: CodeRecord
    snapshots: dict[str, str]
    """SHA-256 of each weight snapshot, by file name."""


class ScoreRecord(TypedDict):
    """How well predictions fit a text."""

    loss: Loss
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

    tokens: Count
    text: str
    sample: Count
    """Number of the generated text that has it."""
    generated: str
    """That generated text."""
    origin: Count
    """Number of the first training document that has it; 0 is the first in train.bin."""
    training: str
    """That document, from `max_tokens` before the copy begins to `max_tokens` after."""


class GenerationQuality(TypedDict):
    """Texts generated without a prompt, compared with as many held-out documents."""

    count: Count
    temperature: float
    max_tokens: Count
    """To which both were cut."""
    seed: Count
    generated: dict[str, EstimateRecord]
    """Each measure of analysis.generation_metrics, of the generated texts."""
    validation: dict[str, EstimateRecord]
    """The same of the held-out documents: of the test split if that is judged."""
    unseen: list[str]
    """Generated words that no training document has."""
    longest: LongestCopy


class WeightsScore(ScoreRecord):
    """How well one set of weights of a run fits a text."""

    weights: Literal["best", "last"]
    """Those with the lowest validation loss during training, or those of the last step."""
    step: Count


class EvalRecord(TypedDict):
    """The result of an evaluation."""

    judged: Literal["validation split", "test split", "text"]
    weights: Literal["best", "last"]
    """Those that were evaluated, see WeightsScore."""
    step: Count
    """Of these weights."""
    other_weights: WeightsScore | None
    """The run's other weights on the same text; None where both are the same."""
    text: NotRequired[str]
    """What was read with `eval.text`, e.g., "1 file: blank lines separate documents"."""
    left_out: NotRequired[Count]
    """Bytes of that text in no document: separators, blank lines between documents."""
    label: str | None
    loss: Loss
    perplexity: float
    bits_per_byte: float | None
    tokens: Count
    """Predicted."""
    bytes: Count
    """Of their text."""
    documents: Count
    """With at least one predicted token."""
    standard_error: float | None
    """Of the loss, if the documents are a sample of all such documents; None for fewer than two."""
    baselines: dict[str, ScoreRecord]
    """uniform, unigram, bigram, trigram and the untrained model."""
    generation_metrics: GenerationQuality | None


class DocumentRow(TypedDict):
    """What the last weights of a run predict of a held-out document.

    Of fewer than 20 documents, a line is a block of about 512 consecutive tokens of one.
    """

    document: Count
    """Its number in the evaluated text."""
    nats: Loss
    """Total cross-entropy."""
    tokens: Count
    """Predicted; the first token of the text is not."""
    bytes: Count
    """Of their text."""


class SampleRecord(TypedDict):
    """A generated text."""

    sample: Count
    """Its number."""
    prompt: str | None
    """None where the model began by itself."""
    text: str
    """Prompt and continuation; with `sample.ignore_eos`, an end-of-text token is a blank line."""
    token_ids: list[Count]
    """Of the continuation, the end-of-text token or stop text included."""
    logprobs: list[float]
    """Of these tokens, by the model itself at temperature 1 [nats]."""
    stop_reason: Literal["end_of_text", "stop", "length", "context"]
    seed: Count
    model: str
    """Digest of the train artifact."""
    tokenizer: str
    """Digest of the tokenize artifact."""
    weights: Literal["best", "last"]
    """Of the model, see WeightsScore."""
    step: Count
    """Of these weights."""
    decoder: str
    """What computed it, e.g., "numpy"."""
