"""A GPT-2 folder of Hugging Face as two artifacts: its tokenizer and its model."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinygpt.config import Config
from tinygpt.errors import CorruptArtifactError, DivergedError, InputError
from tinygpt.imports.config_file import GPT2Config, read_config
from tinygpt.imports.folder import CONFIG, ModelFolder
from tinygpt.imports.tokenizer_files import read_tokenizer
from tinygpt.imports.weight_files import ImportedWeights, read_weights
from tinygpt.lm import probe as probes
from tinygpt.lm import weights
from tinygpt.lm.model import MLP
from tinygpt.lm.probe import Probe
from tinygpt.lm.tokenizer import Tokenizer
from tinygpt.pipeline import Outcome, Runner, Stage, execute
from tinygpt.progress import Reporter
from tinygpt.records import ImportRecord, ModelFile
from tinygpt.runs.trained_weights import FILES, PROBE
from tinygpt.store import ArtifactWriter, Inputs, Store

FOLDER = "folder"
# Their versions are raised when a folder should give other bytes
TOKENIZE = Stage("tokenize", 1, (), (FOLDER,))
TRAIN = Stage("train", 1, ("model",), (FOLDER, "tokenize"))
SEED = 0  # of the text of the probe


class Imported(NamedTuple):
    """The two artifacts of a folder."""

    tokenize: Outcome
    train: Outcome


def import_model(
    path: Path,
    store: Store,
    *,
    tanh_gelu: bool = False,
    reporter: Reporter,
    lock_timeout: float | None = None,
) -> Imported:
    """Import a folder, or find that it was imported.

    Args:
        path: the folder.
        store: where the artifacts go.
        tanh_gelu: also import a model with the exact GELU, and compute it with the tanh form.
        reporter: receives progress and notes.
        lock_timeout: see pipeline.execute.
    Raises:
        UsageError: there is no such folder.
        InputError: it is no GPT-2 that tinygpt can compute, or damaged.
        ConfigError: it needs more memory than there is.
        StorageError, BusyError: see pipeline.execute.
    """
    folder = ModelFolder(path)
    imports = _Import(folder, read_config(folder.json(CONFIG), tanh_gelu=tanh_gelu))

    def make(stage: Stage, runner: Runner, inputs: Inputs, *, force: bool = False) -> Outcome:
        try:
            return execute(
                stage,
                Config(model=imports.config.model),
                inputs,
                store=store,
                external_digests={},
                runner=runner,
                reporter=reporter,
                force=force,
                lock_timeout=lock_timeout,
            )
        except CorruptArtifactError:
            if force:
                raise
        reporter.note(f"the `{stage.name}` artifact of this folder is damaged; importing it again")
        return make(stage, runner, inputs, force=True)

    inputs = {FOLDER: folder.as_input()}
    tokenize = make(TOKENIZE, imports.tokenize, inputs)
    train = make(TRAIN, imports.train, {**inputs, "tokenize": tokenize.artifact})
    return Imported(tokenize, train)


@dataclass(frozen=True)
class _Import:
    """Writes the artifacts of a folder; its methods are what `pipeline.execute` runs."""

    folder: ModelFolder
    config: GPT2Config

    def tokenize(
        self, config: Config, inputs: Inputs, out: ArtifactWriter, reporter: Reporter
    ) -> None:
        """Write the tokenizer."""
        tokenizer = read_tokenizer(self.folder)
        out.bytes("tokenizer.json", tokenizer.to_bytes())
        rows = [
            ["entries", f"{tokenizer.vocab_size:,}, with their ids"],
            ["end of text", f"id {tokenizer.end_of_text:,}"],
            ["longest entry", f"{max(tokenizer.byte_lengths)} bytes"],
        ]
        self._finish(out, rows)

    def train(
        self, config: Config, inputs: Inputs, out: ArtifactWriter, reporter: Reporter
    ) -> None:
        """Write the model."""
        tokenizer_json = inputs["tokenize"].read("tokenizer.json")
        tokenizer = Tokenizer.from_bytes(tokenizer_json)
        read = read_weights(self.folder, self.config, tokenizer.vocab_size)
        out.bytes(FILES["last"], weights.dump(read.tensors))
        probe = measure(config, tokenizer, read.tensors)
        out.bytes(PROBE, probes.to_bytes({"last": probe}))
        out.bytes("tokenizer.json", tokenizer_json)
        model_file: ModelFile = {
            "model": config.model.model_dump(mode="json"),
            "vocab_size": tokenizer.vocab_size,
            "precision": "fp32",
            "step": 0,
        }
        out.json("config.json", model_file)
        difference = gelu_difference(config, read, probe) if self.config.exact_gelu else None
        record: ImportRecord = {
            "numbers": read.numbers,
            "dropped_rows": read.dropped_rows,
            "zero_biases": read.zero_biases,
            "masks": read.masks,
            "gelu_difference": difference,
        }
        out.json("import.json", record)
        self._finish(out, _rows(config, read, record))

    def _finish(self, out: ArtifactWriter, rows: list[list[str]]) -> None:
        out.json("summary.json", {"rows": rows})
        out.provenance(imported=self.folder.path.resolve().name)
        self.folder.check_unchanged()


def measure(config: Config, tokenizer: Tokenizer, tensors: dict[str, Tensor]) -> Probe:
    """What lm/model.py computes with imported weights.

    Raises:
        InputError: logits that are not finite.
    """
    model = config.model
    text = probes.random_text(
        tokenizer.vocab_size, model.context_length, tokenizer.end_of_text, SEED
    )
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    try:
        return probes.measure(model, tokenizer.vocab_size, arrays, text)
    except DivergedError as error:
        raise InputError(
            "the weights give logits that are not finite",
            hint="the model is broken, or damaged on its way; take it from its author again",
        ) from error


def gelu_difference(config: Config, read: ImportedWeights, probe: Probe) -> float:
    """By how much the logits of a probe differ at most between both forms of GELU."""
    arrays = {name: tensor.numpy() for name, tensor in read.tensors.items()}
    model = weights.model_of(config.model, len(arrays["token_embedding.weight"]), arrays)

    def exactly(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        assert isinstance(module, MLP)
        result: Tensor = module.down(F.gelu(module.up(inputs[0])))
        return result

    for block in model.blocks:
        assert isinstance(block.mlp, MLP)
        block.mlp.register_forward_hook(exactly)
    with torch.inference_mode():
        exact = probes.model_logits(model, probe, explicit=True)
    return float(np.abs(exact - probe.logits).max())


def _rows(config: Config, read: ImportedWeights, record: ImportRecord) -> list[list[str]]:
    """The result table."""
    model = config.model
    shape = f"{model.n_layers} layers of {model.n_heads} heads, width {model.d_model}"
    parameters = sum(tensor.numel() for tensor in read.tensors.values())
    rows = [
        ["parameters", f"{parameters:,}"],
        ["shape", f"{shape}, context {model.context_length:,}"],
        ["numbers", f"{', '.join(read.numbers)}, stored as float32"],
    ]
    if read.dropped_rows:
        beyond = "rows of the embedding beyond the tokenizer's entries"
        rows.append(["dropped", f"{read.dropped_rows:,} {beyond}"])
    if read.zero_biases:
        rows.append(["zeros", f"{read.zero_biases} biases that the folder lacks"])
    if read.masks:
        rows.append(["left out", f"{read.masks} mask buffers, which are no weights"])
    if record["gelu_difference"] is not None:
        moved = f"logits differ by up to {record['gelu_difference']:.2g} from the exact form"
        rows.append(["GELU", f"in its tanh form; {moved}"])
    return rows
