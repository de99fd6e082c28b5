"""What a training run has done so far: its state, its records and the files of its checkpoints and its artifact."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from tinygpt.config import Config, SampleConfig, TrainConfig
from tinygpt.errors import ConfigError, CorruptArtifactError
from tinygpt.hashing import hash_bytes
from tinygpt.lm import evaluation, weights
from tinygpt.lm.dataset import Batches, read_tokens
from tinygpt.lm.decoder import decoder_for
from tinygpt.lm.model import GPT, initialise
from tinygpt.lm.optim import load_optimizer_tensors, optimizer_tensors
from tinygpt.lm.precision import Precision, choose_device, choose_precision, compile_blocks, prepare_cpu
from tinygpt.lm.ranks import ALONE, Ranks
from tinygpt.lm.sampling import generate
from tinygpt.lm.tokenizer import Tokenizer
from tinygpt.lm.training import StepRecord, TrainState
from tinygpt.store import Artifact, Checkpoints, Inputs, Out


@dataclass
class Progress:
    """What a run has to remember beside TrainState; `state.json` of a checkpoint.

    Args:
        chain: rolling SHA-256 over each step's loss and gradient norm; two runs agree up to the first step where it differs.
        best_step: of the lowest validation loss so far; 0 for none.
        best_loss: that loss.
        exact: every step so far ran in one environment, so that the run can be repeated bit for bit.
        environment: what the last bits depend on.
        snapshots: SHA-256 of each weight snapshot written so far.
    """

    chain: str = ""
    best_step: int = 0
    best_loss: float = math.inf
    exact: bool = True
    environment: dict[str, str] = field(default_factory=dict)
    snapshots: dict[str, str] = field(default_factory=dict)


class Run:
    """One training run: its state, its records and its files.

    Args:
        checkpoint: where it goes on; None for its beginning.
        ranks: the processes that share it; each has a Run, that of rank 0 writes.
    """

    def __init__(self, config: Config, inputs: Inputs, checkpoint: Artifact | None = None, ranks: Ranks = ALONE) -> None:
        self.config, self.checkpoint = config, checkpoint
        self.tokenizer_json = inputs["tokenize"].read("tokenizer.json")
        self.tokenizer = Tokenizer.from_bytes(self.tokenizer_json)
        dataset, vocab_size = inputs["build-dataset"], self.tokenizer.vocab_size
        tokens, self.validation = (read_tokens(dataset.open(name), vocab_size) for name in ("train.bin", "val.bin"))
        self.batches = Batches(tokens, config.model.context_length, config.train.seed, config.train.story_starts)

        prepare_cpu(config.runtime.threads)
        device = choose_device(config.runtime.device)
        self.precision = choose_precision(config.train.precision, device)
        if checkpoint is not None:
            self.precision = Precision(checkpoint.read_json("config.json")["precision"], "chosen when the run began")
        model = initialise(GPT(config.model, vocab_size), config.train.seed).to(device)
        self.state = TrainState.start(model, config.train, self.precision.name)
        of_step = config.train.batch_size, self.precision.name
        self.not_compiled = compile_blocks(model, *of_step) if config.runtime.compile else None  # why; "" if it is compiled
        compiled = str(self.not_compiled == "").lower()
        self.progress = Progress(environment=environment(device, self.precision, ranks, compiled))
        self.metrics: list[str] = []
        self.changed: list[str] = []  # of the environment since the run was stopped
        self.best = b""
        if "init_from" in inputs:
            was, here = inputs["init_from"].read_json("config.json")["train"]["optimizer"], config.train.optimizer
            if was != here:
                raise ConfigError(f"{here} cannot go on from the state of {was}", hint=f"use `--set train.optimizer={was}`")
            self._load_tensors(inputs["init_from"])
        if self.checkpoint is not None:
            self._resume(self.checkpoint)
        if ranks.led(self.state.step) != self.state.step:
            raise CorruptArtifactError("the processes found different checkpoints", "let all of them see the same store")
        self.state.ranks = ranks.training(model)
        self.snapshot_steps = set(snapshot_steps(config.train.max_steps, config.train.snapshots))

    def _load_tensors(self, artifact: Artifact) -> None:
        weights.load_into(weights.model_tensors(self.state.model), weights.read_arrays(artifact.read("model.safetensors")))
        arrays = weights.read_arrays(artifact.read("optimizer.safetensors"))
        tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
        load_optimizer_tensors(self.state.optimizers, tensors)

    def _resume(self, checkpoint: Artifact) -> None:
        saved = checkpoint.read_json("state.json")
        self.state.step = saved.pop("step")
        here, self.progress = self.progress.environment, Progress(**saved)
        self.changed = changes(self.progress.environment, here)
        self.progress.environment = here
        self.progress.exact &= not self.changed
        self._load_tensors(checkpoint)
        self.metrics = checkpoint.read("metrics.jsonl").decode().splitlines()
        self.best = checkpoint.read("best/model.safetensors")

    def record(self, record: StepRecord) -> None:
        """Note a step in metrics and chain."""
        entry = f"{self.progress.chain}{record.loss.hex()}{record.grad_norm.hex()}"
        self.progress.chain = hashlib.sha256(entry.encode()).hexdigest()
        rates = {"learning_rate": record.learning_rate, "grad_norm": record.grad_norm}
        self._write("step", record.step, loss=record.loss, **rates, chain=self.progress.chain[:16])

    def tokens(self, step: int) -> int:
        """Training tokens seen after `step` steps."""
        train = self.config.train
        return step * train.batch_size * train.grad_accum_steps * self.config.model.context_length

    def _write(self, kind: str, step: int, **figures: object) -> None:
        row = {"kind": kind, "step": step, "tokens": self.tokens(step), **figures}
        self.metrics.append(json.dumps(row, ensure_ascii=False))

    def validation_loss(self) -> float:
        """In nats per token; each rank computes a part of it."""
        return evaluation.mean_loss(self.state.model, self.validation, self.state.ranks)

    def evaluate(self) -> None:
        """Measure the validation loss, tell a story, keep the best weights."""
        loss = self.validation_loss()
        if best := loss < self.progress.best_loss:
            self.progress.best_loss, self.progress.best_step = loss, self.state.step
            self.best = self.model_bytes()
        self._write("eval", self.state.step, val_loss=loss, val_perplexity=math.exp(loss), best=best, story=self._story())

    def _story(self) -> str:
        """What the model makes of the fixed prompt now; greedy choices would loop, so it samples, from the run's own seed."""
        train = self.config.train
        if train.sample_tokens == 0:
            return ""
        arrays = {name: p.detach().cpu().numpy() for name, p in self.state.parameters.items()}
        end, device = self.tokenizer.end_of_story, self.config.runtime.device
        decoder = decoder_for(self.config.model, self.tokenizer.vocab_size, arrays, device=device)
        prompt = [end, *self.tokenizer.encode(train.sample_prompt)]
        telling = SampleConfig(top_p=0.9, max_new_tokens=train.sample_tokens, seed=train.seed)
        told = generate(decoder, prompt, telling, token_bytes=self.tokenizer.token_bytes, end_of_story=end)
        return train.sample_prompt + "".join(token.text for token in told)

    def model_bytes(self) -> bytes:
        """The weights as safetensors."""
        return weights.dump(weights.model_tensors(self.state.model))

    def snapshot(self, checkpoints: Checkpoints) -> None:
        """Keep the weights of this step beside the checkpoints."""
        name = f"step-{self.state.step:08d}.safetensors"
        data = self.model_bytes()
        checkpoints.keep(name, data)
        self.progress.snapshots[name] = hash_bytes(data)

    def files(self) -> dict[str, bytes]:
        """What a checkpoint and the finished artifact both hold."""
        card = self.config.model_dump(mode="json", include={"model", "train"})
        card |= {"vocab_size": self.state.model.vocab_size, "precision": self.precision.name, "step": self.state.step}
        return {
            "model.safetensors": self.model_bytes(),
            "best/model.safetensors": self.best,
            "optimizer.safetensors": weights.dump(optimizer_tensors(self.state.optimizers)),
            "metrics.jsonl": "".join(line + "\n" for line in self.metrics).encode(),
            "config.json": json.dumps(card, indent=2, sort_keys=True).encode() + b"\n",
            "tokenizer.json": self.tokenizer_json,
        }

    def save(self, checkpoints: Checkpoints) -> None:
        """Make everything so far durable."""
        state = {"step": self.state.step, **vars(self.progress)}
        files = self.files() | {"state.json": json.dumps(state, indent=2, sort_keys=True).encode()}
        checkpoints.save(self.state.step, files, keep=self.config.runtime.keep_checkpoints)

    def finish(self, out: Out, seconds: float, steps: int) -> None:
        """Write the artifact."""
        for name, data in self.files().items():
            out.bytes(name, data)
        for name, digest in sorted(self.progress.snapshots.items()):
            data = out.checkpoints.kept(name)
            if hash_bytes(data) != digest:
                raise CorruptArtifactError(f"the snapshot `{name}` changed on disk", "start again with `tinygpt train --fresh`")
            out.bytes(f"snapshots/{name}", data)
        out.json("summary.json", {"rows": self._summary()})
        if steps:
            out.provenance(seconds=round(seconds, 1), tokens_per_second=round(self.tokens(steps) / seconds))
        out.provenance(exact=self.progress.exact, **self.progress.environment)

    def _summary(self) -> list[list[str]]:
        rows = [json.loads(line) for line in self.metrics]
        evaluations = [row for row in rows if row["kind"] == "eval"]
        last_steps = [row["loss"] for row in rows if row["kind"] == "step"][-20:]
        return [
            ["parameters", f"{sum(p.numel() for p in self.state.parameters.values()):,}"],
            ["steps", f"{self.state.step:,} ({self.tokens(self.state.step):,} tokens)"],
            ["precision", f"{self.precision.name}"],
            ["train loss", f"{sum(last_steps) / len(last_steps):.4f} (mean of the last {len(last_steps)} steps)"],
            ["validation perplexity", f"{evaluations[0]['val_perplexity']:,.1f} -> {evaluations[-1]['val_perplexity']:,.2f}"],
            ["best", f"perplexity {math.exp(self.progress.best_loss):,.2f} at step {self.progress.best_step:,}"],
        ]


