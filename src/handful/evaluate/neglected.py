"""Which classes a model has hardly ever seen: how often captions speak of each, and accuracy on the rarest.

Paper 040: Parashar, Lin, Liu, Dong, Li, Ramanan, Caverlee, Kong, "The Neglected Tails of Vision-Language Models", 2024.

    captions(c)    those that hold the name of c or a synonym as a whole phrase
    relevance(c)   the share of some of them that mean c, by a judge
    frequency(c)   captions(c) relevance(c)
    tail           in ascending order of frequency, those at place 0 ... int(0.2 C): one more than a fifth

Names to call classes by are chosen from the counts by `handful.read.synonyms`. Frequencies by single words, and trends
over many data sets: `handful.evaluate.concepts`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

from handful.errors import BadInput
from handful.evaluate.concepts import Tail, long_tail
from handful.generate.asking import Ask, answers, listed
from handful.read.synonyms import most_frequent_name

Judge = Callable[[str, Sequence[tuple[str, str]]], Sequence[bool]]
"""Of a class, which of some (synonym, caption) speak of it."""
BATCH, ENOUGH, YES, LIMIT = 64, 1000, 200, 10000
"""Captions judged at a time; so many judged and relevant end it, or so many judged and a batch."""
LONGEST = 100
"""Words of a caption; a longer one is a list of things, and relevant to none."""
TAIL = 0.2
SYNONYMS = "What are common ways of referring to {name}{things}? List them, separated by commas:"
MEANS = 'Does the "{synonym}" in "{caption}" refer to the concept: "{synonym}"{definition}? Just answer Yes or No.'


@dataclass(frozen=True)
class Frequency:
    """How often a corpus speaks of a class.

    Attributes:
        name: of the class.
        counts: captions with its name, and with each synonym.
        captions: with any of them.
        judged: of those, asked about.
        relevance: share of the judged that mean the class; 1 where nobody was asked, 0 where there was nothing to ask.
    """

    name: str
    counts: dict[str, int]
    captions: int
    judged: int
    relevance: float

    @property
    def frequency(self) -> float:
        """Captions that mean the class, as far as one can tell."""
        return self.captions * self.relevance

    @property
    def best(self) -> str:
        """What to call the class: see `most_frequent_name`."""
        return most_frequent_name(self.name, self.counts)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**vars(self), "frequency": self.frequency, "best": self.best}


def list_synonyms(names: Sequence[str], ask: Ask, things: str = "") -> dict[str, list[str]]:
    """Synonyms by class name, by a language model; what the classes are (``"birds"``) may be told it."""
    what = f", one of some {things}" if things else ""
    said = answers(ask, [SYNONYMS.format(name=name, things=what) for name in names])
    return {name: listed(answer) for name, answer in zip(names, said, strict=True)}


def relevance_judge(ask: Ask, definitions: Mapping[str, str] | None = None) -> Judge:
    """A language model as a judge, which may know what each class is by its definition."""

    def judge(name: str, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        known = (definitions or {}).get(name)
        meaning = "" if known is None else f' - "{known}"'
        asked = [MEANS.format(synonym=synonym, caption=caption, definition=meaning) for synonym, caption in pairs]
        return [said.strip().strip(".").lower() == "yes" for said in answers(ask, asked)]

    return judge


def concept_frequency(
    names: Sequence[str],
    corpus: Iterable[str],
    synonyms: Mapping[str, Sequence[str]] | None = None,
    judge: Judge | None = None,
    *,
    shared: Literal["refuse", "none", "both"] = "refuse",
    seed: int = 0,
) -> list[Frequency]:
    """How often a corpus of captions speaks of each class.

    Case, accents, quotes, hyphens and underscores do not count; words do: "bass" is not in "bassoon".

    Args:
        names: of the classes; a name is always one of its synonyms.
        corpus: captions.
        synonyms: further names of classes.
        judge: which captions mean the class; asked of a random order of them until 1000 were judged and 200 of those
            are relevant, or 10000 were judged.
        shared: what a synonym of two classes counts for: ``"none"`` or ``"both"`` of them, unless it is refused.
        seed: of the order.

    Raises:
        BadInput: no names or one twice, synonyms of something else, a name without a word, a synonym of two classes,
            no captions, a judge that answers about other captions.
    """
    if isinstance(corpus, str):
        raise BadInput("the corpus is many captions, not one text: give a list of them")
    phrases = _phrases(names, synonyms or {}, shared)
    longest = max(map(len, phrases))
    hits: dict[tuple[str, ...], int] = dict.fromkeys(phrases, 0)
    seen: dict[str, dict[int, tuple[str, str]]] = {name: {} for name in names}  # row: first synonym, caption
    row = -1
    for row, caption in enumerate(corpus):
        tokens = _tokens(caption)
        spans = (tokens[i : i + n] for n in range(1, longest + 1) for i in range(len(tokens) - n + 1))
        for phrase in dict.fromkeys(span for span in spans if span in phrases):
            hits[phrase] += 1
            for name, synonym in phrases[phrase]:
                seen[name].setdefault(row, (synonym, caption if judge is not None else ""))
    if row < 0:
        raise BadInput("no captions to count in: give at least one")
    rng, found = np.random.default_rng(seed), []
    for name in names:
        pairs = [*seen[name].values()]
        judged, share = (0, 1.0) if judge is None else _relevance(judge, name, pairs, rng)
        spelt = {synonym: _tokens(synonym) for synonym in [name, *(synonyms or {}).get(name, ())]}
        counts = {synonym: hits[phrase] if phrases[phrase] else 0 for synonym, phrase in spelt.items()}
        found.append(Frequency(name, counts, len(pairs), judged, share))
    return found


@dataclass(frozen=True)
class Neglected:
    """Head and tail.

    Attributes:
        tail: the rarest classes and, where accuracies are known, their mean over the tail and over the others (head).
        rank_correlation, p: Spearman's, of frequency and accuracy; ``None`` where accuracies are not known or equal.
    """

    tail: Tail
    rank_correlation: float | None
    p: float | None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"tail": self.tail.as_dict(), "rank_correlation": self.rank_correlation, "p": self.p}


def neglected_classes(
    frequency: Mapping[str, float] | Sequence[Frequency],
    accuracies: Mapping[str, float] | None = None,
    *,
    share: float = TAIL,
) -> Neglected:
    """The classes a corpus has least often, and whether a model is worse at them.

    Args:
        frequency: by class; of equal ones the first by name is rarer.
        accuracies: of each class, such as the share of its items that are answered right.
        share: of the classes that are the tail, and one class more.

    Raises:
        BadInput: a share that leaves no head, else as `long_tail`.
    """
    by_name = dict(frequency) if isinstance(frequency, Mapping) else {one.name: one.frequency for one in frequency}
    k = int(share * len(by_name)) + 1
    if not 0 <= share < 1 or k >= len(by_name):
        raise BadInput(f"share={share} of {len(by_name)} classes and one more leaves none for the head")
    tail = long_tail(by_name, k, accuracies)
    if accuracies is None:
        return Neglected(tail, None, None)
    values = np.array([[by_name[name], accuracies[name]] for name in by_name])
    if (np.ptp(values, axis=0) == 0).any():
        return Neglected(tail, None, None)
    rank = stats.spearmanr(values)
    return Neglected(tail, float(rank.statistic), float(rank.pvalue))


def _phrases(
    names: Sequence[str], synonyms: Mapping[str, Sequence[str]], shared: str
) -> dict[tuple[str, ...], list[tuple[str, str]]]:
    """Which (class, synonym) each phrase stands for."""
    if not names or len(set(names)) < len(names):
        raise BadInput(f"names must be of different classes, not {list(names)!r}")
    if strange := [name for name in synonyms if name not in names]:
        raise BadInput(f"synonyms of {strange[0]!r}, which is none of the classes")
    if odd := [name for name, listed in synonyms.items() if isinstance(listed, str)]:
        raise BadInput(f"synonyms of {odd[0]!r} are a list, not the one text {synonyms[odd[0]]!r}")
    if shared not in ("refuse", "none", "both"):
        raise BadInput(f"shared is one of 'refuse', 'none', 'both', not {shared!r}")
    found: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    for name in names:
        own: dict[tuple[str, ...], str] = {}
        for synonym in [name, *synonyms.get(name, ())]:
            if not (phrase := _tokens(synonym)):
                raise BadInput(f"{synonym!r} of class {name!r} has no word in it: nothing to count")
            own.setdefault(phrase, synonym)
        for phrase, synonym in own.items():
            found.setdefault(phrase, []).append((name, synonym))
    for phrase, owners in list(found.items()):
        if len(owners) > 1 and shared == "refuse":
            of = f"{owners[0][0]!r} and {owners[1][0]!r}"
            raise BadInput(f"{' '.join(phrase)!r} is a name of {of}: count it for shared='none' or 'both'")
        if len(owners) > 1 and shared == "none":
            found[phrase] = []
    return found


def _relevance(judge: Judge, name: str, pairs: list[tuple[str, str]], rng: np.random.Generator) -> tuple[int, float]:
    """How many captions were judged, and the share of them that mean the class."""
    order = [pairs[i] for i in rng.permutation(len(pairs))]
    said: list[bool] = []
    for at in range(0, len(order), BATCH):
        batch = order[at : at + BATCH]
        short = [len(caption.split()) <= LONGEST for _, caption in batch]
        asked = [pair for pair, fine in zip(batch, short, strict=True) if fine]
        verdicts = list(judge(name, asked)) if asked else []
        if len(verdicts) != len(asked):
            raise BadInput(f"the judge gave {len(verdicts)} verdicts on {len(asked)} captions of {name!r}")
        given = iter(verdicts)
        said += [bool(next(given)) if fine else False for fine in short]
        if (len(said) >= ENOUGH and sum(said) >= YES) or at > LIMIT:
            break
    return len(said), sum(said) / len(said) if said else 0.0


def _tokens(text: str) -> tuple[str, ...]:
    """Words as a full-text index has them: no quotes, hyphens are blanks, letters without case and accents."""
    plain = unicodedata.normalize("NFKD", re.sub(r"[\"']", "", text).casefold())
    return tuple(re.findall(r"[^\W_]+", "".join(c for c in plain if not unicodedata.combining(c))))
