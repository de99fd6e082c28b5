"""The stories that tinygpt generates itself: a first run needs neither network nor files.

Story i of a seed is a function of (VERSION, seed, i): a plot of plots.txt, with a cast and words
drawn at random.
"""

import functools
import itertools
import random
import re
from collections.abc import Iterator, Sequence
from importlib.resources import files
from typing import NamedTuple, TypeVar

VERSION = 1
"""Part of the cache key of a corpus; raise it whenever the stories of a seed change."""

LABEL = "template stories, not comparable"
"""Stands beside every number measured on these stories: templates are easier to predict than
human writers."""

T = TypeVar("T")
_HE = ("he", "him", "his", "He", "His")
_SHE = ("she", "her", "her", "She", "Her")
_CHOICE = re.compile(r"<([^<>]*)>")


class Character(NamedTuple):
    """Someone in a story.

    Args:
        name: e.g., "Lily".
        kind: how a narrator introduces them, e.g., "a little girl".
        he, him, his: their pronouns.
        He, His: the pronouns at the start of a sentence.
    """

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
    """The stories of a seed, without end."""
    return (story(seed, index) for index in itertools.count())


def story(seed: int, index: int) -> str:
    """Story number `index` of a seed: 130 to 210 words in paragraphs."""
    rng = random.Random(f"tinygpt.builtin {VERSION} {seed} {index}")
    _, introduction, *plots = _sections()
    template = introduction + " " + _pick(rng, plots)
    while "<" in template:
        template = _CHOICE.sub(lambda match: _pick(rng, match[1].split("|")).lstrip(), template)
    words = {name: _pick(rng, entries) for name, entries in _tables().items()}
    slots = {**words, **cast(rng)}
    # The words of a slot may themselves have slots for the cast, so these are filled in second.
    with_words = template.format_map(slots)
    text = with_words.format_map(slots)
    paragraphs = (" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
    return re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", "\n\n".join(paragraphs))


def cast(rng: random.Random) -> dict[str, Character]:
    """A hero `h`, a friend `f` and a grown-up `m`.

    The friend of a child is another child, that of an animal an animal of another kind.
    """
    animals = rng.random() < 0.4
    hero = _character(rng, animal=animals)
    friend = _character(rng, animal=animals)
    while friend.name == hero.name or (animals and _noun(friend) == _noun(hero)):
        friend = _character(rng, animal=animals)
    parent = _pick(rng, ("Mom", "Dad", "Grandma", "Grandpa"))
    pronouns = _SHE if parent in ("Mom", "Grandma") else _HE
    return {"h": hero, "f": friend, "m": Character(parent, parent, *pronouns)}


def _character(rng: random.Random, *, animal: bool) -> Character:
    sex = "girl" if rng.random() < 0.5 else "boy"
    noun = _pick(rng, _tables()["animal"]) if animal else sex
    adjective = _pick(rng, ("little", "small", "young"))
    name = str(_pick(rng, _tables()[sex]))
    pronouns = _SHE if sex == "girl" else _HE
    return Character(name, f"a {adjective} {noun}", *pronouns)


def _noun(character: Character) -> str:
    return character.kind.split()[-1]


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
        tables[name] = [
            entry.split(" / ") if " / " in entry else entry for entry in entries.split("; ")
        ]
    return tables


def _pick(rng: random.Random, items: Sequence[T]) -> T:
    # Python guarantees that a seed gives the same random() in all its versions, but not choice().
    return items[int(rng.random() * len(items))]
