"""The configuration: frozen tables, where their values come from, and how they are written."""

from tinygpt.config.source import BuiltinSource, FileSource, HubSource, Source, StdinSource, parse_source
from tinygpt.config.tables import (
    MAX_VOCAB_SIZE,
    Config,
    DataConfig,
    DatasetConfig,
    EvalConfig,
    ModelConfig,
    PlotConfig,
    RuntimeConfig,
    SampleConfig,
    TokenizerConfig,
    TrainConfig,
)

__all__ = [
    "MAX_VOCAB_SIZE",
    "BuiltinSource",
    "Config",
    "DataConfig",
    "DatasetConfig",
    "EvalConfig",
    "FileSource",
    "HubSource",
    "ModelConfig",
    "PlotConfig",
    "RuntimeConfig",
    "SampleConfig",
    "Source",
    "StdinSource",
    "TokenizerConfig",
    "TrainConfig",
    "parse_source",
]
