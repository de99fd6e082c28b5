"""The stories that tinygpt writes itself, so that a first run needs neither network nor files.

Story i of a seed is a function of (VERSION, seed, i): a plot of plots.txt with a cast and its words drawn at random.
"""

import functools
import itertools
import random
import re
from collections.abc import Iterator, Sequence
from importlib.resources import files
from typing import NamedTuple, TypeVar

VERSION = 1
"""Raised whenever a seed's stories change: it stands in the corpus key."""

DEFAULT_STORIES = 20_000
"""Stories told when `data.max_stories` is none: the generator itself never ends."""

LABEL = "template stories, not comparable"
"""Stands beside every number measured on these stories: templates are easier to predict than writers."""

T = TypeVar("T")
_HE = ("he", "him", "his", "He", "His")
_SHE = ("she", "her", "her", "She", "Her")
_CHOICE = re.compile(r"<([^<>]*)>")


class Character(NamedTuple):
    """Someone in a story: a name, how a narrator introduces them, and their pronouns, also as a sentence starts with them."""

    name: str
    kind: str
    he: str
    him: str
    his: str
    He: str
    His: str

    @property
    def the_kind(self) -> str:
        """The kind with a definite article, for the start of a sentence."""
        return "The " + self.kind.removeprefix("a ")


def stories(seed: int) -> Iterator[str]:
    """All stories of a seed, without an end."""
    return (story(seed, index) for index in itertools.count())


def story(seed: int, index: int) -> str:
    """Story number `index` of a seed: 130 to 210 words in paragraphs."""
    rng = random.Random(f"tinygpt.builtin {VERSION} {seed} {index}")
    _, introduction, *plots = _sections()
    template = introduction + " " + _pick(rng, plots)
    while "<" in template:
        template = _CHOICE.sub(lambda match: _pick(rng, match[1].split("|")).lstrip(), template)
    slots = {name: _pick(rng, entries) for name, entries in _tables().items()} | cast(rng)
    text = template.format_map(slots).format_map(slots)  # twice: the words of a slot may name the cast
    paragraphs = (" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
    return re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", "\n\n".join(paragraphs))


def cast(rng: random.Random) -> dict[str, Character]:
    """A hero `h`, a friend `f` (another child, or for an animal one of another kind) and a grown-up `m`."""
    animals = rng.random() < 0.4
    hero = friend = _character(rng, animal=animals)
    while friend.name == hero.name or (animals and friend.kind.split()[-1] == hero.kind.split()[-1]):
        friend = _character(rng, animal=animals)
    parent = _pick(rng, ("Mom", "Dad", "Grandma", "Grandpa"))
    return {"h": hero, "f": friend, "m": Character(parent, parent, *(_SHE if parent in ("Mom", "Grandma") else _HE))}


def _character(rng: random.Random, *, animal: bool) -> Character:
    sex = "girl" if rng.random() < 0.5 else "boy"
    noun = _pick(rng, _tables()["animal"]) if animal else sex
    adjective = _pick(rng, ("little", "small", "young"))
    return Character(str(_pick(rng, _tables()[sex])), f"a {adjective} {noun}", *(_SHE if sex == "girl" else _HE))


@functools.cache
def _sections() -> list[str]:
    """The tables, the introduction and the plots of plots.txt."""
    text = files("tinygpt.corpus").joinpath("plots.txt").read_text(encoding="utf-8")
    return [section.strip() for section in re.split(r"^=== .*$", text, flags=re.MULTILINE)[1:]]


@functools.cache
def _tables() -> dict[str, list[str | list[str]]]:
    """The tables as lists; an entry of several parts is itself a list, which a plot indexes."""
    tables: dict[str, list[str | list[str]]] = {}
    for table in re.split(r"\n(?! )", _sections()[0]):
        name, _, entries = " ".join(table.split()).partition(": ")
        tables[name] = [entry.split(" / ") if " / " in entry else entry for entry in entries.split("; ")]
    return tables


def _pick(rng: random.Random, items: Sequence[T]) -> T:
    # Python promises the sequence of random() for a seed across its versions, but not that of choice().
    return items[int(rng.random() * len(items))]
