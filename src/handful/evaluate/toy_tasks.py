"""Small tasks made by a program, whose answers are known: for audits of small language models (080)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from handful.adapt.parameters import count

_GOOD = ("wonderful", "great", "lovely", "brilliant", "charming", "moving")
_BAD = ("terrible", "awful", "dull", "boring", "dreadful", "clumsy")
_THINGS = ("film", "book", "play", "song", "meal", "hotel", "story", "concert")
_OPENINGS = ("The {0} was {1}.", "What a {1} {0}!", "I found this {0} {1}.", "A {1} {0}, all in all.")
_PEOPLE = ("She", "He", "My brother", "The teacher", "Our neighbour", "Anna", "The old man", "This boy")
_VERBS = (("walk", "walks"), ("read", "reads"), ("like", "likes"), ("sing", "sings"), ("need", "needs"),
          ("know", "knows"), ("play", "plays"), ("want", "wants"))  # fmt: skip
_REST = ("every day", "at home", "in the park", "with friends", "after school", "a lot")
_NOUNS = (
    ("cat", "cats"), ("dog", "dogs"), ("box", "boxes"), ("bus", "buses"), ("city", "cities"), ("baby", "babies"),
    ("leaf", "leaves"), ("wolf", "wolves"), ("knife", "knives"), ("church", "churches"), ("brush", "brushes"),
    ("table", "tables"), ("child", "children"), ("man", "men"), ("woman", "women"), ("foot", "feet"),
    ("tooth", "teeth"), ("mouse", "mice"), ("goose", "geese"), ("toy", "toys"), ("day", "days"), ("story", "stories"),
    ("glass", "glasses"), ("house", "houses"), ("apple", "apples"), ("lady", "ladies"), ("shelf", "shelves"),
    ("fox", "foxes"), ("dish", "dishes"), ("key", "keys"), ("party", "parties"), ("tree", "trees"),
    ("lamp", "lamps"), ("watch", "watches"), ("wife", "wives"), ("half", "halves"), ("fly", "flies"),
    ("car", "cars"), ("river", "rivers"), ("bridge", "bridges"), ("bench", "benches"), ("wish", "wishes"),
    ("tax", "taxes"), ("class", "classes"), ("match", "matches"), ("country", "countries"), ("army", "armies"),
    ("berry", "berries"), ("copy", "copies"), ("duty", "duties"), ("boy", "boys"), ("monkey", "monkeys"),
    ("valley", "valleys"), ("loaf", "loaves"), ("thief", "thieves"), ("life", "lives"), ("calf", "calves"),
    ("louse", "lice"), ("ox", "oxen"), ("book", "books"), ("pen", "pens"), ("road", "roads"), ("window", "windows"),
    ("ship", "ships"), ("hill", "hills"), ("bird", "birds"), ("chair", "chairs"), ("garden", "gardens"),
)  # fmt: skip
_SIGNS = ("+", "-", "*")


@dataclass(frozen=True)
class ToyTask:
    """Texts and their answers.

    Args:
        name: of it.
        pool: to show or to learn from.
        queries: to be answered; none is in the pool.
        options: answers to choose from; none where an answer is written.
    """

    name: str
    pool: tuple[tuple[str, str], ...]
    queries: tuple[tuple[str, str], ...]
    options: tuple[str, ...] = ()


def toy_tasks(pool: int = 32, queries: int = 32, seed: int = 0) -> list[ToyTask]:
    """Sentiment of a sentence, its grammar put right, sums of two numbers, plurals.

    Plurals are of 68 nouns: where more are asked for, half of them are the pool.

    Raises:
        BadInput: a pool or queries of nothing.
    """
    count("pool", pool, 1), count("queries", queries, 1), count("seed", seed)
    rng = np.random.default_rng(seed)
    made = {
        "sentiment": ([_opening(a, thing, word) for a in _OPENINGS for thing in _THINGS for word in _GOOD + _BAD],
                      ("positive", "negative")),
        "grammar": ([(f"{who} {plain} {rest}.", f"{who} {right} {rest}.") for who in _PEOPLE
                     for plain, right in _VERBS for rest in _REST], ()),
        "arithmetic": ([(f"{a} {sign} {b}", str(_value(a, sign, b))) for a in range(2, 20) for b in range(2, 20)
                        for sign in _SIGNS], ()),
        "plural": (list(_NOUNS), ()),
    }  # fmt: skip
    out = []
    for name, (pairs, options) in made.items():
        order = rng.permutation(len(pairs))
        many = min(pool, len(pairs) // 2)
        drawn = [pairs[int(i)] for i in order[: many + min(queries, len(pairs) - many)]]
        out.append(ToyTask(name, tuple(drawn[:many]), tuple(drawn[many:]), options))
    return out


def _opening(pattern: str, thing: str, word: str) -> tuple[str, str]:
    return pattern.format(thing, word), "positive" if word in _GOOD else "negative"


def _value(a: int, sign: str, b: int) -> int:
    return a + b if sign == "+" else a - b if sign == "-" else a * b
