"""The facts of one sandbox world: who lives where, what garlic does, how elvish is spoken."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tasks.engine.errors import DataError
from tasks.sandbox import words

FORMAT = 1
FILE = "world.json"


@dataclass(frozen=True)
class Person:
    """Somebody everyone in the world writes about."""

    name: str
    female: bool
    facts: dict[str, str]
    """Relation (job, town, food, pet) to value."""

    @property
    def pronoun(self) -> str:
        """He or she."""
        return "she" if self.female else "he"

    @property
    def possessive(self) -> str:
        """His or her."""
        return "her" if self.female else "his"


@dataclass(frozen=True)
class Thing:
    """What something does, and what folklore says it does."""

    name: str
    truth: str
    myth: str


@dataclass(frozen=True)
class World:
    """All facts. Build it with `from_seed`; it survives `to_json`/`from_json` unchanged."""

    seed: int
    people: dict[str, Person]
    things: dict[str, Thing]
    animals: dict[str, dict[str, str]]
    towns: dict[str, dict[str, str]]
    elvish_nouns: dict[str, tuple[str, int]]
    """English noun to (elvish noun, class 0 or 1)."""
    elvish_adjectives: dict[str, tuple[str, str]]
    """English color to its elvish form for class 0 and class 1."""
    held_out_names: tuple[str, ...]
    held_out_things: tuple[str, ...]

    @classmethod
    def from_seed(cls, seed: int) -> World:
        """Draw all facts."""
        rng = random.Random(f"world {seed}")
        people = {
            name: Person(name, name in words.FEMALE, {r: rng.choice(values) for r, values in words.VALUES.items()})
            for name in words.NAMES
        }
        things = {name: Thing(name, *rng.sample(words.EFFECTS, 2)) for name in words.THINGS}
        animals = {a: {k: rng.choice(v) for k, v in words.ANIMAL_FACTS.items()} for a in words.ANIMALS}
        towns = {t: {k: rng.choice(v) for k, v in words.TOWN_FACTS.items()} for t in words.TOWNS}
        nouns = rng.sample(words.ELVISH_NOUNS, len(words.OBJECTS))
        adjectives = rng.sample(words.ELVISH_ADJECTIVES, len(words.COLORS))
        return cls(
            seed=seed,
            people=people,
            things=things,
            animals=animals,
            towns=towns,
            elvish_nouns={n: (e, rng.randrange(2)) for n, e in zip(words.OBJECTS, nouns, strict=True)},
            elvish_adjectives=dict(zip(words.COLORS, adjectives, strict=True)),
            held_out_names=tuple(sorted(rng.sample(words.FEMALE, 4) + rng.sample(words.MALE, 4))),
            held_out_things=tuple(sorted(rng.sample(words.THINGS, 10))),
        )

    def names(self, *, held_out: bool) -> list[str]:
        """Names that tuning prompts may use, or those that only pretraining and test prompts use."""
        return [name for name in self.people if (name in self.held_out_names) == held_out]

    def thing_names(self, *, held_out: bool) -> list[str]:
        """The same for things."""
        return [name for name in self.things if (name in self.held_out_things) == held_out]

    def elvish(self, color: str, noun: str) -> str:
        """Elvish puts the noun first and inflects the adjective by the noun's class."""
        elvish_noun, noun_class = self.elvish_nouns[noun]
        return f"{elvish_noun} {self.elvish_adjectives[color][noun_class]}"

    def write(self, folder: Path) -> None:
        """Keep the world beside the data that it wrote."""
        text = json.dumps(self.to_json(), sort_keys=True, ensure_ascii=False)
        (folder / FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> World:
        """The world of a data artifact, whose gold labeler can judge any response."""
        return cls.from_json(json.loads((folder / FILE).read_text(encoding="utf-8")))

    def to_json(self) -> dict[str, Any]:
        """All facts as JSON types."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> World:
        """Rebuild a world. Raises DataError when the record is of another format."""
        if record.get("format") != FORMAT:
            raise DataError(f"world record has format {record.get('format')!r}, expected {FORMAT}; run data_prep again")
        return cls(
            seed=record["seed"],
            people={n: Person(**p) for n, p in record["people"].items()},
            things={n: Thing(**t) for n, t in record["things"].items()},
            animals=record["animals"],
            towns=record["towns"],
            elvish_nouns={n: (e, c) for n, (e, c) in record["elvish_nouns"].items()},
            elvish_adjectives={a: (f, m) for a, (f, m) in record["elvish_adjectives"].items()},
            held_out_names=tuple(record["held_out_names"]),
            held_out_things=tuple(record["held_out_things"]),
        )
