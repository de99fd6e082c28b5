"""The weights of a trained model as everything reads them: chosen, and checked by their probe."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tinygpt.config import ModelConfig
from tinygpt.errors import UsageError
from tinygpt.lm import probe as probes
from tinygpt.lm.fast.decoder import decoder_for
from tinygpt.lm.probe import Probe
from tinygpt.lm.sampling import Decoder
from tinygpt.lm.weights import Array, largest_file, model_of, read_arrays, read_config
from tinygpt.records import EvalRow, ModelFile
from tinygpt.store import Artifact
from tinygpt.store.metrics import METRICS, evaluations, read_metrics

if TYPE_CHECKING:
    from tinygpt.lm.model import GPT

FILES = {"best": "best/model.safetensors", "last": "model.safetensors"}
PROBE = "probe.safetensors"
MAX_PROBE = 16 << 20  # bytes
IMPORTED = "as imported"  # which weights those of an imported model are
SNAPSHOT = re.compile(r"snapshots/step-(\d+)\.safetensors")
MAX_RISE = 0.01  # of the validation loss [nats per token], from which on "auto" takes the best

Note = Callable[[str], None]


def ignore(text: str) -> None:
    """Receive a note that nobody is to see."""


@dataclass(frozen=True)
class TrainedWeights:
    """One set of weights of a model.

    Args:
        config, vocab_size: the model.
        arrays: its parameters by name, float32.
        step: optimizer steps that made the weights; 0 for an imported model.
        which: whether they are those with the lowest validation loss or those of the last step.
        note: what to say about the choice; None for nothing.
        probe: what these weights computed when they were trained.
    """

    config: ModelConfig
    vocab_size: int
    arrays: dict[str, Array]
    step: int
    which: Literal["best", "last"]
    note: str | None
    probe: Probe

    @property
    def title(self) -> str:
        """Which weights these are, in words."""
        return f"{self.which}, of step {self.step:,}" if self.step else IMPORTED

    def decoder(self, device: str, max_sequences: int = 1, note: Note = ignore) -> Decoder:
        """A decoder that agrees with the probe; args and errors as of decoder_for."""
        return decoder_for(
            self.config,
            self.vocab_size,
            self.arrays,
            device,
            max_sequences,
            probe=self.probe,
            note=note,
        )

    def model(self, note: Note = ignore) -> "GPT":
        """The PyTorch model, on the CPU in fp32, in agreement with the probe.

        Args:
            note: receives a line where forms of lm/fast are not used because their logits differ.
        Raises:
            ArtifactError: the code in lm/ computes other logits than those of the probe.
            CorruptArtifactError: the weights do not fit lm/model.py, or logits are not finite.
        """
        model = model_of(self.config, self.vocab_size, self.arrays)
        probes.check_model(model, self.probe)
        if model.explicit:
            note("lm/fast computes other logits than lm/model.py; using lm/model.py alone, slower")
        return model


def best_evaluation(rows: list[EvalRow]) -> EvalRow:
    """The evaluation with the lowest validation loss, whose weights the run kept."""
    return [row for row in rows if row["best"]][-1]


def choose(last_loss: float, best_loss: float) -> Literal["best", "last"]:
    """The weights that "auto" takes, by their validation losses."""
    return "best" if last_loss - best_loss > MAX_RISE else "last"


def open_weights(train: Artifact, which: Literal["auto", "best", "last"]) -> TrainedWeights:
    """Read weights of a model.

    Args:
        train: the artifact of a run, a checkpoint, or the folder of a model that was copied.
        which: "auto" takes "best" where the validation loss has risen by more than MAX_RISE since,
            else "last".
    Raises:
        CorruptArtifactError: a file is damaged or not of this model, or a copied folder lacks it.
    """
    config, vocab_size = read_config(train.read("config.json"))
    recipe = {"model": train.manifest.tables.get("model", config.model_dump())}
    recorded = json.dumps({**recipe, "vocab_size": vocab_size}).encode()
    if read_config(recorded)[0] != config:
        raise train.malformed("config.json", "the manifest says that it is another model")
    chosen, step, note = _choice(train, which)
    if PROBE in train.names():
        probe = probes.from_bytes(
            train.read(PROBE, MAX_PROBE), chosen, vocab_size, config.context_length
        )
    else:  # of an earlier version of tinygpt: what its code computed is not known
        probe = probes.random_text(vocab_size, config.context_length, 0, 0)
    arrays = read_arrays(train.read(FILES[chosen], largest_file(config, vocab_size)))
    return TrainedWeights(config, vocab_size, arrays, step, chosen, note, probe)


def read_snapshot(train: Artifact, name: str) -> dict[str, Array]:
    """The weights in one of the files of a model."""
    shape = read_config(train.read("config.json"))
    return read_arrays(train.read(name, largest_file(*shape)))


def snapshot_files(train: Artifact, last: int, note: Note = ignore) -> dict[int, str]:
    """The weight snapshots up to the step `last` that are there, in order: step -> file.

    Args:
        note: receives a line where some are missing, as in the folder of a model that was copied.
    """
    files: dict[int, str] = {}
    for name in train.names():
        match = SNAPSHOT.fullmatch(name)
        if match and int(match[1]) <= last:
            files[int(match[1])] = name
    missing = train.missing()
    found = {step: name for step, name in files.items() if name not in missing}
    if len(found) < len(files):
        lacking = f"{len(files) - len(found)} of {len(files)} snapshots"
        note(f"model {train.id} lacks {lacking} of its training")
    return found


def _choice(
    train: Artifact, which: Literal["auto", "best", "last"]
) -> tuple[Literal["best", "last"], int, str | None]:
    """Which weights to take, their step, and what to say about it."""
    model_file = train.read_json("config.json", ModelFile)
    needed = {METRICS, FILES["best"]}
    if train.is_imported and which == "best":
        raise UsageError(
            f"model {train.id} was imported, so that none of its weights are the best of a run",
            hint="leave `--weights best` out",
        )
    if which == "last" or train.is_imported:
        return "last", model_file["step"], None
    if which == "auto" and not needed <= set(train.names()) - set(train.missing()):
        note = f"`{train.folder}` lacks its best weights or `{METRICS}`; the last weights are used"
        return "last", model_file["step"], note
    rows = evaluations(read_metrics(train))
    best = best_evaluation(rows)
    if which == "best":
        return "best", best["step"], None
    if choose(rows[-1]["val_loss"], best["val_loss"]) == "best":
        note = f"validation was best at step {best['step']:,}; those weights are used"
        return "best", best["step"], note
    return "last", model_file["step"], None
