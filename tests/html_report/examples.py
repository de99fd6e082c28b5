"""What the report of a small run shows, with a text of the test's choice in every field."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tests.analysis.examples import training_curves
from tinygpt.analysis.ablation import HeadAblation
from tinygpt.analysis.model_analysis import ModelAnalysis
from tinygpt.analysis.run_analysis import RunAnalysis
from tinygpt.analysis.weight_groups import arrays_of, weight_groups
from tinygpt.config import ModelConfig, PlotConfig, TrainConfig
from tinygpt.html_report import ReportFacts
from tinygpt.lm.init import init_weights
from tinygpt.lm.model import GPT
from tinygpt.records import EstimateRecord, EvalRecord, GenerationQuality

T, L, H = 9, 2, 2
STEPS = (0, 1, 10, 300)
MEASURES = (
    "distinct_1",
    "distinct_2",
    "distinct_3",
    "ended",
    "loops",
    "unseen_words",
    "longest_match",
    "memorized",
)
CONFIG = ModelConfig(d_model=8, n_layers=L, n_heads=H, d_ff=16, context_length=16)


def _model(seed: int) -> GPT:
    model = init_weights(GPT(CONFIG, 70), seed)
    for parameter in model.parameters():
        parameter.data.mul_(10)  # untrained heads attend to all tokens alike
    return model


_TOKEN_IDS = np.random.default_rng(0).integers(0, 70, T).tolist()
_MODELS = {step: _model(step) for step in STEPS}
SNAPSHOTS = [ModelAnalysis.of(model, _TOKEN_IDS, step) for step, model in _MODELS.items()]


def run_analysis(
    text: str = "Once", snapshots: Sequence[ModelAnalysis] = SNAPSHOTS, *, ablation: bool = True
) -> RunAnalysis:
    """A run of 300 steps; `text` begins every token and every sample."""
    increase = np.array([[0.1, -0.2], [0.3, 0.0]])
    unknown = np.full((L, H), np.nan)
    return RunAnalysis(
        labels=[f"{text}{i}" for i in range(T)],
        curves=training_curves(300, text),
        baselines={"uniform": 4.2, "trigram": 2.5},
        weights=(weight_groups(arrays_of(_MODELS[300])), weight_groups(arrays_of(_MODELS[0]))),
        snapshots=snapshots,
        ablation=HeadAblation(2.0, increase, unknown, 64) if ablation else None,
    )


def imported() -> tuple[RunAnalysis, ReportFacts]:
    """An imported model, drawn on a text that was given: nothing is known of its training."""
    analysis = run_analysis(snapshots=[replace(SNAPSHOTS[-1], step=0)], ablation=False)
    final, _ = analysis.weights
    known = facts()
    del known["model_config"]["train"]
    known["model_config"]["step"] = 0
    known |= {"dataset": None, "evaluation": None}
    return replace(analysis, curves=None, baselines={}, weights=(final, None)), known


def facts(text: str = "plain") -> ReportFacts:
    """The facts of that run; `text` is in every field that can hold a text."""
    return {
        "model_config": {
            "model": CONFIG.model_dump(mode="json"),
            "train": TrainConfig(sample_prompt=text).model_dump(mode="json"),
            "vocab_size": 70,
            "precision": "fp32",
            "step": 300,
        },
        "dataset": {
            "vocab_size": 70,
            "end_of_text": 0,
            "duplicates": 0,
            "train": {"documents": 10, "tokens": 200, "bytes": 900},
            "val": {"documents": 4, "tokens": 100, "bytes": 400},
            "label": text,
        },
        "evaluation": evaluation(text),
        "plot": PlotConfig(text=text).model_dump(mode="json"),
        "lineage": [("train", "ab" * 32)],
    }


def evaluation(text: str) -> EvalRecord:
    return {
        "judged": "validation split",
        "weights": "best",
        "step": 250,
        "other_weights": {
            "weights": "last",
            "step": 300,
            "loss": 2.3,
            "perplexity": 9.97,
            "bits_per_byte": 1.6,
        },
        "label": text,
        "loss": 2.2,
        "perplexity": 9.03,
        "bits_per_byte": 1.5,
        "tokens": 99,
        "bytes": 400,
        "documents": 4,
        "standard_error": 0.01,
        "baselines": {text: {"loss": 4.2, "perplexity": 66.7, "bits_per_byte": None}},
        "generation_metrics": generation_quality(text),
    }


def generation_quality(text: str) -> GenerationQuality:
    share: EstimateRecord = {"value": 0.5, "low": 0.4, "high": 0.6}
    tokens: EstimateRecord = {"value": 12.5, "low": 11, "high": 14}
    validation = dict.fromkeys(MEASURES, share)
    return {
        "count": 4,
        "temperature": 0.8,
        "max_tokens": 256,
        "seed": 1337,
        "generated": {**validation, "longest_match": tokens},
        "validation": validation,
        "unseen": [text],
        "longest": {
            "tokens": 3,
            "text": text,
            "sample": 2,
            "generated": f"a {text} b",
            "origin": 7,
            "training": f"c {text} d",
        },
    }
