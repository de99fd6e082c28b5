"""Sampling against its targets, which mean something on a quiet machine: `pytest tests/benchmarks/bench_sample.py -s`."""

import json
from importlib.util import find_spec

from tinygpt.bench.sample import bench_sample


def test_sampling_reaches_its_targets() -> None:
    report = bench_sample(None, 5, print)
    print(json.dumps(report, indent=2))
    assert report["tokens_per_second_batch_1"] > 1_600
    assert report["first_token_ms"] < 800
    if find_spec("transformers"):
        assert report["ratio_vs_hf_batch_1"] >= 8
        assert report["ratio_vs_hf_batch_32"] >= 5
