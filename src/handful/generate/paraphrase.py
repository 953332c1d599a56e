"""A language model that says a text again in other words, and how likely it is to say so.

    drawn      m draws from the fewest tokens that hold 99 % of the probability
    diverse    m beams that are kept apart: diversity 3, repetition 10
    mixed      half of them drawn, half of them beams

No two tokens follow each other twice in a text. The prompt does not count: a rewrite may say its words.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from handful.encode.decode import Decoding, decode
from handful.encode.language_tower import LanguageTower, normalised
from handful.encode.lm import LanguageModel
from handful.encode.prompt import Prompt, Question, continuation
from handful.errors import BadInput
from handful.tune.modes import in_mode

Way = Literal["drawn", "diverse", "mixed"]
BATCH = 8
"""Texts that are rewritten at a time."""
DRAWN = Decoding(128, temperature=1.0, top_p=0.99, no_repeat=2, prompt_counts=False)
DIVERSE = Decoding(128, temperature=0.0, repetition=10.0, no_repeat=2, diversity=3.0, prompt_counts=False)


@dataclass
class Paraphraser:
    """See `handful.generate.paraphrase`.

    Args:
        model: seq2seq or causal.
        prompt: what it is asked, with ``{}`` for the text. The paper's, a T5 that was trained to paraphrase, is given
            the text alone.
        drawn, diverse: how it writes.
    """

    model: LanguageModel
    prompt: str = "{}"
    drawn: Decoding = field(default_factory=lambda: DRAWN)
    diverse: Decoding = field(default_factory=lambda: DIVERSE)

    def __post_init__(self) -> None:
        if self.prompt.count("{}") != 1:
            raise BadInput(f"the prompt of a paraphraser has one place {{}} for the text, not {self.prompt!r}")
        if self.model.kind == "masked":
            raise BadInput(f"{self.model.name!r} fills masks and rewrites nothing; take a seq2seq or a causal model")
        if self.model.tokenizer.eos_token_id is None:
            raise BadInput(f"the tokenizer of {self.model.name!r} has no end of sequence, so that no rewrite would end")

    def sample(self, texts: Sequence[str], m: int = 8, way: Way = "diverse", seed: int = 0) -> list[list[str]]:
        """``m`` rewrites of each text; where some are empty, others stand there again.

        Warns of texts with fewer than ``m`` different ones.

        Raises:
            BadInput: ``m`` is not positive, no such way, or a text is empty; ``"mixed"`` needs an even ``m``.
        """
        generator, found = torch.Generator().manual_seed(seed), list[list[str]]()
        for at in range(0, len(texts), BATCH):
            found += self.rewrites(texts[at : at + BATCH], m, way, generator)
        if few := sum(len(set(some)) < m for some in found):
            warnings.warn(f"{few} of {len(texts)} texts have fewer than {m} different rewrites", stacklevel=2)
        return found

    def rewrites(self, texts: Sequence[str], m: int, way: Way, generator: torch.Generator) -> list[list[str]]:
        """As `sample`, without a warning. A text without a rewrite stands for itself."""
        if m < 1 or way not in get_args(Way) or (way == "mixed" and m % 2):
            raise BadInput(f"rewrites are 1 at least (mixed: an even number), {', '.join(get_args(Way))}: {m}, {way!r}")
        if way == "mixed":
            halves = [self._say(texts, m // 2, how, generator) for how in (self.drawn, self.diverse)]
            found = [[*one, *other] for one, other in zip(*halves, strict=True)]
        else:
            found = self._say(texts, m, self.drawn if way == "drawn" else self.diverse, generator)
        out = []
        for text, some in zip(texts, found, strict=True):
            kept = [one for one in some if one] or [text]
            out.append([kept[j % len(kept)] for j in range(m)])
        return out

    def _say(self, texts: Sequence[str], m: int, how: Decoding, generator: torch.Generator) -> list[list[str]]:
        tower, tokenizer = self.model.tower, self.model.tokenizer
        prompts = [self.asked(text).ids for text in texts]
        if self.model.kind == "causal":
            room = self.model.most - max(map(len, prompts))
            if room < 1:
                raise BadInput(f"a text leaves no room for a rewrite in the {self.model.most} tokens that are read")
            how = replace(how, most=min(how.most, room))
        with torch.no_grad(), in_mode(False, tower):
            said = decode(tower, prompts, how, int(tokenizer.eos_token_id), generator, m)
        decoded = [[str(tokenizer.decode(one.ids, skip_special_tokens=True)) for one in some] for some in said]
        return [[text.strip().strip("\"'").strip() for text in some] for some in decoded]

    def asked(self, text: str) -> Prompt:
        """What the model is given. Raises `BadInput` when it is empty or too long."""
        if not text.strip():
            raise BadInput("a text to rewrite is empty")
        return self.model.prompt(self.prompt.format(text.strip()))

    def question(self, text: str, rewrites: Sequence[str]) -> Question:
        """The text, with its rewrites as answers that end."""
        end = int(self.model.tokenizer.eos_token_id)
        answers = tuple((*continuation(self.model.tokenizer, one), end) for one in rewrites)
        return Question(self.asked(text), answers)


def likelihood(tower: LanguageTower, questions: Sequence[Question]) -> Tensor:
    """log P of each answer, the sum over its tokens: ``[n, M]``."""
    return normalised(tower(questions), 0.0)
