"""The configuration: frozen tables, where their values come from, and how they are written."""

from tinygpt.config.load import (
    DEFAULT_PRESET,
    PRESETS,
    LoadedConfig,
    find_config,
    load_config,
    store_root,
)
from tinygpt.config.render import render, render_init
from tinygpt.config.source import BuiltinSource, FileSource, HubSource, parse_source
from tinygpt.config.tables import (
    Config,
    DataConfig,
    ModelConfig,
    PlotConfig,
    SampleConfig,
    TokenizerConfig,
    TrainConfig,
)
