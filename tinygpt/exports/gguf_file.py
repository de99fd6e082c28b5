"""Format gguf: a model as one file for llama.cpp, with a Modelfile for Ollama.

The file holds what llama.cpp calls architecture "gpt2", with `output.weight`, without which some of
its versions load no model. Matrices are in the chosen number format; vectors and position
embeddings stay f32, as in the files of llama.cpp's own converter. `add_bos_token` is true: every
document began with the end-of-text token in training, and so does what `tinygpt sample` reads.
"""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.gguf_writer import WriterState
from tokenizers import Tokenizer, models, pre_tokenizers

from tinygpt.config import SampleConfig
from tinygpt.errors import ConfigError, VerificationError
from tinygpt.exports import model_card
from tinygpt.exports.gpt2 import last_logits, model_config, require_gpt2
from tinygpt.exports.gpt2_layout import gpt2_name, to_gpt2
from tinygpt.exports.model import ModelToExport
from tinygpt.exports.self_check import NOTHING_LEFT, compare_ids, compare_logits
from tinygpt.exports.target import ExportFolder
from tinygpt.lm.tokenizer import BYTES, END_OF_TEXT
from tinygpt.lm.weights import Array
from tinygpt.runs.trained_weights import Note

FILE = "model.gguf"
TOKENS = "tokenizer.ggml.tokens"
MERGES = "tokenizer.ggml.merges"
HOW_TO_LOAD = """\
```
llama-completion -m model.gguf -p "Once upon a time"
ollama create my-model -f Modelfile && ollama run my-model "Once upon a time"
```

Both have the settings of `tinygpt sample`; with temperature 0, the likeliest token is always taken.
Ollama has not been tried."""
LAYER_NORM_EPSILON = float(np.float32(1e-5))  # of nn.LayerNorm, as f32 holds it
BLOCK = 32  # numbers of a row that share a scale in q8_0
LARGEST_HALF = 65_504.0
TYPES = {
    "f32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}
FIELD_TYPES = {
    bool: gguf.GGUFValueType.BOOL,
    int: gguf.GGUFValueType.UINT32,  # counts and ids, never negative
    float: gguf.GGUFValueType.FLOAT32,
    str: gguf.GGUFValueType.STRING,
    list: gguf.GGUFValueType.ARRAY,
}
OUTSIDE_BLOCKS = {
    "transformer.wte.weight": "token_embd.weight",
    "transformer.wpe.weight": "position_embd.weight",
    "transformer.ln_f.weight": "output_norm.weight",
    "transformer.ln_f.bias": "output_norm.bias",
    "lm_head.weight": "output.weight",
}
IN_BLOCK = {
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}


def write(model: ModelToExport, out: ExportFolder, dtype: str, note: Note) -> str:
    """Write model.gguf, Modelfile and README.md, read the first back and compare.

    Args:
        model, out: what is exported, and where it goes.
        dtype: of the matrices, a key of TYPES.
        note: not used.
    Returns:
        What was compared, and the largest difference.
    Raises:
        ConfigError: GPT-2 or the number format cannot express the model.
        CorruptArtifactError: see require_gpt2.
        VerificationError: what was written is not the model.
    """
    model = require_gpt2(model, "gguf")
    require_dtype(model, dtype)
    metadata = metadata_of(model, dtype)
    out.write(FILE, to_bytes(metadata, tensors_of(model), dtype))
    out.write("Modelfile", modelfile(model).encode())
    out.write("README.md", model_card.render(model, HOW_TO_LOAD, dtype))
    return check(model, out, metadata, dtype)


def require_dtype(model: ModelToExport, dtype: str) -> None:
    """Refuse a model that the number format, or a GGUF file, cannot express.

    Raises:
        ConfigError: with what can.
    """
    config = model.config
    for key, width in (("d_model", config.d_model), ("d_ff", config.d_ff)):
        if dtype == "q8_0" and width % BLOCK:
            raise ConfigError(
                f"q8_0 stores blocks of {BLOCK} numbers, and `model.{key}` = {width} is not "
                f"divisible by {BLOCK}",
                hint="use `--dtype f16`",
            )
    if dtype == "f16" and any(
        np.abs(array).max() > LARGEST_HALF for array in model.weights.arrays.values()
    ):
        raise ConfigError(
            f"a weight is larger than {LARGEST_HALF:,.0f}, where f16 ends",
            hint="use `--dtype f32`",
        )
    if model.vocab_size == 1 + BYTES:
        raise ConfigError(
            f"the tokenizer has {model.vocab_size} entries and no merges, and llama.cpp reads no "
            "such file",
            hint="train a model with `--set tokenizer.vocab_size=320`",
        )


def metadata_of(model: ModelToExport, dtype: str) -> dict[str, Any]:
    """What the file says besides its tensors."""
    config, sampling = model.config, SampleConfig()
    bpe = json.loads(model.tokenizer_json)["model"]
    tokens = sorted(bpe["vocab"], key=bpe["vocab"].__getitem__)
    end_of_text = model.tokenizer.end_of_text
    types = [gguf.TokenType.NORMAL.value] * len(tokens)
    types[end_of_text] = gguf.TokenType.CONTROL.value
    return {
        "general.name": f"tinygpt {model.id}",
        "general.file_type": TYPES[dtype][1].value,
        "general.quantization_version": gguf.GGML_QUANT_VERSION,
        # llama.cpp samples with these unless its flags say otherwise
        "general.sampling.temp": float(np.float32(sampling.temperature)),
        "general.sampling.top_k": sampling.top_k or 0,
        "general.sampling.top_p": float(np.float32(sampling.top_p or 1)),
        "general.sampling.min_p": float(np.float32(sampling.min_p or 0)),
        "gpt2.vocab_size": model.vocab_size,
        "gpt2.context_length": config.context_length,
        "gpt2.embedding_length": config.d_model,
        "gpt2.feed_forward_length": config.d_ff,
        "gpt2.block_count": config.n_layers,
        "gpt2.attention.head_count": config.n_heads,
        "gpt2.attention.layer_norm_epsilon": LAYER_NORM_EPSILON,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        TOKENS: tokens,
        "tokenizer.ggml.token_type": types,
        MERGES: [f"{left} {right}" for left, right in bpe["merges"]],
        "tokenizer.ggml.bos_token_id": end_of_text,
        "tokenizer.ggml.eos_token_id": end_of_text,
        "tokenizer.ggml.add_bos_token": True,
    }


def modelfile(model: ModelToExport) -> str:
    """The Modelfile with which Ollama samples as `tinygpt sample` does."""
    sampling = SampleConfig()
    return f"""FROM ./{FILE}
TEMPLATE "{{{{ .Prompt }}}}"
PARAMETER num_ctx {model.config.context_length}
PARAMETER temperature {sampling.temperature:g}
PARAMETER top_k {sampling.top_k or 0}
PARAMETER top_p {sampling.top_p or 1:g}
PARAMETER min_p {sampling.min_p or 0:g}
PARAMETER repeat_penalty 1
PARAMETER stop "{END_OF_TEXT}"
"""


def gguf_name(name: str) -> str:
    """The name in GGUF of a tensor of GPT-2, e.g., of "transformer.h.0.ln_1.weight"."""
    if name in OUTSIDE_BLOCKS:
        return OUTSIDE_BLOCKS[name]
    _, _, layer, in_block = name.split(".", 3)
    module, _, kind = in_block.rpartition(".")
    return f"blk.{layer}.{IN_BLOCK[module]}.{kind}"


def other_way_round(name: str, array: Array) -> Array:
    """A tensor of GPT-2 as GGUF has it, or back: matrices of blocks are transposed."""
    return array.T if name.startswith("transformer.h.") else array  # a vector stays as it is


def tensors_of(model: ModelToExport) -> dict[str, Array]:
    """The weights by their names in GGUF."""
    tensors = to_gpt2(model.weights.arrays)
    tensors.setdefault("lm_head.weight", tensors["transformer.wte.weight"])
    return {gguf_name(name): other_way_round(name, tensors[name]) for name in tensors}


def format_of(name: str, array: Array, dtype: str) -> gguf.GGMLQuantizationType:
    """The format of a tensor: that of the file for a matrix, f32 for vectors and positions."""
    stays_f32 = array.ndim == 1 or name == "position_embd.weight"
    return TYPES["f32" if stays_f32 else dtype][0]


def to_bytes(metadata: Mapping[str, Any], tensors: Mapping[str, Array], dtype: str) -> bytes:
    """A GGUF file."""
    buffer = io.BytesIO()
    writer = gguf.GGUFWriter(None, "gpt2")
    for key, value in metadata.items():
        writer.add_key_value(key, value, FIELD_TYPES[type(value)])
    for name, array in tensors.items():
        kind = format_of(name, array, dtype)
        writer.add_tensor(name, gguf.quantize(array, kind), raw_dtype=kind)
    writer.fout = [buffer]  # type: ignore[list-item]
    writer.state = WriterState.EMPTY
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.write_padding(buffer, buffer.tell())
    # Not write_tensors_to_file(), which needs a file of the operating system
    for info in writer.tensors[0].values():
        assert info.tensor is not None
        buffer.write(info.tensor.tobytes())
        writer.write_padding(buffer, info.nbytes)
    return buffer.getvalue()


def check(model: ModelToExport, out: ExportFolder, metadata: Mapping[str, Any], dtype: str) -> str:
    """Read model.gguf, and compare it with the model.

    Returns:
        What was compared, and the largest difference.
    Raises:
        VerificationError: it is not the model that was to be written.
    """
    says, found = read_back(out.folder / FILE)
    for key, value in {"general.architecture": "gpt2", **metadata}.items():
        if says.get(key) != value:
            raise VerificationError(
                f"`{key}` in `{FILE}` is not what was written", hint=NOTHING_LEFT
            )
    check_weights(tensors_of(model), found, dtype)
    rounded = {name: found[gguf_name(gpt2_name(name))] for name in model.weights.arrays}
    logits = logits_of(model, metadata, found)
    compared = compare_logits(model, logits, None if dtype == "f32" else rounded)
    return f"read back: {compared}; {compare_ids(model, encoder_of(metadata))}"


def read_back(path: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    """What a GGUF file says, and its tensors by name, as float32.

    Raises:
        VerificationError: it cannot be read.
    """
    try:
        reader = gguf.GGUFReader(path)
        says = {name: field.contents() for name, field in reader.fields.items()}
        found = {}
        with np.errstate(invalid="ignore"):
            for part in reader.tensors:  # copied, so that nothing stays mapped
                found[part.name] = np.array(gguf.dequantize(part.data, part.tensor_type))
    except (ValueError, LookupError, OverflowError, NotImplementedError) as error:
        raise VerificationError(
            f"`{path.name}` cannot be read back: {error}", hint=NOTHING_LEFT
        ) from error
    return says, found


def check_weights(written: Mapping[str, Array], found: Mapping[str, Array], dtype: str) -> None:
    """Compare what was read with the weights, number by number.

    Raises:
        VerificationError: a tensor is missing, or a number is off by more than its format rounds.
    """
    for name, array in written.items():
        if name not in found or found[name].shape != array.shape:
            raise VerificationError(f"`{FILE}` lacks the tensor `{name}`", hint=NOTHING_LEFT)
        errors = np.abs(found[name] - array)
        if not (errors <= half_steps(array, format_of(name, array, dtype))).all():
            raise VerificationError(
                f"`{name}` in `{FILE}` is off by up to {errors.max():.2g}, which is more than "
                f"{dtype} rounds",
                hint=NOTHING_LEFT,
            )


def half_steps(array: Array, kind: gguf.GGMLQuantizationType) -> Array:
    """The most that rounding to a format can move each number, and a little, float32."""
    if kind == gguf.GGMLQuantizationType.F16:
        return 1.01 * _half_step_of_half(array)
    if kind == gguf.GGMLQuantizationType.Q8_0:
        blocks = np.abs(array.reshape(-1, BLOCK))
        scales = blocks.max(axis=1, keepdims=True) / np.float32(127)
        # An integer is off by a half; its scale, which is f16, is off too, and counts 127 times
        steps = scales / 2 + 127 * _half_step_of_half(scales)
        return np.broadcast_to(1.01 * steps, blocks.shape).reshape(array.shape)
    return np.zeros_like(array)


def _half_step_of_half(array: Array) -> Array:
    """Half the distance between neighboring numbers of f16, float32."""
    return np.spacing(np.abs(array).astype(np.float16)).astype(np.float32) / 2


def logits_of(
    model: ModelToExport, metadata: Mapping[str, Any], found: Mapping[str, Array]
) -> Array:
    """The logits for the model's probe, computed from what was read, (P, V)."""
    names = [*to_gpt2(model.weights.arrays), "lm_head.weight"]
    tensors = {name: other_way_round(name, found[gguf_name(name)]) for name in names}
    config = {
        **model_config(model),
        "n_layer": metadata["gpt2.block_count"],
        "n_head": metadata["gpt2.attention.head_count"],
        "layer_norm_epsilon": metadata["gpt2.attention.layer_norm_epsilon"],
        "tie_word_embeddings": False,
    }
    probe = model.weights.probe
    return last_logits(config, tensors.__getitem__, probe.token_ids, probe.positions)


def encoder_of(metadata: Mapping[str, Any]) -> Callable[[str], Sequence[int]]:
    """What encodes a text with the tokens and merges of a file."""
    vocabulary = {token: token_id for token_id, token in enumerate(metadata[TOKENS])}
    merges = [tuple(merge.split(" ")) for merge in metadata[MERGES]]
    native = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    native.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return lambda text: native.encode(text).ids
