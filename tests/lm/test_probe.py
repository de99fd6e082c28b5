"""A probe agrees with every way to compute a model, and with no other model."""

import sys
import types
from collections.abc import Iterator

import numpy as np
import pytest
import safetensors.numpy
import torch

import tinygpt.lm.model
from tests.lm.edits import EDITS, edited_source
from tests.lm.models import SMALL, VARIANTS, V, arrays_of, each_variant, random_model
from tinygpt.config import ModelConfig
from tinygpt.errors import ArtifactError, CorruptArtifactError, DivergedError
from tinygpt.lm import probe as probes
from tinygpt.lm.fast import agreement
from tinygpt.lm.fast.decoder import decoder_for
from tinygpt.lm.fast.model_decoder import ModelDecoder, RereadingDecoder
from tinygpt.lm.fast.numpy_decoder import NumpyDecoder
from tinygpt.lm.model import GPT
from tinygpt.lm.probe import Probe, decoder_logits, model_logits
from tinygpt.lm.weights import load_into, model_tensors

CONFIG = VARIANTS[0]


@pytest.fixture(autouse=True, scope="module")
def _one_torch_thread() -> Iterator[None]:
    """Products this small are slower in two threads, and far slower where the cores are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def text_for(config: ModelConfig, vocab_size: int = V, seed: int = 1) -> Probe:
    return probes.random_text(vocab_size, config.context_length, 0, seed)


def probe_of(model: GPT) -> Probe:
    text = text_for(model.config, model.vocab_size)
    return probes.measure(model.config, model.vocab_size, arrays_of(model), text)


def scaled(model: GPT, factor: float) -> GPT:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(factor)
    return model


# ---- agreement


@each_variant
def test_a_probe_agrees_with_every_way_to_compute_the_model(config: ModelConfig) -> None:
    model = random_model(config)
    probe = probe_of(model)
    assert 0 < probe.tolerance < 1e-3
    for decoder in (
        NumpyDecoder(config, V, arrays_of(model)),
        ModelDecoder(model),
        RereadingDecoder(model),
    ):
        assert probe.agrees(decoder_logits(decoder, probe)), decoder.name
    for explicit in (False, True):
        assert probe.agrees(model_logits(model, probe, explicit=explicit))


@pytest.mark.parametrize("context_length", [2, 3, 4, 300])
def test_a_probe_fits_into_the_context(context_length: int) -> None:
    model = random_model(ModelConfig(**{**SMALL, "context_length": context_length}))
    probe = probe_of(model)
    assert len(probe.token_ids) == min(context_length, probes.LENGTH)
    assert probe.logits is not None
    assert probe.logits.shape == (min(context_length, 3), V)
    decoder = NumpyDecoder(model.config, V, arrays_of(model))
    assert probe.agrees(decoder_logits(decoder, probe))
    model.explicit = True
    probes.check_model(model, probe)
    assert not model.explicit


@pytest.mark.parametrize("factor", [0.01, 4, 30])
def test_the_tolerance_follows_how_far_the_weights_amplify_rounding(factor: float) -> None:
    model = scaled(random_model(CONFIG), factor)
    probe = probe_of(model)
    assert probe.agrees(decoder_logits(NumpyDecoder(CONFIG, V, arrays_of(model)), probe))
    assert probe.agrees(model_logits(model, probe, explicit=False))


@each_variant
def test_weights_that_differ_in_one_number_do_not_agree(config: ModelConfig) -> None:
    model = random_model(config)
    probe = probe_of(model)
    with torch.no_grad():
        model.blocks[0].attention.qkv.weight[-1, 3] += 0.1  # type: ignore[union-attr, index, operator]
    with pytest.raises(ArtifactError, match="computes other logits"):
        probes.check_model(model, probe)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_never_agree(value: float) -> None:
    known = Probe([0, 1], np.zeros((2, V), np.float32), 1.0)
    for probe in (known, Probe([0, 1])):
        assert probe.agrees(np.zeros((2, V), np.float32))
        assert not probe.agrees(np.full((2, V), value, np.float32))


def test_equal_models_have_equal_probes_whatever_torch_drew_before() -> None:
    data = set()
    for drawn in range(2):
        torch.manual_seed(drawn)
        data.add(probes.to_bytes({"last": probe_of(random_model(CONFIG))}))
    assert len(data) == 1


# ---- what is written


def test_a_text_has_two_documents_and_depends_on_the_seed() -> None:
    texts = [text_for(CONFIG, seed=seed).token_ids for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert texts[0][0] == texts[0][12] == 0
    assert set(texts[0]) <= set(range(V))


def test_probes_come_back_from_their_bytes() -> None:
    model = random_model(CONFIG)
    last = probe_of(model)
    best = probe_of(scaled(model, 2))
    data = probes.to_bytes({"last": last, "best": best})
    for name, probe in (("last", last), ("best", best)):
        found = probes.from_bytes(data, name, V, CONFIG.context_length)
        assert found.token_ids == probe.token_ids
        assert found.logits is not None
        np.testing.assert_array_equal(found.logits, probe.logits)
        assert found.tolerance == np.float32(probe.tolerance)
    assert len(data) < 3_000


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("token_ids", np.array([V])),
        ("token_ids", np.array([-1])),
        ("token_ids", np.array([], np.int64)),
        ("token_ids", np.array([[1]])),
        ("token_ids", np.array([1.0], np.float32)),
        ("token_ids", np.zeros(25, np.int64)),
        ("last.logits", np.zeros((1, V + 1), np.float32)),
        ("last.tolerance", np.zeros(2, np.float32)),
        ("last.tolerance", None),
    ],
)
def test_a_probe_of_another_model_is_refused(name: str, array: np.ndarray | None) -> None:
    arrays = {
        "token_ids": np.array([1]),
        "last.logits": np.zeros((1, V), np.float32),
        "last.tolerance": np.zeros(1, np.float32),
    }
    probes.from_bytes(safetensors.numpy.save(arrays), "last", V, CONFIG.context_length)
    changed = {key: value for key, value in (arrays | {name: array}).items() if value is not None}
    with pytest.raises(CorruptArtifactError, match="not a probe of this model"):
        probes.from_bytes(safetensors.numpy.save(changed), "last", V, CONFIG.context_length)


# ---- huge weights


def test_weights_whose_logits_are_not_finite_have_no_probe() -> None:
    with pytest.raises(DivergedError, match="not finite"):
        probe_of(scaled(random_model(CONFIG), 1e30))


@pytest.mark.parametrize("device", ["cpu", "auto"])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.filterwarnings("error")
def test_huge_weights_are_refused_in_a_sentence(device: str, known: bool) -> None:
    model = random_model(CONFIG)
    probe = probe_of(model) if known else text_for(CONFIG)
    scaled(model, 1e30)
    with pytest.raises(CorruptArtifactError, match="logits that are not finite") as caught:
        decoder_for(CONFIG, V, arrays_of(model), device, probe=probe)
    assert caught.value.exit_code == 3
    with pytest.raises(CorruptArtifactError, match="logits that are not finite"):
        probes.check_model(model, probe)


# ---- code that changed


def edited_gpt(edit: str) -> type[GPT]:
    """GPT of lm/model.py after an edit of its text."""
    module = types.ModuleType("edited_model")
    sys.modules[module.__name__] = module  # where its dataclasses look for their module
    exec(edited_source("lm/model.py", edit), vars(module))
    return module.GPT  # type: ignore[no-any-return]


def is_seen(edit: str, model: GPT) -> bool:
    probe = probe_of(model)
    edited = edited_gpt(edit)(model.config, V)
    try:
        load_into(model_tensors(edited), arrays_of(model))
        probes.check_model(edited, probe)
    except ArtifactError as error:
        return "`tinygpt train --force`" in (error.hint or "")
    return False


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_of_the_model_is_seen(edit: str) -> None:
    """An epsilon shows where activations are small, the form of GELU where they are large."""
    assert is_seen(edit, random_model(CONFIG)) or is_seen(edit, scaled(random_model(CONFIG), 0.2))


@pytest.mark.parametrize("edit", EDITS)
def test_a_decoder_computes_the_model_that_an_edit_made(
    edit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where numpy's decoder and lm/fast compute something else, they are not used."""
    monkeypatch.setattr("tinygpt.lm.model.GPT", edited_gpt(edit))
    torch.manual_seed(0)
    # Where rounding moves the logits far less than the edit does, on any CPU
    factor = {"another epsilon": 0.2, "exact GELU": 1}.get(edit, 3)
    arrays = arrays_of(scaled(tinygpt.lm.model.GPT(CONFIG, V), factor))
    probe = probes.measure(CONFIG, V, arrays, text_for(CONFIG))
    notes: list[str] = []
    decoder = decoder_for(CONFIG, V, arrays, "cpu", 2, probe=probe, note=notes.append)
    assert probe.logits is not None
    # A model without a causal mask gives other logits at positions that are not the last
    found = decoder_logits(decoder, probe)[-1]
    assert np.abs(found - probe.logits[-1]).max() <= probe.tolerance
    mixes_positions = edit in ("no causal mask", "token shift")
    assert decoder.name == ("torch, cpu, without a cache" if mixes_positions else "torch, cpu")
    assert notes == [
        f"the decoder in numpy computes other logits than this model; using {decoder.name}"
    ]


@pytest.mark.parametrize("edit", EDITS)
def test_training_uses_the_fast_forms_only_where_they_compute_the_same(
    edit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agreement, "GPT", edited_gpt(edit))
    repeated_in_fast = ("scale of attention", "no causal mask", "another activation", "exact GELU")
    beside_hidden = ("capped logits",)
    assert agreement.fast_forms_agree(CONFIG) == (edit not in repeated_in_fast + beside_hidden)


@each_variant
def test_the_fast_forms_compute_what_the_model_says(config: ModelConfig) -> None:
    assert agreement.fast_forms_agree(config)


def test_a_decoder_without_a_cache_goes_on_with_the_rows_it_is_given() -> None:
    model = random_model(CONFIG)
    token_ids = np.random.default_rng(0).integers(0, V, (3, 8))
    logits = []
    for kind in (ModelDecoder, RereadingDecoder):
        decoder = kind(model, max_sequences=4)
        decoder.prefill(token_ids[:, :5].tolist())
        decoder.reorder([2, 0])
        decoder.decode(token_ids[:2, 5:6])
        logits.append(decoder.decode(token_ids[:2, 6:]))
    np.testing.assert_allclose(logits[1], logits[0], atol=1e-4)
