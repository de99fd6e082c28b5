"""The README.md of an exported model: what it is, where it comes from, how good it is, its limits.

It says what the artifacts say, and no path, user or host.
"""

import json
from collections.abc import Iterator, Mapping

from tinygpt.exports.model import ModelToExport
from tinygpt.lm.tokenizer import END_OF_TEXT
from tinygpt.records import CorpusMeta, DatasetMeta, EvalRecord, ModelFile, ScoreRecord
from tinygpt.store.manifest import DataTable

IMPORT = "import.json"
HEAD = """\
---
pipeline_tag: text-generation
tags: [tinygpt]
---

"""  # what the Hub reads


def render(model: ModelToExport, how_to_load: str, dtype: str) -> bytes:
    """The model card in Markdown.

    Args:
        model: what it describes.
        how_to_load: Markdown, for who reads the exported folder.
        dtype: number format of the exported weights.
    """
    sections = {
        "How to load it": how_to_load,
        "Data": "\n".join(_data(model)),
        "Recipe": _recipe(model),
        "Weights": _weights(model, dtype),
        "Results": "\n".join(_results(model)),
        "Limits": _limits(model),
    }
    parameters = sum(array.size for array in model.weights.arrays.values())
    text = (
        f"# tinygpt {model.id}\n\nA language model with the architecture of GPT-2 and "
        f"{parameters:,} parameters, {_origin(model)}.\n"
    )
    for title, content in sections.items():
        text += f"\n## {title}\n\n{content}\n"
    return (HEAD + text).encode()


def _is_imported(model: ModelToExport) -> bool:
    return IMPORT in model.train.names()


def _origin(model: ModelToExport) -> str:
    if _is_imported(model):
        return "which tinygpt imported from a GPT-2 folder of Hugging Face"
    if model.train.manifest.tables.get("train", {}).get("init_from") is not None:
        return "trained with tinygpt from the weights of another model"
    return "trained from scratch with tinygpt"


def _data(model: ModelToExport) -> Iterator[str]:
    corpus, dataset = model.lineage.get("corpus"), model.lineage.get("build-dataset")
    if corpus is not None:
        meta = corpus.read_json("meta.json", CorpusMeta)
        source = meta["source"]
        what = {
            "builtin": f"stories of tinygpt's own generator, seed {source.get('seed')}",
            "hub": f"`{_plain(source.get('name', ''))}` of the Hugging Face Hub, split "
            f"`{_plain(source.get('split', ''))}`",
            "files": f"{source.get('files')} file(s) of the user's own",
        }[source["kind"]]
        yield f"- Source: {what}"
        yield f"- Size: {meta['documents']:,} documents, {meta['bytes']:,} bytes of text"
        fingerprint = corpus.table("data", DataTable)["source"]
        yield f"- Fingerprint of the source: `{fingerprint}`"
        yield f"- Digest of the documents: `{corpus.digest}`"
    if dataset is not None:
        split = dataset.read_json("meta.json", DatasetMeta)
        yield (
            f"- Trained on {split['train']['tokens']:,} tokens; {split['val']['tokens']:,} were "
            "held out for validation"
        )
        if "label" in split:
            yield f"- Note: {_plain(split['label'])}"
    if corpus is None:
        of_input = "folder" if _is_imported(model) else "build-dataset"
        made_from = model.train.manifest.inputs.get(of_input)
        digest = f"; digest of the {of_input}: `{made_from['digest']}`" if made_from else ""
        yield f"- The training text is not described here{digest}"
    stated = model.data_license
    yield f"- License of the text: {_plain(stated) if stated else 'not stated by who exported it'}"


def _recipe(model: ModelToExport) -> str:
    """Every key that enters the keys of the artifacts it was made from."""
    lines = []
    tables: dict[str, Mapping[str, object]] = {}
    for stage in ("corpus", "tokenize", "build-dataset"):
        if stage in model.lineage:
            tables |= model.lineage[stage].manifest.tables
    for name, table in (tables | dict(model.train.manifest.tables)).items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    text = "\n".join(lines).replace("```", "'''")
    return (
        f"```\n{text}\n```\n\nNames of files and data sets are replaced by hashes of their content."
    )


def _weights(model: ModelToExport, dtype: str) -> str:
    weights = model.weights
    digest = f"Digest of the model: `{model.train.digest}`."
    table = model.train.read_json("config.json", ModelFile).get("train")
    if table is None:
        return f"Those that were imported, as {dtype}. {digest}"
    why = {"last": "the last", "best": "with the lowest validation loss"}[weights.which]
    return f"Step {weights.step:,} of {table['max_steps']:,}, {why}, as {dtype}. {digest}"


def _results(model: ModelToExport) -> Iterator[str]:
    evaluation = model.lineage.get("eval")
    if evaluation is None:
        yield "Not evaluated: `tinygpt eval`, and another export, fill this section."
        return
    record = evaluation.read_json("eval.json", EvalRecord)
    yield f"{record['tokens']:,} tokens of the {record['judged']}, in f32. A better model has a"
    yield "lower loss; the baselines are n-grams of the training text, and the untrained model.\n"
    yield "| model | loss [nats/token] | perplexity | bits per byte |"
    yield "|---|---:|---:|---:|"
    other = record["other_weights"]
    name = f"**{record['weights']} weights, step {record['step']:,}**"
    scores: dict[str, ScoreRecord] = {name: record}
    if other is not None:
        scores[f"{other['weights']} weights, step {other['step']:,}"] = other
    for scored, score in (scores | record["baselines"]).items():
        bits = score["bits_per_byte"]
        shown = "" if bits is None else f"{bits:.3f}"
        yield f"| {scored} | {score['loss']:.4f} | {score['perplexity']:,.2f} | {shown} |"
    if record["label"]:
        yield f"\n{_plain(record['label'])}"


def _limits(model: ModelToExport) -> str:
    end_of_text = model.tokenizer.end_of_text
    return f"""\
- It continues texts like those it was trained on. It answers no questions, follows no
  instructions, and knows nothing but its training text, parts of which it may repeat.
- It reads {model.config.context_length:,} tokens at once, the end-of-text token included.
- A text begins with the end-of-text token (id {end_of_text}): these files put it there by
  themselves, as tinygpt does in training and sampling. Without it, the model gives other text.
- `{END_OF_TEXT}` typed in a text is the end-of-text token here; in tinygpt it is plain text."""


def _plain(text: str) -> str:
    """A text of the user's as one line in which Markdown finds nothing to interpret."""
    line = " ".join(text.split())
    return "".join(
        f"\\{character}" if character in "\\`*_[]<>#|" else character for character in line
    )
