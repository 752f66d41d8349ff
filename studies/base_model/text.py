"""Pretraining text: endless documents about the world of :mod:`world`, a function a genre."""

from __future__ import annotations

from random import Random

from studies.base_model.world import (
    COLOURS,
    DAYS,
    LARGEST,
    NUMBERS,
    PEOPLE,
    PLACES,
    THINGS,
    Story,
    article,
    listing,
    number,
    plural,
)

SIZES = ("small", "big", "old", "new", "round", "heavy", "pretty")
MOODS = ("happy", "sad", "tired", "proud", "calm", "hungry")
WEATHERS = ("sunny", "rainy", "cold", "warm", "windy")
ANIMALS = ("dog", "cat", "horse", "bird", "goat", "rabbit")
DOINGS = ("read", "play", "sing", "walk", "swim", "draw", "rest", "cook")


def story(rng: Random) -> str:
    """Something happens to somebody's things; what is left is told at the end."""
    tale = Story.draw(rng, rng.randint(1, 3))
    sentences = [tale.opening(rng), *tale.middle(rng), tale.ending(rng)]
    if rng.random() < 0.3:
        sentences.insert(1, f"The weather was {rng.choice(WEATHERS)} and {tale.person} was {rng.choice(MOODS)}.")
    return " ".join(sentences)


def questions(rng: Random) -> str:
    """A story without its ending, then questions about it with their answers."""
    tale = Story.draw(rng, rng.randint(1, 3))
    event = rng.choice(tale.events)
    pairs = [
        ("Who is it about?", f"It is about {tale.person}."),
        ("What day was it?", f"It was {tale.day}."),
        ("What are the things?", f"They are {THINGS[tale.thing]}."),
        ("What colour are they?", f"They are {tale.colour}."),
        ("How many were there at first?", f"There were {number(tale.start, rng)}."),
        ("How many are there now?", f"There are {number(tale.end, rng)}."),
        (f"What happened {PLACES[event.place]}?", f"{tale.person} {event.verb} {number(event.count, rng)}."),
        (f"Where was it that {tale.person} {event.verb} {event.count}?", f"It was {PLACES[event.place]}."),
    ]
    lines = [" ".join([tale.opening(rng), *tale.middle(rng)])]
    lines += [f"Question: {ask} Answer: {reply}" for ask, reply in rng.sample(pairs, rng.randint(2, 4))]
    return "\n".join(lines)


def arithmetic(rng: Random) -> str:
    """Sums and differences within ``LARGEST``, in signs and in words."""
    lines = []
    for _ in range(rng.randint(2, 5)):
        total = rng.randint(1, LARGEST)
        part = rng.randint(0, total)
        rest = total - part
        lines.append(
            rng.choice(
                (
                    f"{part} + {rest} = {total}",
                    f"{total} - {part} = {rest}",
                    f"{NUMBERS[part].capitalize()} plus {NUMBERS[rest]} is {NUMBERS[total]}.",
                    f"{NUMBERS[total].capitalize()} minus {NUMBERS[part]} is {NUMBERS[rest]}.",
                    f"The number {total} is written {NUMBERS[total]}.",
                    f"The word {NUMBERS[total]} means {total}.",
                )
            )
        )
    return "\n".join(lines)


def counting(rng: Random) -> str:
    """Numbers in order, upwards or downwards."""
    first = rng.randint(0, LARGEST - 4)
    run = list(range(first, rng.randint(first + 3, LARGEST) + 1))
    how = rng.choice(("up", "down"))
    if how == "down":
        run.reverse()
    words = rng.random() < 0.5
    return f"{rng.choice(list(PEOPLE))} counts {how}: " + ", ".join(NUMBERS[n] if words else str(n) for n in run) + "."


