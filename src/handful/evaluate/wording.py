"""How near a written answer is to the one that is wanted: exact match, F1 of words, ROUGE-L.

Exact match and F1 are those of SQuAD (Rajpurkar et al. 2016): lower case, without signs and articles, which takes -1.5
for 15 and leaves nothing of the choice A; where answers are figures or letters, ``"answer"`` is meant. ROUGE-L (Lin
2004) is the F measure of the longest common subsequence of words, stemmed (Porter 1980) where they are longer than 3.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from handful.core.stem import stem
from handful.errors import BadInput, nearest

_SIGNS = str.maketrans("", "", string.punctuation)
_AROUND = re.compile(r"^(?:(?!-?\.?\d)\W)+|\W+$")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3})")


def plain_answer(text: str) -> str:
    """An answer without case, signs, articles and superfluous blanks."""
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_SIGNS)).split())


def exact_match(said: str, wanted: str) -> float:
    """1 where both are the same short of what `plain_answer` takes off, else 0."""
    return float(plain_answer(said) == plain_answer(wanted))


def word_f1(said: str, wanted: str) -> float:
    """Harmonic mean of the share of words said that are wanted, and of those wanted that are said."""
    a, b = plain_answer(said).split(), plain_answer(wanted).split()
    shared = sum((Counter(a) & Counter(b)).values())
    return 2 * shared / (len(a) + len(b)) if shared else 0.0


def rouge_l(said: str, wanted: str) -> float:
    """``2 L / (words said + words wanted)`` with L the longest common subsequence of stems."""
    a, b = _stems(said), _stems(wanted)
    if not a or not b:
        return 0.0
    row = np.zeros(len(b) + 1, dtype=np.int64)
    number = {word: i for i, word in enumerate(dict.fromkeys([*a, *b]))}
    other = np.array([number[word] for word in b])
    for word in a:
        # L[i, j] = L[i-1, j-1] + 1 where the words agree, else the larger neighbour: a running maximum along j.
        row = np.maximum.accumulate(np.r_[0, np.where(other == number[word], row[:-1] + 1, row[1:])])
    return float(2 * row[-1] / (len(a) + len(b)))


def same_answer(said: str, wanted: str) -> float:
    """1 where both are the same short of case, articles and the signs around words, else 0; figures keep theirs."""
    return float(short_answer(said) == short_answer(wanted))


def same(said: str, wanted: str) -> float:
    """1 where both are the same, letter by letter, short of blanks at the ends."""
    return float(said.strip() == wanted.strip())


MEASURES: dict[str, Callable[[str, str], float]] = {
    "rouge-l": rouge_l,
    "exact": exact_match,
    "answer": same_answer,
    "f1": word_f1,
    "same": same,
}


def measured(said: Sequence[str], wanted: Sequence[str], measure: str = "rouge-l") -> np.ndarray:
    """How near each answer is to the wanted one ``[n]``, from 0 to 1.

    Raises:
        BadInput: there are not as many answers as are wanted; no such measure; a wanted answer is empty.
    """
    if measure not in MEASURES:
        raise BadInput(f"there is no measure {measure!r}{nearest(measure, MEASURES)}; there are {', '.join(MEASURES)}")
    if len(said) != len(wanted):
        raise BadInput(f"{len(said)} answers, but {len(wanted)} are wanted")
    for number, one in enumerate(wanted):
        if not one.strip():
            raise BadInput(f"the wanted answer {number} is empty")
    return np.array([MEASURES[measure](a, b) for a, b in zip(said, wanted, strict=True)], dtype=float)


def short_answer(text: str) -> str:
    """An answer without case, articles and the signs around words; figures keep theirs."""
    words = [word for one in text.casefold().split() if (word := _AROUND.sub("", _THOUSANDS.sub("", one)))]
    return " ".join([word for word in words if word not in ("a", "an", "the")] or words) or text.strip()


def _stems(text: str) -> list[str]:
    words = re.sub(r"[^a-z0-9]+", " ", text.lower()).split()
    return [stem(word) if len(word) > 3 else word for word in words]
