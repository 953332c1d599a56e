"""FewGen: a language model tuned on a few examples writes labelled training texts (paper 018, Meng, Michalski, Huang,
Zhang, Abdelzaher, Han, Tuning Language Models as Training Data Generators for Augmentation-Enhanced Few-Shot Learning,
2022).

    tune      a prefix a class, tokens that tell the classes apart counting more    (`prefixes`, `token_weights`)
    write     one text: drawn behind a random first word; two: the likeliest second one behind a first of a corpus
    drop      what does not end, begins a new line, holds a forbidden string, is empty, or was written before
    learn     `handful.tune.self_ensemble`: a classifier that drops and softens what it does not believe

    generator = FewGen(model, {"bad": "negative movie review:", "good": "positive movie review:"}).fit(texts, labels)
    made = generator.generate(5000)
    SelfEnsemble(classifier.fit(texts, labels)).fit(made.texts, made.labels)
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from handful.encode.decode import Decoding, Said, decode
from handful.encode.lm import LanguageModel
from handful.encode.prompt import continuation, padded
from handful.encode.rows import Row, chained
from handful.errors import BadInput, HandfulError
from handful.generate.token_weights import Discrimination, Generation, LookAhead, WeighingPrefixes
from handful.protocols import Progress
from handful.tune.fillers import Plain
from handful.tune.loop import tune
from handful.tune.modes import in_mode
from handful.tune.prompting import Texts, listed, one_hot
from handful.tune.recipe import Data, Recipe, Stage
from handful.tune.tuned import Tuned

BATCH = 16
"""Texts that are written at a time."""


@dataclass(frozen=True)
class Made:
    """Texts that were written, the classes in turn, and why others were dropped.

    Args:
        texts: of each item one, or two.
        labels: of each item.
        dropped: how many by reason.
    """

    texts: list[list[str]]
    labels: list[Any]
    dropped: Mapping[str, int]


@dataclass
class FewGen:
    """See `handful.generate.fewgen`.

    Args:
        model: causal; it stays as it is. The paper's is CTRL.
        prompts: of each class, such as ``"positive movie review:"``; of pairs the words in front and those between, the
            latter the same for all classes: ``("Sentence 1 implies Sentence 2. Sentence 1:", "Sentence 2:")``.
        control: stands in front of every prompt and does not learn (CTRL's control code, ``"Reviews"``).
        weighted: whether tokens are weighed; otherwise the mean over tokens is learnt.
        meta_lr, net_lr, net_decay: see `LookAhead`.
        lr, batch, epochs: of the prefixes; the rate falls to 0 in a line.
        dropout: of the prefixes.
        length, first: tokens of an example at most, and of its first text.
        seed: of every draw.
    """

    model: LanguageModel
    prompts: Mapping[Any, str | tuple[str, str]]
    control: str = ""
    weighted: bool = True
    meta_lr: float = 2e-2
    net_lr: float = 1e-2
    net_decay: float = 1e-4
    lr: float = 5e-3
    batch: int = 2
    epochs: float = 20
    dropout: float = 0.1
    length: int = 128
    first: int = 100
    seed: int = 0
    tuned: Tuned | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if len(self.prompts) < 2:
            raise BadInput(f"{len(self.prompts)} prompts: texts are written for two classes at least")
        if self.length < 2 or self.first < 1:
            raise BadInput(f"length is 2 tokens at least, first 1, not {self.length} and {self.first}")
        split = [(one, None) if isinstance(one, str) else tuple(one) for one in self.prompts.values()]
        between = {part[1] for part in split}
        if len(between) > 1:
            raise BadInput(f"the words between two texts are the same for all classes, not {sorted(map(str, between))}")
        self._before, (self._between,) = [str(part[0]) for part in split], between

    @property
    def classes(self) -> tuple[Any, ...]:
        """As ``prompts`` has them."""
        return tuple(self.prompts)

    def fit(self, texts: Texts, labels: Sequence[Any], progress: Progress | None = None) -> FewGen:
        """Tune on a few examples.

        Raises:
            BadInput: a label without a prompt; one text an item where two are asked for, or the other way round.
        """
        items, targets = listed(texts), one_hot(labels, self.classes, "prompt")
        if len(items) != len(targets):
            raise BadInput(f"{len(items)} texts, but {len(targets)} labels")
        wanted = 1 if self._between is None else 2
        if wrong := [number for number, item in enumerate(items) if len(item) != wanted]:
            raise BadInput(f"item {wrong[0]} has {len(items[wrong[0]])} texts; the prompts are for {wanted}")
        for name, count in zip(self.classes, targets.sum(0).tolist(), strict=True):
            if count < 2:
                warnings.warn(f"class {name!r} has {int(count)} examples to write like", UserWarning, stacklevel=2)
        prefixes = WeighingPrefixes(self.model, self._before, self._between, self.control, self.dropout)
        data = Data([self.row(item) for item in items], targets, tuple(map(str, self.classes)))
        recipe = Recipe(
            objectives=(Generation(), Discrimination()) if self.weighted else (Generation(False),),
            stages=(Stage(epochs=self.epochs, lr=self.lr, batch=self.batch, trains=("readout",), clip=1.0),),
            readout=lambda: prefixes,
            step=LookAhead(prefixes, self.meta_lr, self.net_lr, self.net_decay) if self.weighted else Plain(),
        )
        self.tuned = tune(self.model.tower, data, recipe, seed=self.seed, progress=progress)
        self._starts = {
            name: sorted({item[0].split()[0] for item, label in zip(items, labels, strict=True) if label == name})
            for name in self.classes
        }
        return self

    def row(self, item: Sequence[str]) -> Row:
        """An example as tokens: of one text all but the first are learnt, of two the whole second one; and the end."""
        tokenizer, end = self.model.tokenizer, self.model.tokenizer.eos_token_id
        first = continuation(tokenizer, item[0])[: self.first]
        if self._between is None:
            return chained([(first[:1], (*first[1:], end)[: self.length - 1])])
        given = (*first, *continuation(tokenizer, self._between))
        if len(given) >= self.length:
            raise BadInput(f"the first text leaves no room for the second in {self.length} tokens: {item[0][:60]!r}…")
        return chained([(given, (*continuation(tokenizer, item[1]), end)[: self.length - len(given)])])

    def generate(
        self, count: int = 5000, *, corpus: Sequence[str] = (), starts: Sequence[str] = (),
        temperature: float | Mapping[Any, float] | None = None, top_k: int = 10,
        repetition: float | Mapping[Any, float] = 1.1, most: int = 60, banned: Sequence[str] = ("\n",),
        max_tries: float = 2.0, seed: int = 0, progress: Progress | None = None,
    ) -> Made:  # fmt: skip
        """Write texts.

        Args:
            count: texts a class.
            corpus: first texts of pairs, in the order in which they are taken after a shuffle.
            starts: first words of single texts; by default those of the class' examples.
            temperature: or by class; by default 0.5 for single texts (CoLA: 10 for incorrect ones, 0.3 for correct
                ones), and 0 for pairs, which takes the likeliest tokens.
            top_k: see `Decoding`.
            repetition: or by class: below 1.1 for second texts that repeat the first (entailment: 1.0), above for those
                that must not (1.5).
            most: tokens of a text at most.
            banned: strings that no text may hold.
            max_tries: texts that are written at most, by ``count``; fewer than that share of usable ones is an error.
            seed: of the draws.
            progress: called with (texts kept, texts in all).

        Raises:
            BadInput: nothing was learnt yet; pairs without a corpus; a class without a temperature or repetition.
            HandfulError: too few of the texts can be used.
        """
        if self.tuned is None:
            raise BadInput("the generator has not been tuned; call fit with a few examples first")
        if count < 1 or not 1 <= max_tries < math.inf:
            raise BadInput(f"count and max_tries are numbers of at least 1, not {count} and {max_tries}")
        pairs = self._between is not None
        if pairs and not corpus:
            raise BadInput("second texts are written behind first ones: give a corpus of these")
        if pairs and len(set(corpus)) < count:
            raise BadInput(
                f"the corpus has {len(set(corpus))} different texts for {count} pairs a class; each serves once"
            )
        heat = temperature if temperature is not None else (0.0 if pairs else 0.5)
        dropped: Counter[str] = Counter()
        written: dict[Any, list[list[str]]] = {}
        for number, name in enumerate(self.classes):
            generator = torch.Generator().manual_seed(seed)
            how = Decoding(most, _of(heat, name), top_k, repetition=_of(repetition, name))
            prompts = self._prompts(name, corpus, starts, generator)
            kept: dict[str, list[str]] = {}
            for _ in range(-(-int(max_tries * count) // BATCH)):
                some = [one for one, _ in zip(prompts, range(BATCH), strict=False)]
                if len(kept) >= count or not some:
                    break
                for (begin, start), said in zip(some, self._write(number, some, how, generator), strict=True):
                    text, reason = self._usable(said, start, banned)
                    whole = [*begin, text]
                    if not reason and whole[0] in kept:
                        reason = "written before"
                    if reason:
                        dropped[reason] += 1
                    elif len(kept) < count:
                        kept[whole[0]] = whole
                if progress is not None:
                    progress(number * count + len(kept), count * len(self.classes))
            if len(kept) < count:
                why = ", ".join(f"{many} {reason}" for reason, many in dropped.most_common())
                raise HandfulError(f"class {name!r}: {len(kept)} of {count} texts can be used after max_tries ({why})")
            written[name] = list(kept.values())
        turns = [(name, written[name][at]) for at in range(count) for name in self.classes]
        return Made([text for _, text in turns], [name for name, _ in turns], dict(dropped))

    def _prompts(
        self, name: Any, corpus: Sequence[str], starts: Sequence[str], generator: torch.Generator
    ) -> Iterator[tuple[list[str], str]]:
        """Endlessly, what a text is written behind: the first text of a pair, and the first word."""
        if self._between is not None:
            distinct = list(dict.fromkeys(corpus))
            for at in torch.randperm(len(distinct), generator=generator).tolist():
                yield [distinct[at]], ""
            return
        words = list(starts) or self._starts[name]
        if not words:
            raise BadInput(f"class {name!r} has no example whose first word a text could begin with; give starts")
        while True:
            yield [], words[int(torch.randint(len(words), (1,), generator=generator))]

    def _write(
        self, number: int, some: Sequence[tuple[list[str], str]], how: Decoding, generator: torch.Generator
    ) -> list[Said]:
        tokenizer, tuned = self.model.tokenizer, self.tuned
        assert tuned is not None and isinstance(tuned.readout, WeighingPrefixes)
        prefixes, asked, places = tuned.readout, [], []
        for begin, start in some:
            given = continuation(tokenizer, begin[0])[: self.first] if begin else ()
            ids = (*given, *prefixes.between, *(continuation(tokenizer, start) if start else ()))
            asked.append(ids)
            k = len(prefixes.between)
            places.append([-1] * len(given) + list(range(k)) + [-1] * (len(ids) - len(given) - k))
        classes = torch.full((len(some),), number)
        left = padded([one[::-1] for one in places], -1).flip(1)
        end = int(tokenizer.eos_token_id)
        with torch.no_grad(), in_mode(False, prefixes), prefixes.reading(self.model.tower, classes, left):
            found = decode(self.model.tower, asked, how, end, generator, ahead=prefixes.ahead(classes))
        return [said for (said,) in found]

    def _usable(self, said: Said, start: str, banned: Sequence[str]) -> tuple[str, str]:
        """The text, and why it cannot be used, if so."""
        tokenizer = self.model.tokenizer
        text = str(tokenizer.decode(said.ids, skip_special_tokens=True))
        if not said.ended:
            return "", "without an end"
        if text.startswith(("\n", " \n")):
            return "", "begin a new line"
        text = text.strip()
        if any(one in text for one in banned):
            return "", "with a banned string"
        if not text:
            return "", "empty"
        begins = continuation(tokenizer, start) if start else ()
        return str(tokenizer.decode((*begins, *said.ids), skip_special_tokens=True)).strip(), ""


def _of(value: float | Mapping[Any, float], name: Any) -> float:
    if isinstance(value, (int, float)):
        return value
    if name not in value:
        raise BadInput(f"temperature or repetition by class has none for {name!r}; give each class one")
    return value[name]