def shopping(rng: Random) -> str:
    """A list of things to buy, then the same things in a sentence."""
    person = rng.choice(list(PEOPLE))
    amounts = {thing: rng.randint(1, 12) for thing in rng.sample(list(THINGS), rng.randint(2, 4))}
    lines = [f"List of {person}:", *(f"- {count} {plural(thing, count)}" for thing, count in amounts.items())]
    phrases = [f"{NUMBERS[count]} {plural(thing, count)}" for thing, count in amounts.items()]
    return "\n".join([*lines, f"{person} wants {listing(phrases)}."])


def description(rng: Random) -> str:
    """What a thing, a place or an animal is like."""
    person, other = rng.sample(list(PEOPLE), 2)
    thing, colour, size = rng.choice(list(THINGS)), rng.choice(COLOURS), rng.choice(SIZES)
    place = rng.choice(list(PLACES))
    animal = rng.choice(ANIMALS)
    return rng.choice(
        (
            f"This is {article(thing)}. The {thing} is {size} and {colour}. It belongs to {person}.",
            f"{person} likes the {place}. You can {rng.choice(DOINGS)} {PLACES[place]}. There are many "
            f"{THINGS[thing]} too, and some of them are {colour}.",
            f"{person} has {article(animal)}. The {animal} is {colour} and {size}. "
            f"{PEOPLE[person].capitalize()} goes to see {other} with the {animal} on {rng.choice(DAYS)}.",
            f"{person} is {rng.choice(MOODS)} today because the weather is {rng.choice(WEATHERS)}. "
            f"{PEOPLE[person].capitalize()} wants to {rng.choice(DOINGS)} {PLACES[place]}.",
        )
    )


def dialogue(rng: Random) -> str:
    """Two people talk about what they have."""
    person, other = rng.sample(list(PEOPLE), 2)
    thing, count = rng.choice(list(THINGS)), rng.randint(1, 9)
    more = rng.randint(1, 9)
    asked = f'{person} said: "How many {THINGS[thing]} do you have?"'
    told = f'{other} said: "I have {number(count, rng)} {plural(thing, count)}."'
    verdict = "the same" if more == count else "more" if more > count else "fewer"
    return "\n".join((asked, told, f'{person} said: "I have {number(more, rng)}, that is {verdict}."'))


def echo(rng: Random) -> str:
    """Somebody says something and somebody else repeats it."""
    person, other = rng.sample(list(PEOPLE), 2)
    tale = Story.draw(rng, rng.randint(1, 2))
    said = " ".join([tale.opening(rng), *tale.middle(rng)])
    return f'{person} said: "{said}"\n{other} said it again: "{said}"'


def letter(rng: Random) -> str:
    """A short letter with plans for a day."""
    person, other = rng.sample(list(PEOPLE), 2)
    place, thing = rng.choice(list(PLACES)), rng.choice(list(THINGS))
    return (
        f"Dear {other},\nI will be {PLACES[place]} on {rng.choice(DAYS)}. Please bring "
        f"{number(count := rng.randint(2, 12), rng)} {plural(thing, count)}. "
        f"We can {rng.choice(DOINGS)} and {rng.choice(DOINGS)} together.\nYour friend {person}"
    )


def week(rng: Random) -> str:
    """Plans for some days of the week, in order."""
    person = rng.choice(list(PEOPLE))
    first = rng.randint(0, len(DAYS) - 3)
    days = DAYS[first : first + rng.randint(2, 3)]
    plans = [f"On {day} {person} wants to {rng.choice(DOINGS)} {PLACES[rng.choice(list(PLACES))]}." for day in days]
    return " ".join(plans)


GENRES = {
    story: 4,
    questions: 8,
    arithmetic: 3,
    counting: 1,
    shopping: 1,
    description: 1,
    dialogue: 1,
    echo: 2,
    letter: 1,
    week: 1,
}
"""Every genre with its share of the documents."""


def document(rng: Random) -> str:
    """A random document."""
    (genre,) = rng.choices(list(GENRES), weights=list(GENRES.values()))
    return genre(rng)
