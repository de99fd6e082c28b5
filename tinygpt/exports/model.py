"""A trained model as exports see it: weights, tokenizer, and what it was made from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tinygpt.config import ModelConfig
from tinygpt.errors import InputError, MissingArtifactError
from tinygpt.lm.tokenizer import Tokenizer
from tinygpt.records import MetricsRow
from tinygpt.runs.trained_weights import TrainedWeights, open_weights
from tinygpt.store import Artifact
from tinygpt.store.metrics import METRICS, read_metrics

Weights = Literal["auto", "best", "last"]


@dataclass(frozen=True)
class ModelToExport:
    """A trained model and what an export says about it.

    Args:
        train: the run, a checkpoint of it, or the folder of a model that was copied.
        tokenizer_json: the bytes of its tokenizer.json.
        weights: the chosen weights.
        lineage: what it was made from and what was measured, by stage ("corpus", "tokenize",
            "build-dataset", "eval", "plot"), as far as it is in the store.
        data_license: of the training text, as the user states it; None if it was not stated.
    """

    train: Artifact
    tokenizer_json: bytes
    weights: TrainedWeights
    lineage: Mapping[str, Artifact] = field(default_factory=dict)
    data_license: str | None = None

    @property
    def id(self) -> str:
        """The first 12 digits of the key of its run."""
        return self.train.id

    @property
    def config(self) -> ModelConfig:
        """Its shape."""
        return self.weights.config

    @property
    def vocab_size(self) -> int:
        """V, the entries of its tokenizer and the rows of its embedding."""
        return self.weights.vocab_size

    @property
    def tokenizer(self) -> Tokenizer:
        """Its tokenizer."""
        return Tokenizer.from_bytes(self.tokenizer_json)

    def metrics(self) -> list[MetricsRow]:
        """Its training, step by step.

        Raises:
            MissingArtifactError: no training is recorded with it.
            CorruptArtifactError: the record is damaged, or something else.
        """
        if METRICS not in set(self.train.names()) - set(self.train.missing()):
            raise MissingArtifactError(
                f"no training is recorded with model `{self.id}`: it has no `{METRICS}`",
                hint="name a model that was trained here; `tinygpt artifacts ls train` lists them",
            )
        return read_metrics(self.train)


def open_model(
    train: Artifact,
    which: Weights = "auto",
    *,
    lineage: Mapping[str, Artifact] | None = None,
    data_license: str | None = None,
) -> ModelToExport:
    """Read a model.

    Args:
        train, lineage, data_license: see ModelToExport.
        which: see open_weights.
    Raises:
        CorruptArtifactError: a file is damaged or not of this model.
        InputError: tokenizer and model do not belong together.
    """
    weights = open_weights(train, which)
    model = ModelToExport(train, train.read("tokenizer.json"), weights, lineage or {}, data_license)
    entries = model.tokenizer.vocab_size
    if entries != weights.vocab_size:
        raise InputError(
            f"the tokenizer has {entries:,} entries, the model {weights.vocab_size:,}",
            hint="`tinygpt artifacts lineage` shows what a model was made from",
        )
    return model
