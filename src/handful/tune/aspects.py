"""What a text says about which thing: aspects of a text, and the polarity of each (167, SetFit for ABSA).

    candidates   spans of words that may be an aspect: groups of nouns, or what the caller says
    aspect       "wine:The food and the wine are fine."       is this span one that something is said of?
    polarity     "and the wine are fine.:The food and …"      what is said of it? the span with three words around it
    each         a sentence encoder tuned on pairs of such inputs (`setfit`), then logistic regression on its features

    read = nouns(spacy.load("en_core_web_lg"))      # or anything that gives `Parsed` texts; see `words`
    model = AspectClassifier(read).fit([Said("The food was great", "food", "positive"), …])
    model.predict(["The wine was not."])

To learn aspects from, annotated spans are the positive ones and candidates that touch none of them the negative ones;
polarity is learnt from annotated spans. An annotation that is not made of whole words, or stands in its text less often
than it says, is left out and counted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from handful.encode import encoder as encoder_named
from handful.errors import BadInput
from handful.protocols import Encoder
from handful.tune.encoders import tunable, tuned_encoder
from handful.tune.loop import tune
from handful.tune.recipe import Data, Recipe
from handful.tune.setfit import SetFit

_WORD = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")


@dataclass(frozen=True)
class Parsed:
    """A text cut into words.

    Args:
        text: as it is.
        words: where each begins and ends, in characters.
        candidates: spans that may be aspects: numbers of the first word and of the one behind the last.
    """

    text: str
    words: tuple[tuple[int, int], ...]
    candidates: tuple[tuple[int, int], ...]

    def cut(self, first: int, behind: int) -> str:
        """The text of the words from ``first`` on, before ``behind``."""
        return self.text[self.words[first][0] : self.words[behind - 1][1]]


Read = Callable[[Sequence[str]], Sequence[Parsed]]


@dataclass(frozen=True)
class Said:
    """An annotation: what is said of a span of a text.

    Args:
        text: the whole.
        span: a part of it, whole words.
        polarity: what is said, such as ``"positive"``.
        ordinal: which of the places where the span stands in the text, from 0.
    """

    text: str
    span: str
    polarity: Any
    ordinal: int = 0


@dataclass(frozen=True)
class Aspect:
    """An aspect that was found: its words, where they begin in the text, in characters, and what is said of it."""

    span: str
    start: int
    polarity: Any


def words(spans: Callable[[str], Sequence[tuple[int, int]]]) -> Read:
    """Texts cut at spaces and signs, with the caller's candidates: ``spans(text)`` gives begin and end in characters.

    Raises:
        BadInput: (when called) a span is not made of whole words.
    """

    def read(texts: Sequence[str]) -> list[Parsed]:
        out = []
        for text in texts:
            cut = tuple((found.start(), found.end()) for found in _WORD.finditer(text))
            found = [_whole(cut, start, end) for start, end in spans(text)]
            if None in found:
                raise BadInput(f"a candidate in {text[:60]!r} is not made of whole words")
            out.append(Parsed(text, cut, tuple(span for span in found if span is not None)))
        return out

    return read


def nouns(pipeline: Any) -> Read:
    """Candidates as in the authors' code: nouns and proper names that stand side by side.

    Args:
        pipeline: of spaCy, such as ``spacy.load("en_core_web_lg")``, which is not part of this package.
    """

    def read(texts: Sequence[str]) -> list[Parsed]:
        out = []
        for text, doc in zip(texts, pipeline.pipe(texts), strict=True):
            tokens = list(doc)
            cut = tuple((token.idx, token.idx + len(token.text)) for token in tokens)
            marks = "".join("n" if token.pos_ in ("NOUN", "PROPN") else "." for token in tokens)
            out.append(Parsed(text, cut, tuple((run.start(), run.end()) for run in re.finditer("n+", marks))))
        return out

    return read


@dataclass(frozen=True)
class Examples:
    """What both models learn from; see `examples`.

    Attributes:
        aspects, aspect_labels: inputs of the aspect model, and whether each is one.
        polarities, polarity_labels: inputs of the polarity model, and what is said.
        left_out: annotations that fit no words of their text.
    """

    aspects: list[str]
    aspect_labels: list[bool]
    polarities: list[str]
    polarity_labels: list[Any]
    left_out: int


def examples(said: Sequence[Said], read: Read, context: int = 3, aspect_context: int = 0) -> Examples:
    """Inputs and labels of both models, text by text in the order in which texts first stand there."""
    by_text: dict[str, list[Said]] = {}
    for one in said:
        by_text.setdefault(one.text, []).append(one)
    out = Examples([], [], [], [], 0)
    left_out = 0
    for parsed in read(list(by_text)):
        gold = [(_place(parsed, one), one.polarity) for one in by_text[parsed.text]]
        spans = [span for span, _ in gold if span is not None]
        left_out += len(gold) - len(spans)
        wrong = [c for c in parsed.candidates if not any(c[0] <= s[1] and s[0] <= c[1] for s in spans)]
        out.aspects.extend(framed(parsed, span, aspect_context) for span in (*spans, *wrong))
        out.aspect_labels.extend([True] * len(spans) + [False] * len(wrong))
        out.polarities.extend(framed(parsed, span, context) for span in spans)
        out.polarity_labels.extend(polarity for span, polarity in gold if span is not None)
    return Examples(out.aspects, out.aspect_labels, out.polarities, out.polarity_labels, left_out)


def framed(parsed: Parsed, span: tuple[int, int], context: int) -> str:
    """``"span:text"``, the span with ``context`` words on either side."""
    first, behind = max(span[0] - context, 0), min(span[1] + context, len(parsed.words))
    return f"{parsed.cut(first, behind)}:{parsed.text}"


@dataclass
class AspectClassifier:
    """See `handful.tune.aspects`.

    Args:
        read: cuts texts into words and finds candidates; see `nouns` and `words`.
        encoder: of sentences; by default the embedded one.
        recipe: how it is tuned for either model; by default SetFit's, one pass over all pairs.
        context: words around an aspect that the polarity model sees with it.
        aspect_context: the same of the aspect model.
        seed: of every draw.
    """

    read: Read
    encoder: Encoder | None = None
    recipe: Recipe = field(default_factory=lambda: SetFit().recipe())
    context: int = 3
    aspect_context: int = 0
    seed: int = 42
    left_out: int = field(default=0, init=False)

    def fit(self, said: Sequence[Said]) -> AspectClassifier:
        """Learn both models.

        Raises:
            BadInput: no annotation fits its text; every candidate is annotated, so that nothing is no aspect; there is
                one polarity only.
        """
        if self.context < 0 or self.aspect_context < 0:
            raise BadInput("context and aspect_context are numbers of words; they cannot be negative")
        seen = examples(said, self.read, self.context, self.aspect_context)
        self.left_out = seen.left_out
        if not seen.polarities:
            raise BadInput(f"none of the {len(said)} annotations is made of whole words of its text")
        if all(seen.aspect_labels):
            raise BadInput("every candidate is annotated: there is none to learn from what is no aspect")
        if len(set(seen.polarity_labels)) < 2:
            raise BadInput(f"every aspect is {seen.polarity_labels[0]!r}: there is no polarity to tell apart")
        self._aspect = self._fitted(seen.aspects, seen.aspect_labels)
        self._polarity = self._fitted(seen.polarities, seen.polarity_labels)
        return self

    def predict(self, texts: Sequence[str]) -> list[list[Aspect]]:
        """The aspects of each text, in its order."""
        parsed = list(self.read(texts))
        asked = [(number, span) for number, one in enumerate(parsed) for span in one.candidates]
        inputs = [framed(parsed[number], span, self.aspect_context) for number, span in asked]
        kept = [pair for pair, is_one in zip(asked, self._answers("_aspect", inputs), strict=True) if is_one]
        inputs = [framed(parsed[number], span, self.context) for number, span in kept]
        out: list[list[Aspect]] = [[] for _ in texts]
        for (number, span), polarity in zip(kept, self._answers("_polarity", inputs), strict=True):
            one = parsed[number]
            out[number].append(Aspect(one.cut(*span), one.words[span[0]][0], polarity))
        return out

    def polarity(self, texts: Sequence[str], spans: Sequence[str], ordinals: Sequence[int] = ()) -> list[Any]:
        """What is said of spans that are known to be aspects; ``None`` of one that is not whole words of its text."""
        if len(texts) != len(spans) or len(ordinals) not in (0, len(texts)):
            raise BadInput(f"{len(texts)} texts, but {len(spans)} spans and {len(ordinals)} ordinals")
        parsed = list(self.read(texts))
        asked = [Said(t, s, None, o) for t, s, o in zip(texts, spans, ordinals or [0] * len(texts), strict=True)]
        places = [_place(one, said) for one, said in zip(parsed, asked, strict=True)]
        inputs = [framed(one, place, self.context) for one, place in zip(parsed, places, strict=True) if place]
        answers = iter(self._answers("_polarity", inputs))
        return [None if place is None else next(answers) for place in places]

    def _fitted(self, texts: list[str], labels: list[Any]) -> tuple[Encoder, Any]:
        """An encoder tuned on these, and logistic regression on its features of them."""
        from sklearn.linear_model import LogisticRegression

        base = self.encoder or encoder_named()
        names = sorted(set(labels), key=str)
        codes = torch.tensor([names.index(label) for label in labels])
        tower = tunable(base).tower()
        data = Data(tunable(base).inputs(texts), codes, tuple(map(str, names)))
        tuned = tuned_encoder(base, tower, tune(tower, data, self.recipe, seed=self.seed).delta)
        return tuned, LogisticRegression().fit(np.asarray(tuned.encode(texts)), np.asarray(labels))

    def _answers(self, which: str, texts: list[str]) -> list[Any]:
        if not hasattr(self, which):
            raise BadInput("this classifier has not been fitted")
        encoder, head = getattr(self, which)
        return list(head.predict(np.asarray(encoder.encode(texts))).tolist()) if texts else []


def _place(parsed: Parsed, said: Said) -> tuple[int, int] | None:
    """The words of an annotation."""
    start = -1
    for _ in range(said.ordinal + 1):
        start = parsed.text.find(said.span, start + 1)
        if start < 0:
            return None
    return _whole(parsed.words, start, start + len(said.span))


def _whole(cut: Sequence[tuple[int, int]], start: int, end: int) -> tuple[int, int] | None:
    first = [number for number, word in enumerate(cut) if word[0] == start]
    last = [number for number, word in enumerate(cut) if word[1] == end]
    return (first[0], last[0] + 1) if first and last and first[0] <= last[0] else None
