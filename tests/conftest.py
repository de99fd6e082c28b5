"""What every test may rely on: two threads, no network, no settings of the person who runs it."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

from tinygpt.config import Config, ModelConfig, TokenizerConfig, TrainConfig

# Before torch, tokenizers or a child process starts: tests share the machine, and their numbers must not depend on its cores.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("RAYON_NUM_THREADS", "2")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
# A port that refuses at once: a test that would use the network fails in a moment instead of passing on some machines only.
os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
for _name in [name for name in os.environ if name.startswith("TINYGPT_")]:
    del os.environ[_name]

settings.register_profile("tinygpt", deadline=None, print_blob=True)
settings.load_profile("tinygpt")

ROOT = Path(__file__).parents[1]
STORIES = ROOT.parent / "shared" / "data" / "tinystories-7k.jsonl"


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def stories_7k() -> Path:
    """7,000 real stories that lie beside the checkout on some machines; the test is skipped elsewhere."""
    if not STORIES.is_file():
        pytest.skip("needs ../shared/data/tinystories-7k.jsonl beside the checkout")
    return STORIES


@pytest.fixture(scope="session")
def tiny_config() -> Config:
    """A configuration whose training takes a fraction of a second."""
    return Config(
        tokenizer=TokenizerConfig(vocab_size=300),
        model=ModelConfig(d_model=16, n_layers=2, n_heads=2, d_ff=32, context_length=16, dropout=0.0),
        train=TrainConfig(
            max_steps=4, batch_size=2, grad_accum_steps=1, warmup_steps=None, eval_every=2, sample_tokens=8, precision="fp32"
        ),
    )
