"""Descriptions of classes to learn from, and patterns that ask for a class: made, or read from published files.

    topic       the name, a few related words, the first sense of a dictionary, the first sentence of an encyclopaedia
    sentiment   five words a class, each alone and in four sentences

077: Gao, Ghosh, Gimpel, The Benefits of Label-Description Training for Zero-Shot Text Classification, 2023, section 3.
Their files, `manual_24.tsv` and `prompts.tsv` of eleven tasks, are in lingyugao/LabelDescTraining.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from handful.errors import BadInput

MASK = "<mask>"
"""Stands for the mask in a pattern, whatever the model's own is."""
SENTENCES = ("{}", "It was {}.", "{a} {} experience.", "Just {}.", "Overall, it was {}.")


@dataclass(frozen=True)
class Pattern:
    """How the class of a text is asked for.

    Args:
        text: with one ``<mask>``.
        behind: whether it stands behind the text, or before it.
        place: where the mask is, counted in tokens without those that frame the input, from 0 or from -1 at the end;
            it is checked where it is given.
    """

    text: str
    behind: bool = True
    place: int | None = None

    def __post_init__(self) -> None:
        if self.text.count(MASK) != 1:
            raise BadInput(f"pattern {self.text!r} has {self.text.count(MASK)} masks; put {MASK} once")
        if self.place is not None and (self.place < 0) != self.behind:
            raise BadInput(f"pattern {self.text!r}: the mask is counted from the end behind a text, else from 0")


def _patterns(questions: Sequence[str], names: Sequence[str], first: str) -> tuple[Pattern, ...]:
    """Each with a full stop and without, and two in front of the text."""
    asked = [f"Question: {one} Answer: {MASK}" for one in questions]
    named = [f"{name}: {MASK}" for name in names]
    behind = [
        Pattern(one + end, True, place)
        for some in (asked, named)
        for end, place in ((".", -2), ("", -1))
        for one in some
    ]
    return (*behind, Pattern(f"{MASK} {first}:", False, 0), Pattern(f"{MASK} {first.upper()}:", False, 0))


TOPIC = _patterns(
    ("What is the topic of this article?", "What is the category of this article?"),
    ("Category", "Class", "Topic", "Theme"),
    "News",
)
SENTIMENT = _patterns(
    ("What is the sentiment of this text?", "What is the writer's opinion in this text?"),
    ("Opinion", "Feeling", "Sentiment", "Summary"),
    "Sentiment",
)
"""The fourteen patterns of the paper: four questions, ten others."""


def make_label_descriptions(
    names: Sequence[str],
    kind: Literal["topic", "sentiment"] = "topic",
    *,
    related: Mapping[str, Sequence[str]] | None = None,
    definitions: Mapping[str, Sequence[str]] | None = None,
) -> tuple[list[str], list[str]]:
    """Texts and labels to learn from, see `handful.tune.describe`.

    Args:
        names: of the classes.
        kind: ``"topic"`` takes name, related words and definitions; ``"sentiment"`` name and related words, each in
            the sentences.
        related: words by class; the paper has three for topics, four for sentiment.
        definitions: sentences by class, of a dictionary or an encyclopaedia.

    Raises:
        BadInput: no names, or one twice; words of a class that is not there; an empty one, or one of two classes.
    """
    if kind not in ("topic", "sentiment"):
        raise BadInput(f"kind is 'topic' or 'sentiment', not {kind!r}")
    if not names or len(set(names)) < len(names):
        raise BadInput("give the name of each class once")
    if kind == "sentiment" and definitions:
        raise BadInput("definitions are for topics; sentiment has words in sentences")
    for given in (related or {}, definitions or {}):
        if unknown := [name for name in given if name not in names]:
            raise BadInput(f"there are words of {unknown[0]!r}, which is no class; there are {', '.join(names)}")
    texts: list[str] = []
    labels: list[str] = []
    of: dict[str, str] = {}
    for name in names:
        words = [name, *(related or {}).get(name, ())]
        own = [_sentence(one, word) for one in SENTENCES for word in words] if kind == "sentiment" else words
        for text in (*own, *(definitions or {}).get(name, ())):
            if not text.strip():
                raise BadInput(f"a description of {name!r} is empty")
            if of.setdefault(text, name) != name:
                raise BadInput(f"{text!r} describes {of[text]!r} and {name!r}; it cannot tell them apart")
            texts.append(text)
            labels.append(name)
    return texts, labels


def read_descriptions(path: str | Path, classes: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    """Texts and labels of a published file: class from 1, text and a note in columns, without a header.

    Args:
        path: the file.
        classes: names by number; the numbers themselves without.

    Raises:
        BadInput: no such file; a row without a text or a number of a class.
    """
    texts: list[str] = []
    labels: list[str] = []
    for number, row in enumerate(_rows(path, "utf-8"), 1):
        if len(row) < 2 or not row[0].strip().isdigit() or not row[1].strip():
            raise BadInput(f"{path}, row {number}: it needs the number of a class and a text, not {row[:2]}")
        at = int(row[0])
        if classes and not 1 <= at <= len(classes):
            raise BadInput(f"{path}, row {number}: class {at}, but there are {len(classes)} names")
        texts.append(re.sub(r"\s{2,}", " ", row[1]).replace("\\\\", "\\").strip())
        labels.append(classes[at - 1] if classes else str(at))
    if not texts:
        raise BadInput(f"{path} has no descriptions")
    return texts, labels


def read_patterns(path: str | Path) -> tuple[Pattern, ...]:
    """The patterns of a published file, with a header and five columns, such as ``qa 1 before "Answer: <mask>." -2``.

    Raises:
        BadInput: no such file; a row that is no pattern.
    """
    found = []
    for number, row in enumerate(_rows(path, "latin-1")[1:], 2):
        try:
            _, _, where, text, place = (cell.strip() for cell in row)
            found.append(Pattern(text, {"before": True, "after": False}[where], int(place)))
        except (ValueError, KeyError) as error:
            raise BadInput(f"{path}, row {number}: no pattern: {' | '.join(row)}") from error
    if not found:
        raise BadInput(f"{path} has no patterns")
    return tuple(found)


def _rows(path: str | Path, encoding: str) -> list[list[str]]:
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"there is no file {path}")
    with path.open(encoding=encoding, newline="") as file:
        return [row for row in csv.reader(file, delimiter="\t") if row]


def _sentence(pattern: str, word: str) -> str:
    return pattern.replace("{a}", "An" if word[:1].lower() in "aeiou" else "A").replace("{}", word)