def snapshot_steps(max_steps: int, count: int) -> list[int]:
    """Up to `count` steps from 1 to max_steps, evenly spaced in log(step)."""
    if count < 2:
        return [max_steps][:count]
    return sorted({round(max_steps ** (i / (count - 1))) for i in range(count)})


def is_evaluation_step(step: int, config: TrainConfig) -> bool:
    """Whether the validation loss is measured after this step: 1, 10, 100, every `eval_every`, and the last."""
    return step in (1, 10, 100, config.max_steps) or step % config.eval_every == 0


def environment(device: torch.device, precision: Precision, ranks: Ranks, compiled: str) -> dict[str, str]:
    """What the last bits of a step depend on, beside its inputs."""
    name = torch.cuda.get_device_name() if device.type == "cuda" else device.type
    threads, capability = str(torch.get_num_threads()), torch.backends.cpu.get_cpu_capability()
    machine = {"torch": torch.__version__, "device": name, "threads": threads, "cpu_capability": capability}
    return machine | {"precision": precision.name, "ranks": str(ranks.count), "compiled": compiled}


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Where an environment differs from a recorded one, e.g., "threads 1 -> 2"; what was not recorded then does not count."""
    return [f"{name} {before[name]} -> {value}" for name, value in now.items() if before.get(name, value) != value]
