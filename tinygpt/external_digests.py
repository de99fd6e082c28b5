"""Content hashes that replace names in cache keys, e.g., of the files that a name stands for."""

from pathlib import Path

from tinygpt.config import Config, HubSource, parse_source
from tinygpt.config.tables import DataConfig
from tinygpt.errors import InputError
from tinygpt.hashing import hash_file
from tinygpt.progress import Reporter
from tinygpt.store import Store


def external_digests(
    config: Config,
    store: Store,
    *,
    may_read_source: bool,
    refresh_source: bool,
    reporter: Reporter,
) -> dict[str, str]:
    """Content hashes for the keys whose values name something outside the configuration.

    Args:
        config: `data.source`, `eval.text` and `train.init_from` are used.
        store: holds the corpora read before and the model of `train.init_from`.
        may_read_source, refresh_source, reporter: see Project.
    Returns:
        By key, e.g., {"data.source": "files:...", "eval.text": "sha256:..."}.
    Raises:
        InputError: a file cannot be read.
        NetworkError: the hub is needed and not there.
    """
    known = _known_fingerprint(config.data, store)
    ask_hub = may_read_source and (known is None or refresh_source)
    digests = {"data.source": _source_fingerprint(config.data, known, ask_hub, reporter)}
    if config.eval.text is not None:
        digests["eval.text"] = _text_digest(config.eval.text)
    if config.train.init_from is not None:
        digests["train.init_from"] = store.resolve(config.train.init_from, "train").digest
    return digests


def external_names(config: Config) -> tuple[str | None, ...]:
    """What the digests depend on, beside the contents themselves."""
    return config.data.source, config.eval.text, config.train.init_from


def _known_fingerprint(data: DataConfig, store: Store) -> str | None:
    """The fingerprint of the source when it was last read into a corpus; None if it never was."""
    for corpus in store.list("corpus"):
        if corpus.manifest.provenance.get("source") == data.source:
            return str(corpus.manifest.provenance["fingerprint"])
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


def _text_digest(path: str) -> str:
    try:
        return f"sha256:{hash_file(Path(path))}"
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(
            f"cannot read `eval.text` = `{path}`: {reason}", hint="name a text file"
        ) from error
