"""How often class names occur in a corpus of captions, images, or both.

Paper 011: Udandarao et al., "No 'Zero-Shot' Without Exponential Data", 2024; `handful.evaluate.concepts` has the rest.

    text hits        captions that hold every word of the name, as lemmas; words no caption has, and words like "of"
                     that the authors' index of nouns has not, are left out first. "t-shirt" is one word of a name; a
                     caption that has it has "t" and "shirt" too
    image hits       images whose score of the concept is above 0.7
    integrated hits  both
    misalignment     samples with some text and some image concept but no common one
                     / max(samples with an image concept, samples with a text concept)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from handful.adapt.parameters import finite, numbers, several
from handful.errors import BadInput

THRESHOLD = 0.7
FUNCTION_WORDS = frozenset(["a", "an", "and", "at", "by", "for", "from", "in", "of", "on", "or", "the", "to", "with"])
"""Words that say nothing of what is shown; a name of nothing else keeps them."""
_JOINED = re.compile(r"\w+(?:[-'’]+\w+)*")


@dataclass(frozen=True)
class ConceptIndex:
    """Which captions have which word.

    Attributes:
        size: captions.
        words: captions that hold each word.
        lemma: a word to its dictionary form.
    """

    size: int
    words: dict[str, frozenset[int]] = field(repr=False)
    lemma: Callable[[str], str] = field(repr=False)

    @classmethod
    def from_captions(cls, texts: Iterable[str], lemma: Callable[[str], str] | None = None) -> ConceptIndex:
        """Index captions.

        Args:
            texts: the captions.
            lemma: a lower-case word to its dictionary form, such as spaCy's ``lambda word: nlp(word)[0].lemma_``; by
                default regular English plurals become singular. ``str`` leaves words as they are.

        Raises:
            BadInput: no captions, one that is no text, none with a word in it.
        """
        lemma = singular if lemma is None else lemma
        known: dict[str, str] = {}
        found: dict[str, set[int]] = {}
        row = -1
        if isinstance(texts, str):
            raise BadInput("captions are a list of texts, not one text")
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                raise BadInput(f'caption {row} is {text!r}, not a text: give "" where there is none')
            for word in _words(text.lower()):
                if word not in known:
                    known[word] = lemma(word)
                found.setdefault(known[word], set()).add(row)
        if not found:
            raise BadInput(f"no captions to index: {row + 1} were given, with no word in them")
        return cls(row + 1, {word: frozenset(rows) for word, rows in found.items()}, lemma)

    def hits(self, name: str) -> frozenset[int]:
        """Captions that hold every word of a class name that occurs at all.

        Raises:
            BadInput: a name that is no text, or without any word in it.
        """
        if not isinstance(name, str):
            raise BadInput(f"class name {name!r} is no text")
        words = [word for word in re.split(r"[_\s]+", name.lower()) if re.search(r"\w", word)]
        if not words:
            raise BadInput(f"class name {name!r} has no word in it: nothing to count")
        words = [self.lemma(word) for word in [w for w in words if w not in FUNCTION_WORDS] or words]
        sets = [self.words[word] for word in words if word in self.words]
        return frozenset.intersection(*sets) if sets else frozenset()

    def counts(self, class_names: Sequence[str]) -> dict[str, int]:
        """How many captions have each class name."""
        return {name: len(self.hits(name)) for name in several("class_names", class_names, "a list of names")}

    def combine(self, class_names: Sequence[str], image_scores: Any, threshold: float = THRESHOLD) -> Combined:
        """Count in captions and their images at once.

        Args:
            class_names: C names, all different.
            image_scores: of each caption's image ``[N, C]``, 0 to 1.
            threshold: a concept is in an image when its score is above.

        Raises:
            BadInput: names that repeat, scores of another shape or not finite.
        """
        names = several("class_names", class_names, "a list of names")
        if len(set(names)) < len(names):
            raise BadInput(f"class names repeat ({max(names, key=names.count)!r}): give each once")
        finite("threshold", threshold)
        scores = numbers("image_scores", image_scores)
        if scores.shape != (self.size, len(names)):
            raise BadInput(f"image scores {scores.shape} are not [{self.size} captions, {len(names)} classes]")
        if not np.isfinite(scores).all():
            raise BadInput(f"image scores of caption {int(np.argwhere(~np.isfinite(scores))[0, 0])} are not finite")
        image = scores > threshold
        text = np.zeros_like(image)
        for column, name in enumerate(names):
            text[list(self.hits(name)), column] = True
        return combined(names, text, image)


@dataclass(frozen=True)
class Combined:
    """Counts by class name.

    Attributes:
        text, image, both: how many samples have the concept there.
        misaligned: samples with concepts in text and image, but none in common.
        misalignment: their share of the samples with concepts; see the head of this file.
        of_corpus: their share of all samples.
    """

    text: dict[str, int]
    image: dict[str, int]
    both: dict[str, int]
    misaligned: int
    misalignment: float
    of_corpus: float

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return dict(vars(self))


def combined(class_names: Sequence[str], text: np.ndarray, image: np.ndarray) -> Combined:
    """Counts from hits in text and in images, booleans ``[N, C]`` each."""
    in_text, in_image = text.any(axis=1), image.any(axis=1)
    apart = int((in_text & in_image & ~(text & image).any(axis=1)).sum())
    most = max(int(in_text.sum()), int(in_image.sum()))

    def by_name(hits: np.ndarray) -> dict[str, int]:
        return dict(zip(class_names, hits.sum(axis=0).tolist(), strict=True))

    share = apart / most if most else 0.0
    return Combined(by_name(text), by_name(image), by_name(text & image), apart, share, apart / len(text))


def _words(text: str) -> set[str]:
    """Words of a lower-case text; of those joined by ``-`` or ``'`` the whole and its parts."""
    return set(_JOINED.findall(text)) | set(re.findall(r"\w+", text))


def singular(word: str) -> str:
    """A regular English plural without its ending; other words as they are."""
    if len(word) <= 3 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    return word[:-2] if word.endswith(("shes", "ches", "sses", "xes", "zes")) else word[:-1]
