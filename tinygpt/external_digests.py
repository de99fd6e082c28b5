"""Content hashes that replace names in cache keys, e.g., of the files that a name stands for."""

from collections.abc import Collection

from tinygpt.config import Config, HubSource, parse_source
from tinygpt.config.tables import DataConfig
from tinygpt.continuation import check_shape, find_tokenizer, tokenizer_digest
from tinygpt.errors import InputError
from tinygpt.progress import Reporter
from tinygpt.store import Store


def external_digests(
    config: Config,
    store: Store,
    names: Collection[str],
    *,
    may_read_source: bool,
    refresh_source: bool,
    reporter: Reporter,
) -> dict[str, str]:
    """Content hashes for the keys whose values name something outside the configuration.

    Args:
        config: `data.source`, `eval.text`, `tokenizer.from` and `train.init_from` are used.
        store: holds the corpora read before, and what the last two name.
        names: of those keys that matter; the others are left out.
        may_read_source, refresh_source, reporter: see Project.
    Returns:
        By key, e.g., {"data.source": "files:...", "eval.text": "text:..."}.
    Raises:
        InputError: a file cannot be read.
        NetworkError: the hub is needed and not there.
        ConfigError: the model of `train.init_from` has another shape.
        MissingArtifactError, UsageError: an id names no artifact.
    """
    from tinygpt.corpus.given import given_fingerprint

    digests: dict[str, str] = {}
    if "data.source" in names:
        known = _known_fingerprint(config.data, store)
        ask_hub = may_read_source and (known is None or refresh_source)
        digests["data.source"] = _source_fingerprint(config.data, known, ask_hub, reporter)
    if config.eval.text is not None and "eval.text" in names:
        digests["eval.text"] = given_fingerprint(config.eval.text, config.data)
    if config.tokenizer.from_ is not None and "tokenizer.from" in names:
        digests["tokenizer.from"] = tokenizer_digest(find_tokenizer(store, config.tokenizer.from_))
    if config.train.init_from is not None and "train.init_from" in names:
        model = store.resolve(config.train.init_from, "train")
        check_shape(config.model, model)
        digests["train.init_from"] = model.digest
    return digests


def external_names(config: Config) -> tuple[object, ...]:
    """What the digests depend on, beside the contents themselves."""
    return (
        config.data,
        config.eval.text,
        config.tokenizer.from_,
        config.train.init_from,
    )


def _known_fingerprint(data: DataConfig, store: Store) -> str | None:
    """The fingerprint of the source when it was last read into a corpus; None if it never was."""
    for corpus in store.list("corpus"):
        facts = corpus.manifest.provenance
        if facts.get("source") == data.source and "fingerprint" in facts:
            return str(facts["fingerprint"])
    return None


def _source_fingerprint(
    data: DataConfig, known: str | None, ask_hub: bool, reporter: Reporter
) -> str:
    """The fingerprint of `data.source`.

    The hub is asked only before a corpus is read from it. A source that no longer exists counts as
    unchanged.
    """
    from tinygpt.corpus import fingerprint

    if isinstance(parse_source(data.source), HubSource) and not ask_hub:
        return known or data.source  # a name matches no key, so no artifact is found
    try:
        return fingerprint(data)
    except InputError as gone:
        if known is None:
            raise
        reporter.note(f"{gone.message}; using the corpus that was read from it earlier")
        return known
