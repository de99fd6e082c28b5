"""A training run: its state, its metrics, and the files of its checkpoints and its artifact."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field

import torch

from tinygpt.config import Config, SampleConfig, TrainConfig
from tinygpt.errors import ConfigError, CorruptArtifactError
from tinygpt.hashing import hash_bytes
from tinygpt.lm import evaluation, weights
from tinygpt.lm import probe as probes
from tinygpt.lm.dataset import Batches, read_tokens
from tinygpt.lm.fast.agreement import fast_forms_agree
from tinygpt.lm.fast.decoder import decoder_for
from tinygpt.lm.fast.distributed import SINGLE_PROCESS, DataParallelGroup
from tinygpt.lm.fast.precision import (
    Precision,
    choose_device,
    choose_precision,
    compile_blocks,
    prepare_cpu,
)
from tinygpt.lm.init import init_weights
from tinygpt.lm.model import GPT
from tinygpt.lm.optim import load_optimizer_tensors, optimizer_tensors
from tinygpt.lm.sampling import generate
from tinygpt.lm.tokenizer import Tokenizer
from tinygpt.lm.training import StepRecord, TrainState, check_validation_loss
from tinygpt.records import (
    CodeRecord,
    EvalRow,
    MetricsRow,
    ModelFile,
    RunState,
    StepRow,
    Summary,
    TrainingNumbers,
)
from tinygpt.runs.code import current_code, what_changed
from tinygpt.runs.environment import changes, environment
from tinygpt.runs.trained_weights import FILES, PROBE, choose
from tinygpt.store import Artifact, ArtifactWriter, Inputs, UnfinishedRun

SMOOTHED_STEPS = 20  # last steps whose mean is the train loss of the result table


@dataclass
class Progress:
    """What a run remembers besides TrainState; the fields are those of records.RunState."""

    chain: str = ""
    best_step: int = 0
    best_loss: float = math.inf
    exact: bool = True
    environment: dict[str, str] = field(default_factory=dict)
    code: CodeRecord = field(default_factory=current_code)
    snapshots: dict[str, str] = field(default_factory=dict)


class TrainingRun:
    """One training run: its state, its records and its files.

    Args:
        config: [model], [train] and [runtime] are used.
        inputs: "build-dataset", "tokenize", and "init_from" if `train.init_from` is set.
        checkpoint: from which it continues; None to start at step 0.
        processes: those that share it; each has a TrainingRun, that of rank 0 writes.

    Attributes:
        changed: how environment and code differ from those of the checkpoint, e.g., "threads 1 ->
            2".
        not_compiled: why the blocks are not compiled, "" if they are; None without
            `runtime.compile`.
    """

    def __init__(
        self,
        config: Config,
        inputs: Inputs,
        checkpoint: Artifact | None = None,
        processes: DataParallelGroup = SINGLE_PROCESS,
    ) -> None:
        self.config = config
        self.checkpoint = checkpoint
        self._read_data(inputs)
        self._build(processes)
        self.metrics: list[MetricsRow] = []
        self.changed: list[str] = []
        self.best = b""
        if "init_from" in inputs:
            self._continue_from(inputs["init_from"])
        if checkpoint is not None:
            self._resume(checkpoint)
        if processes.broadcast_from_rank_0(self.state.step) != self.state.step:
            raise CorruptArtifactError(
                "the processes found different checkpoints",
                hint="give all processes the same store",
            )
        self.state.processes = processes.wrap(self.state.model)
        self.snapshot_steps = set(snapshot_steps(config.train.max_steps, config.train.snapshots))

    def _read_data(self, inputs: Inputs) -> None:
        model, train = self.config.model, self.config.train
        self.tokenizer_json = inputs["tokenize"].read("tokenizer.json")
        self.tokenizer = Tokenizer.from_bytes(self.tokenizer_json)
        dataset, vocab_size = inputs["build-dataset"], self.tokenizer.vocab_size
        tokens = read_tokens(dataset.open("train.bin"), vocab_size)
        self.validation = read_tokens(dataset.open("val.bin"), vocab_size)
        self.batches = Batches(tokens, model.context_length, train.seed, train.document_starts)

    def _build(self, processes: DataParallelGroup) -> None:
        """The model and the optimizers as they are before the first step."""
        config, train = self.config, self.config.train
        prepare_cpu(config.runtime.threads)
        device = choose_device(config.runtime.device)
        self.precision = choose_precision(train.precision, device)
        if self.checkpoint is not None:
            chosen: ModelFile = self.checkpoint.read_json("config.json")
            self.precision = Precision(chosen["precision"], "chosen when the run began")
        model = init_weights(GPT(config.model, self.tokenizer.vocab_size), train.seed).to(device)
        model.explicit = not fast_forms_agree(config.model)
        self.state = TrainState.start(model, train, self.precision.name)
        self.not_compiled: str | None = None
        if config.runtime.compile:
            self.not_compiled = compile_blocks(model, train.batch_size, self.precision.name)
        compiled = self.not_compiled == ""
        here = environment(device, self.precision, processes.world_size, compiled=compiled)
        self.progress = Progress(environment=here)

    def _continue_from(self, model: Artifact) -> None:
        """Take over the weights and the optimizer state of another run."""
        other: ModelFile = model.read_json("config.json")
        was, here = other["train"]["optimizer"], self.config.train.optimizer
        if was != here:
            raise ConfigError(
                f"{here} cannot continue from the optimizer state of {was}",
                hint=f"use `--set train.optimizer={was}`",
            )
        self._load_tensors(model)

    def _resume(self, checkpoint: Artifact) -> None:
        saved: RunState = checkpoint.read_json("state.json")
        here = self.progress.environment
        facts = {name: value for name, value in saved.items() if name != "step"}
        self.state.step = saved["step"]
        code = self.progress.code
        self.progress = Progress(**facts)  # type: ignore[arg-type]
        self.changed = changes(self.progress.environment, here)
        if changed := what_changed(saved["code"]):
            self.changed.append(changed)
        self.progress.environment = here
        self.progress.code = code
        self.progress.exact &= not self.changed
        self._load_tensors(checkpoint)
        self.metrics = checkpoint.read_rows("metrics.jsonl")
        self.best = checkpoint.read("best/model.safetensors")

    def _load_tensors(self, artifact: Artifact) -> None:
        trained = weights.read_arrays(artifact.read("model.safetensors"))
        weights.load_into(weights.model_tensors(self.state.model), trained)
        arrays = weights.read_arrays(artifact.read("optimizer.safetensors"))
        tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
        load_optimizer_tensors(self.state.optimizers, tensors)

    def tokens(self, step: int) -> int:
        """Training tokens seen after `step` steps."""
        train = self.config.train
        sequences = train.batch_size * train.grad_accum_steps
        return step * sequences * self.config.model.context_length

    def record(self, record: StepRecord) -> None:
        """Note a step in metrics and chain."""
        entry = f"{self.progress.chain}{record.loss.hex()}{record.grad_norm.hex()}"
        self.progress.chain = hashlib.sha256(entry.encode()).hexdigest()
        row: StepRow = {
            "kind": "step",
            "step": record.step,
            "tokens": self.tokens(record.step),
            "loss": record.loss,
            "learning_rate": record.learning_rate,
            "grad_norm": record.grad_norm,
            "chain": self.progress.chain[:16],
        }
        self.metrics.append(row)

    def last_step(self) -> tuple[int, float | None]:
        """The last whole step and its training loss; (0, None) before the first."""
        losses = [row["loss"] for row in self.metrics if row["kind"] == "step"]
        return (self.state.step, losses[-1]) if losses else (0, None)

    def validation_loss(self) -> float:
        """In nats per token; each process computes a part of it.

        Raises:
            DivergedError: it is not finite, or too large to be of use.
        """
        loss = evaluation.mean_loss(self.state.model, self.validation, self.state.processes)
        check_validation_loss(loss, self.state.step)
        return loss

    def evaluate(self) -> EvalRow:
        """Measure the validation loss, generate a sample, keep the best weights."""
        loss = self.validation_loss()
        best = loss < self.progress.best_loss
        if best:
            self.progress.best_loss = loss
            self.progress.best_step = self.state.step
            self.best = self.model_bytes()
        row: EvalRow = {
            "kind": "eval",
            "step": self.state.step,
            "tokens": self.tokens(self.state.step),
            "val_loss": loss,
            "val_perplexity": evaluation.perplexity(loss),
            "best": best,
            "sample": self._sample(),
        }
        self.metrics.append(row)
        return row

    def _sample(self) -> str:
        """A text from the fixed prompt.

        Greedy choices would loop, so it is sampled, with the run's own seed.
        """
        train = self.config.train
        if train.sample_tokens == 0:
            return ""
        data = self.model_bytes()
        decoder = decoder_for(
            self.config.model,
            self.tokenizer.vocab_size,
            weights.read_arrays(data),
            self.config.runtime.device,
            probe=self._probe(data),
        )
        end_of_text = self.tokenizer.end_of_text
        new_tokens = generate(
            decoder,
            [end_of_text, *self.tokenizer.encode(train.sample_prompt)],
            SampleConfig(top_p=0.9, max_new_tokens=train.sample_tokens, seed=train.seed),
            token_bytes=self.tokenizer.token_bytes,
            end_of_text=end_of_text,
        )
        return train.sample_prompt + "".join(token.text for token in new_tokens)

    def _probe(self, data: bytes) -> probes.Probe:
        """What lm/model.py computes with the weights of a safetensors file."""
        model, train, tokenizer = self.config.model, self.config.train, self.tokenizer
        text = probes.random_text(
            tokenizer.vocab_size, model.context_length, tokenizer.end_of_text, train.seed
        )
        return probes.measure(model, tokenizer.vocab_size, weights.read_arrays(data), text)

    def model_bytes(self) -> bytes:
        """The weights as safetensors."""
        return weights.dump(weights.model_tensors(self.state.model))

    def take_snapshot(self, unfinished: UnfinishedRun) -> None:
        """Keep the weights of this step beside the checkpoints."""
        name = f"step-{self.state.step:08d}.safetensors"
        data = self.model_bytes()
        unfinished.write_side_file(name, data)
        self.progress.snapshots[name] = hash_bytes(data)

    def files(self) -> dict[str, bytes]:
        """The files that a checkpoint and the finished artifact have in common."""
        tables = self.config.model_dump(mode="json", include={"model", "train"})
        model_file: ModelFile = {
            "model": tables["model"],
            "train": tables["train"],
            "vocab_size": self.state.model.vocab_size,
            "precision": self.precision.name,
            "step": self.state.step,
        }
        rows = (json.dumps(row, ensure_ascii=False) + "\n" for row in self.metrics)
        last = self.model_bytes()
        probe = {"last": self._probe(last)}
        if self.best:  # from the first evaluation on
            probe["best"] = probe["last"] if self.best == last else self._probe(self.best)
        return {
            FILES["last"]: last,
            FILES["best"]: self.best,
            PROBE: probes.to_bytes(probe),
            "optimizer.safetensors": weights.dump(optimizer_tensors(self.state.optimizers)),
            "metrics.jsonl": "".join(rows).encode(),
            "config.json": json.dumps(model_file, indent=2, sort_keys=True).encode() + b"\n",
            "tokenizer.json": self.tokenizer_json,
        }

    def save(self, unfinished: UnfinishedRun) -> None:
        """Make everything so far durable."""
        state = {"step": self.state.step, **asdict(self.progress)}
        files = self.files() | {"state.json": json.dumps(state, indent=2, sort_keys=True).encode()}
        unfinished.save(self.state.step, files, keep=self.config.runtime.keep_checkpoints)

    def finish(self, out: ArtifactWriter, seconds: float, steps: int) -> None:
        """Write the artifact.

        Args:
            out: where it goes.
            seconds: that this process spent on its `steps` steps.
        """
        for name, data in self.files().items():
            out.bytes(name, data)
        for name, digest in sorted(self.progress.snapshots.items()):
            data = out.unfinished_run.read_side_file(name)
            if hash_bytes(data) != digest:
                raise CorruptArtifactError(
                    f"the snapshot `{name}` changed on disk",
                    hint="start again with `tinygpt train --fresh`",
                )
            out.bytes(f"snapshots/{name}", data)
        numbers = self.numbers()
        summary: Summary = {"rows": self._rows(numbers), "numbers": numbers}
        out.json("summary.json", summary)
        if steps:
            speed = round(self.tokens(steps) / seconds)
            out.provenance(seconds=round(seconds, 1), tokens_per_second=speed)
        progress = self.progress
        out.provenance(exact=progress.exact, code=progress.code, **progress.environment)

    def numbers(self) -> TrainingNumbers:
        """What the run did and reached so far."""
        losses = [row["loss"] for row in self.metrics if row["kind"] == "step"]
        recent = losses[-SMOOTHED_STEPS:]
        last = self._evaluations()[-1]
        tokens = self.tokens(self.state.step)
        return {
            "steps": self.state.step,
            "tokens": tokens,
            "passes": tokens / len(self.batches.tokens),
            "parameters": sum(p.numel() for p in self.state.parameters.values()),
            "train_loss": sum(recent) / len(recent),
            "val_loss": last["val_loss"],
            "val_perplexity": last["val_perplexity"],
            "best_step": self.progress.best_step,
            "best_val_loss": self.progress.best_loss,
        }

    def _evaluations(self) -> list[EvalRow]:
        return [row for row in self.metrics if row["kind"] == "eval"]

    def _rows(self, numbers: TrainingNumbers) -> list[list[str]]:
        """The result table."""
        evaluations = self._evaluations()
        smoothed = min(SMOOTHED_STEPS, numbers["steps"])
        lowest = evaluation.perplexity(numbers["best_val_loss"])
        best = f"perplexity {lowest:,.2f} at step {numbers['best_step']:,}"
        if choose(numbers["val_loss"], numbers["best_val_loss"]) == "best":
            best += "; `eval`, `sample` and `plot` use those weights"
        first, last = evaluations[0]["val_perplexity"], numbers["val_perplexity"]
        seen = f"{numbers['tokens']:,} tokens, {numbers['passes']:,.1f} passes over the text"
        return [
            ["parameters", f"{numbers['parameters']:,}"],
            ["steps", f"{numbers['steps']:,} ({seen})"],
            ["precision", self.precision.name],
            ["train loss", f"{numbers['train_loss']:.4f} (mean of the last {smoothed} steps)"],
            ["validation perplexity", f"{first:,.1f} -> {last:,.2f}"],
            ["best", best],
        ]


def snapshot_steps(max_steps: int, count: int) -> list[int]:
    """Up to `count` steps from 1 to max_steps, evenly spaced in log(step)."""
    if count < 2:
        return [max_steps][:count]
    return sorted({round(max_steps ** (i / (count - 1))) for i in range(count)})


def is_evaluation_step(step: int, config: TrainConfig) -> bool:
    """Whether the validation loss is measured after this step.

    That is after 1, 10, 100, every `eval_every`, and the last.
    """
    return step in (1, 10, 100, config.max_steps) or step % config.eval_every == 0
