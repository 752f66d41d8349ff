"""The little world that the texts are about: people with countable things, and what happens to those things.

A :class:`Story` holds the facts; its methods put them into English. The pretraining text tells such stories and asks
about them (:mod:`text`), the fine-tuning task takes notes of them (:mod:`make_task`).
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

PEOPLE = {
    "Anna": "she",
    "Ben": "he",
    "Clara": "she",
    "Dan": "he",
    "Eva": "she",
    "Finn": "he",
    "Grace": "she",
    "Hugo": "he",
    "Ida": "she",
    "Jack": "he",
    "Kim": "she",
    "Leo": "he",
    "Mia": "she",
    "Noah": "he",
    "Olga": "she",
    "Paul": "he",
    "Rosa": "she",
    "Sam": "he",
    "Tina": "she",
    "Tom": "he",
}
THINGS = {
    "apple": "apples",
    "ball": "balls",
    "book": "books",
    "button": "buttons",
    "cake": "cakes",
    "card": "cards",
    "coin": "coins",
    "egg": "eggs",
    "flower": "flowers",
    "key": "keys",
    "leaf": "leaves",
    "lemon": "lemons",
    "nut": "nuts",
    "pear": "pears",
    "pencil": "pencils",
    "shell": "shells",
    "stamp": "stamps",
    "stone": "stones",
}
COLOURS = ("red", "blue", "green", "yellow", "white", "black", "brown", "golden")
PLACES = {
    "beach": "at the beach",
    "bridge": "on the bridge",
    "farm": "at the farm",
    "forest": "in the forest",
    "garden": "in the garden",
    "kitchen": "in the kitchen",
    "library": "in the library",
    "market": "at the market",
    "park": "in the park",
    "river": "by the river",
    "school": "at school",
    "station": "at the station",
}
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
NUMBERS = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
)
LARGEST = len(NUMBERS) - 1

GAINS = ("found", "bought", "picked up", "was given")
LOSSES = ("lost", "sold", "gave away", "dropped")


@dataclass(frozen=True)
class Event:
    """Somebody comes by, or parts with, some of the things.

    Attributes:
        verb: one of ``GAINS`` or ``LOSSES``.
        count: how many things change hands.
        place: key of ``PLACES``.
    """

    verb: str
    count: int
    place: str

    @property
    def change(self) -> int:
        return self.count if self.verb in GAINS else -self.count


@dataclass(frozen=True)
class Story:
    """The facts of one story.

    Attributes:
        person: key of ``PEOPLE``; whose things are counted.
        thing: key of ``THINGS``.
        colour: of the things.
        day: one of ``DAYS``.
        start: how many things there are at first.
        events: what happens to them, in order.
    """

    person: str
    thing: str
    colour: str
    day: str
    start: int
    events: tuple[Event, ...]

    @classmethod
    def draw(cls, rng: Random, events: int) -> Story:
        """A random story of ``events`` events whose running count stays between 0 and ``LARGEST``."""
        start = count = rng.randint(2, 12)
        happenings = []
        for place in rng.sample(list(PLACES), events):
            can_lose, can_gain = count > 0, count < LARGEST
            gains = can_gain and (not can_lose or rng.random() < 0.5)
            event = Event(
                verb=rng.choice(GAINS if gains else LOSSES),
                count=rng.randint(1, min(9, LARGEST - count if gains else count)),
                place=place,
            )
            count += event.change
            happenings.append(event)
        return cls(
            person=rng.choice(list(PEOPLE)),
            thing=rng.choice(list(THINGS)),
            colour=rng.choice(COLOURS),
            day=rng.choice(DAYS),
            start=start,
            events=tuple(happenings),
        )

    @property
    def pronoun(self) -> str:
        return PEOPLE[self.person]

    @property
    def end(self) -> int:
        """How many things there are when everything has happened."""
        return self.start + sum(event.change for event in self.events)

    def opening(self, rng: Random) -> str:
        """Who has how many of what, and when."""
        things = f"{number(self.start, rng)} {plural(self.thing, self.start, self.colour)}"
        return rng.choice(
            (
                f"On {self.day} {self.person} had {things}.",
                f"{self.person} had {things} on {self.day}.",
                f"It was {self.day} and {self.person} had {things}.",
            )
        )

    def middle(self, rng: Random) -> list[str]:
        """One sentence an event."""
        sentences = []
        for i, event in enumerate(self.events):
            things = number(event.count, rng)
            if rng.random() < 0.4:
                things += f" {plural(self.thing, event.count)}"
            where = PLACES[event.place]
            join = rng.choice(("Then", "Later", "After that")) if i else rng.choice(("First", "In the morning", "Soon"))
            sentences.append(
                rng.choice(
                    (
                        f"{join} {self.pronoun} {event.verb} {things} {where}.",
                        f"{where.capitalize()} {self.pronoun} {event.verb} {things}.",
                        f"{self.pronoun.capitalize()} {event.verb} {things} {where}.",
                    )
                )
            )
        return sentences

    def ending(self, rng: Random) -> str:
        """How many are left."""
        things = f"{number(self.end, rng)} {plural(self.thing, self.end)}"
        return rng.choice(
            (
                f"In the end {self.person} had {things}.",
                f"Now {self.pronoun} has {things} left.",
                f"That makes {things}.",
            )
        )


def number(value: int, rng: Random) -> str:
    """The number in digits or, as often, in words."""
    return str(value) if rng.random() < 0.5 else NUMBERS[value]


def plural(thing: str, count: int, colour: str | None = None) -> str:
    """The noun in the number that the count asks for, with its colour before it."""
    noun = thing if count == 1 else THINGS[thing]
    return f"{colour} {noun}" if colour else noun


def article(noun: str) -> str:
    """The noun phrase with its indefinite article."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def listing(items: list[str]) -> str:
    """``"a, b and c"``."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
