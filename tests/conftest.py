"""What every test may rely on: two threads, no network, no settings of the person who runs it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from tinygpt.config import Config, ModelConfig, TokenizerConfig, TrainConfig, render

if TYPE_CHECKING:
    from tinygpt.project import Project

# Before torch, tokenizers or a child process starts: tests share the machine, and their numbers
# must not depend on its cores.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("RAYON_NUM_THREADS", "2")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
# A port that refuses at once: a test that would use the network fails in a moment instead of
# passing on some machines only.
os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
for _name in [name for name in os.environ if name.startswith(("TINYGPT_", "COLUMNS"))]:
    del os.environ[_name]

settings.register_profile("tinygpt", deadline=None, print_blob=True)
settings.load_profile("tinygpt")

pytest_plugins = ["tests.proofs.figures"]

ROOT = Path(__file__).parents[1]
STORIES_7K = ROOT.parent / "shared" / "data" / "tinystories-7k.jsonl"


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def stories_7k() -> Path:
    """7,000 real stories beside the checkout of some machines; elsewhere the test is skipped."""
    if not STORIES_7K.is_file():
        pytest.skip("needs ../shared/data/tinystories-7k.jsonl beside the checkout")
    return STORIES_7K


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """See tests.browser.start_browser; what needs it is marked `full`."""
    from tests.browser import start_browser

    yield from start_browser()


@pytest.fixture(scope="session")
def tiny_config() -> Config:
    """A configuration whose training takes a fraction of a second."""
    return Config(
        tokenizer=TokenizerConfig(vocab_size=300),
        model=ModelConfig(
            d_model=16, n_layers=2, n_heads=2, d_ff=32, context_length=16, dropout=0.0
        ),
        train=TrainConfig(
            max_steps=4,
            batch_size=2,
            grad_accum_steps=1,
            warmup_steps=None,
            eval_every=2,
            sample_tokens=8,
            precision="fp32",
        ),
    )


@pytest.fixture(scope="session")
def pipeline_config(tiny_config: Config) -> Config:
    """A configuration whose whole pipeline takes seconds and needs no file."""
    from tests.helpers import with_settings

    return with_settings(
        tiny_config,
        data={"source": "builtin", "max_documents": 80},
        eval={"num_samples": 3},
        sample={"prompt": "Once upon a time", "max_new_tokens": 12, "seed": 1},
        plot={"ablation_tokens": 64},
        runtime={"threads": 1},
    )


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, pipeline_config: Config) -> "Project":
    """A project whose stages up to `sample` have run; tests must not change its store."""
    from tinygpt.project import Project

    project = Project(pipeline_config, tmp_path_factory.mktemp("finished") / "artifacts")
    project.run("sample")
    return project


@pytest.fixture(scope="session")
def trained_folder(tmp_path_factory: pytest.TempPathFactory, tiny_config: Config) -> Path:
    """A folder with a configuration and all that it makes up to the evaluation."""
    from tinygpt.project import Project

    folder = tmp_path_factory.mktemp("library")
    data = tiny_config.data.model_copy(update={"source": "builtin", "max_documents": 100})
    evaluation = tiny_config.eval.model_copy(update={"num_samples": None})
    config = tiny_config.model_copy(update={"data": data, "eval": evaluation})
    (folder / "tinygpt.toml").write_text(render(config, "toml"), encoding="utf-8")
    Project(config, folder / "artifacts").run("eval")
    return folder
