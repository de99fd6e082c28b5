"""A trained model in Python: `tinygpt.load("3f9a1c0b2d4e").generate_text("Once upon a time")`."""

import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from tinygpt.config import SampleConfig
from tinygpt.errors import CorruptArtifactError
from tinygpt.lm.sampling import Decoder, generate
from tinygpt.lm.tokenizer import Tokenizer
from tinygpt.project import open_store
from tinygpt.runs.trained_weights import open_weights
from tinygpt.store import Artifact, Store
from tinygpt.trained_models import find_model

if TYPE_CHECKING:
    import torch

    from tinygpt.lm.model import GPT


class Model:
    """A trained model with its tokenizer; `tinygpt.load` makes one.

    Args:
        artifact: of stage train, or a checkpoint.
        device: "cpu", "cuda", "mps" or "auto".
        weights: "best", "last" or "auto", see load.

    Attributes:
        artifact: where it came from: `artifact.id`, `artifact.folder`, `artifact.manifest`.
        config: its shape, tinygpt.config.ModelConfig.
        tokenizer: tinygpt.lm.tokenizer.Tokenizer.
        eos_token_id: the end-of-text token, which begins and ends every document in training.
        weights: its parameters by name, float32 arrays.
        which, step: whether these are the "best" or the "last" weights of the run, and of which
            step; "last" and 0 of an imported model.

    Raises:
        CorruptArtifactError: its files are damaged or do not fit each other.
        ArtifactError: the code in tinygpt/lm/ computes other logits than when it was trained.
    """

    def __init__(
        self,
        artifact: Artifact,
        device: str = "auto",
        weights: Literal["auto", "best", "last"] = "auto",
    ) -> None:
        self.artifact = artifact
        self.device = device
        self._trained = open_weights(artifact, weights)
        self.config = self._trained.config
        self.weights = self._trained.arrays
        self.which = self._trained.which
        self.step = self._trained.step
        self.tokenizer = Tokenizer.from_bytes(artifact.read("tokenizer.json"))
        self.eos_token_id = self.tokenizer.end_of_text
        entries, vocab_size = self.tokenizer.vocab_size, self._trained.vocab_size
        if entries != vocab_size:
            raise CorruptArtifactError(
                f"the tokenizer has {entries:,} entries, the model {vocab_size:,}"
            )
        self._new_decoder()  # checks the weights
        self._module: GPT | None = None

    def __repr__(self) -> str:
        parameters = sum(array.size for array in self.weights.values())
        return f"<tinygpt.Model {self.artifact.id}, {parameters:,} parameters>"

    def encode(self, text: str) -> list[int]:
        """Token ids of a text.

        Raises:
            InputError: the text contains a lone surrogate.
        """
        return self.tokenizer.encode(text)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of token ids; the end-of-text token has none.

        Raises:
            ValueError: an id is not in the vocabulary.
        """
        return self.tokenizer.decode(token_ids)

    def generate(
        self,
        prompt: str = "",
        *,
        temperature: float = 0.8,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        max_new_tokens: int = 256,
        stop: str | Sequence[str] = (),
        seed: int | None = None,
    ) -> Iterator[str]:
        """Continue a prompt, as `tinygpt sample` does.

        Args:
            prompt: beginning of the text; "" lets the model begin. If it is longer than the
                context, the model reads its end.
            temperature, top_k, top_p, min_p, max_new_tokens: see the table [sample].
            stop: text that ends the continuation and is not part of it, or several.
            seed: None draws one, so that each call gives another text.
        Yields:
            Pieces of the continuation as they are generated, the prompt not included.
        Raises:
            ValueError: a setting is out of range, or a stop text is empty.
        """
        stops = (stop,) if isinstance(stop, str) else tuple(stop)
        if "" in stops:
            raise ValueError("a stop text is empty, and would end the text at once")
        config = SampleConfig(
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            max_new_tokens=max_new_tokens,
            stop=stops,
            seed=secrets.randbelow(2**31) if seed is None else seed,
        )
        new_tokens = generate(
            self._new_decoder(),
            [self.eos_token_id, *self.encode(prompt)],
            config,
            token_bytes=self.tokenizer.token_bytes,
            end_of_text=self.eos_token_id,
        )
        return (token.text for token in new_tokens if token.text)

    def _new_decoder(self) -> Decoder:
        """One for each text, so that several can be generated in turns."""
        return self._trained.decoder(self.device)

    def generate_text(self, prompt: str = "", **settings: object) -> str:
        """The whole continuation as one text; see generate."""
        return "".join(self.generate(prompt, **settings))  # type: ignore[arg-type]

    def logits(self, text: str | Sequence[int]) -> np.ndarray:
        """Logits of the next token after each token of a text, (T, V) float32.

        Args:
            text: a text or its token ids, e.g., after an `eos_token_id`, where `generate` puts
                one.
        Raises:
            ValueError: no token, or more than context_length of them.
        """
        import torch

        batch = self._batch(text)
        with torch.inference_mode():
            logits: np.ndarray = self.module()(batch)[0].cpu().numpy()  # (T, V)
        return logits

    def attention(self, text: str | Sequence[int]) -> np.ndarray:
        """How much each token of a text attends to each, (L, H, T, T) float32.

        Args and errors: see logits.
        """
        import torch

        layers: list[torch.Tensor] = []
        batch = self._batch(text)
        with torch.inference_mode():
            self.module()(batch, attention=layers)
        return torch.cat(layers).cpu().numpy()

    def module(self) -> "GPT":
        """The PyTorch module, for hooks and gradients; every call returns the same one.

        Raises:
            ArtifactError: the code in tinygpt/lm/ computes other logits than when it was trained.
        """
        if self._module is None:
            from tinygpt.lm.fast.precision import choose_device

            self._module = self._trained.model().to(choose_device(self.device))
        return self._module

    def _batch(self, text: "str | Sequence[int]") -> "torch.Tensor":
        """A text as the module reads it, (1, T).

        The module is loaded here, outside of inference mode: weights made there have no gradients.
        """
        import torch

        token_ids = self.encode(text) if isinstance(text, str) else list(text)
        if not token_ids:
            raise ValueError("there is no token to read")
        device = self.module().token_embedding.weight.device
        return torch.tensor([token_ids], device=device)  # (1, T)


def load(
    model: str | Path,
    *,
    store: Store | Path | str | None = None,
    device: str = "auto",
    weights: Literal["auto", "best", "last"] = "auto",
) -> Model:
    """Load a trained model.

    Args:
        model: the beginning of its id, or its folder.
        store: where ids are looked up; None for the store that `tinygpt` would use here.
        device: "auto" generates on the CPU where that is faster to begin; see decoder_for.
        weights: "last" are those of the last step, "best" those with the lowest validation loss;
            "auto" takes the best where the last validation loss is more than 0.01 above theirs.
    Raises:
        MissingArtifactError: there is no such model.
        CorruptArtifactError: its files are damaged.
        ArtifactError: the code in tinygpt/lm/ computes other logits than when it was trained.
    """
    return Model(find_model(open_store(store), str(model)), device, weights)
