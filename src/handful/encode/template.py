"""The template mini-language: how a text becomes a question (Gao, Fisch, Chen, LM-BFF, 2020, section 4).

    *cls**sent_0*_It_was*mask*.*sep+*        "[CLS] text It was [MASK].[SEP]"

A string cut at ``*``. Its parts:

    cls mask sep       the tokenizer's tokens; `sep+` ends a segment: what follows has the next kind of token
    sent_0             text 0;  sent-_0 without its last character;  sentl_0 / sentu_0 first letter lower / upper
    +sent_0            the same behind a space
    label_0            the answer of class 0;  labelx_0 the answer of demonstration 0, whatever its class is
    <extra_id_0>       a gap, for a model that fills gaps (T5)
    anything else      words as they stand, `_` for a space; one character alone is looked up in the vocabulary
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from handful.encode.prompt import Prompt
from handful.errors import BadInput

SPECIAL = ("cls", "mask", "sep", "sep+")
_TEXT = re.compile(r"(\+?)sent([lu]?)(-?)_(\d+)")
_LABEL = re.compile(r"label(x?)_(\d+)")
_GAP = re.compile(r"<extra_id_\d+>")
_LOOKS_LIKE_ONE = re.compile(r"\+?(?:sent|label)[a-z-]*_.*|\+?(?:sent|label)")


@dataclass(frozen=True)
class Template:
    """A parsed template.

    Args:
        source: as it was written.
    """

    source: str

    def __post_init__(self) -> None:
        if not isinstance(self.source, str):
            raise BadInput(f"a template is written as text, such as '*cls**sent_0**mask**sep*', not {self.source!r}")
        if not self.parts:
            raise BadInput("the template is empty")
        if self.parts.count("mask") > 1:
            raise BadInput(f"template {self.source!r} has {self.parts.count('mask')} masks; it asks one question")
        for part in self.parts:
            if _LOOKS_LIKE_ONE.fullmatch(part) and not (_fits_text(part) or _LABEL.fullmatch(part)):
                raise BadInput(
                    f"template {self.source!r}: there is no variable {part!r}; there are {', '.join(SPECIAL)}, sent_0, "
                    "sent-_0, sentl_0, sentl-_0, sentu_0, +sent_0, +sentl_0, +sentu_0, label_0, labelx_0"
                )

    @property
    def parts(self) -> tuple[str, ...]:
        """What stands between the stars, without what is empty."""
        return tuple(part for part in self.source.split("*") if part)

    @property
    def asks(self) -> bool:
        """Whether it has a mask."""
        return "mask" in self.parts

    @property
    def texts(self) -> int:
        """How many texts an item has: one more than the highest number of a ``sent``."""
        found = [_TEXT.fullmatch(part) for part in self.parts]
        return 1 + max((int(one[4]) for one in found if one), default=-1)

    def with_demonstrations(self, ways: int) -> Template:
        """Followed by itself for each class, filled with an example of that class and its answer.

        Text ``i`` of the example of class c has the number ``texts + texts * c + i``.
        """
        return self._followed([(self.texts * (1 + c), f"label_{c}") for c in range(ways)])

    def in_context(self, count: int, at: str = "tail") -> Template:
        """Followed by ``count`` examples of any class (``at="tail"``), or after them (``"head"``): GPT-3's way.

        At the head each further example goes in front of those before it, so that their order is reversed.
        """
        if at not in ("head", "tail"):
            raise BadInput(f"examples stand at the 'head' or the 'tail', not {at!r}")
        return self._followed([(self.texts * (1 + c), f"labelx_{c}") for c in range(count)], head=at == "head")

    def _followed(self, filled: Sequence[tuple[int, str]], head: bool = False) -> Template:
        bare = self.source.replace("*cls*", "")
        out = self.source
        for first, answer in filled:
            one = "*".join(_shifted(part, first) for part in bare.split("*")).replace("*mask*", f"*{answer}*")
            out = one + out if head else out + one
        return Template(out)

    def room(self, tokenizer: Any, most: int) -> int:
        """Tokens that each text may have so that all fits into ``most``; for templates without answers in them.

        Raises:
            BadInput: none is left.
        """
        texts = max(self.texts, 1)
        found = (most - len(self.encode(tokenizer, [""] * texts).ids)) // texts
        if found < 1:
            raise BadInput(f"template {self.source!r} leaves no room for text in {most} tokens")
        return found

    def encode(
        self,
        tokenizer: Any,
        texts: Sequence[str],
        *,
        answers: Sequence[Sequence[int]] = (),
        support: Sequence[int] = (),
        first: int | None = None,
        others: int | None = None,
        most: int | None = None,
        cut_head: bool = False,
        like: Sequence[str] = (),
    ) -> Prompt:
        """The template filled.

        Args:
            tokenizer: of `transformers`.
            texts: text 0, 1, …
            answers: the tokens of each class' answer, for ``label``.
            support: the class of each example, for ``labelx``.
            first: tokens at most of text 0.
            others: tokens at most of every other text.
            most: tokens at most in all.
            cut_head: where there are more, leave out the first ones instead of the last.
            like: other texts: each text is cut, or filled up with padding, to as many tokens as theirs have in its
                place, so that both prompts have the same words of the template at the same places.

        Raises:
            BadInput: a text or an answer that the template asks for is not given; the tokenizer lacks a token that it
                asks for; the mask was cut off.
        """
        if min(limit for limit in (first, others, 1) if limit is not None) < 1:
            raise BadInput(f"first= and others= are tokens of a text at most, from 1 on, not {first} and {others}")
        ids: list[int] = []
        kinds: list[int] = []
        asked: list[int] = []  # a mask that stands in a text is no question
        kind = 0
        for part in self.parts:
            new = self._tokens(part, tokenizer, texts, answers, support)
            if text := _TEXT.fullmatch(part):
                limit = first if int(text[4]) == 0 else others
                new = new[:limit]
                if like:
                    size = len(self._tokens(part, tokenizer, like, answers, support)[:limit])
                    new = (new + [tokenizer.pad_token_id or 0] * size)[:size]
            asked += [len(ids)] * (part == "mask")
            ids += new
            kinds += [kind] * len(new)
            kind += part == "sep+"
        if most is not None and len(ids) > most:
            here = slice(len(ids) - most if cut_head else 0, len(ids) if cut_head else most)
            asked = [at - here.start for at in asked if here.start <= at < here.stop]
            ids, kinds = ids[here], kinds[here]
        if self.asks and not asked:
            raise BadInput(
                f"of template {self.source!r} the mask was cut off, as no more than {most} tokens are read; shorten "
                "the texts (first=, others=) or cut at the other end"
            )
        return Prompt(tuple(ids), tuple(kinds), tuple(asked))

    def _tokens(
        self,
        part: str,
        tokenizer: Any,
        texts: Sequence[str],
        answers: Sequence[Sequence[int]],
        support: Sequence[int],
    ) -> list[int]:
        def tokens(text: str) -> list[int]:
            return list(tokenizer.encode(text, add_special_tokens=False))

        if part in SPECIAL:
            return _special(part, tokenizer, self.source)
        if text := _TEXT.fullmatch(part):
            return tokens(_changed(text, _given(texts, int(text[4]), "text", self.source)))
        if label := _LABEL.fullmatch(part):
            number = int(label[2])
            if label[1]:
                number = _given(support, number, "class of example", self.source)
            return list(_given(answers, number, "answer", self.source))
        if len(part) == 1 or _GAP.fullmatch(part):
            return [int(tokenizer.convert_tokens_to_ids(part.replace("_", " ") if len(part) == 1 else part))]
        return tokens(part.replace("_", " "))


def _fits_text(part: str) -> bool:
    """Whether it is a text variable of the language, which has no ``+sent-`` and no ``sentu-``."""
    found = _TEXT.fullmatch(part)
    return found is not None and not (found[3] and (found[1] or found[2] == "u"))


def _shifted(part: str, by: int) -> str:
    """A text variable with its number raised; anything else as it is."""
    if not _TEXT.fullmatch(part):
        return part
    name, _, number = part.rpartition("_")
    return f"{name}_{int(number) + by}"


def _changed(text: re.Match[str], given: str) -> str:
    space, case, cut, _ = text.groups()
    if case:
        given = (given[:1].lower() if case == "l" else given[:1].upper()) + given[1:]
    return (" " if space else "") + (given[:-1] if cut else given)


def _special(part: str, tokenizer: Any, source: str) -> list[int]:
    if part == "cls":  # T5 begins with nothing, Llama with its own token
        first = tokenizer.cls_token_id if tokenizer.cls_token_id is not None else tokenizer.bos_token_id
        return [] if first is None else [int(first)]
    found = tokenizer.mask_token_id if part == "mask" else tokenizer.sep_token_id
    if part != "mask" and found is None:
        found = tokenizer.eos_token_id
    if found is None:
        raise BadInput(f"template {source!r} asks for {part!r}, which the tokenizer of this model does not have")
    return [int(found)]


def _given(values: Sequence[Any], number: int, what: str, source: str) -> Any:
    if number >= len(values):
        raise BadInput(f"template {source!r} asks for {what} {number}, but {len(values)} are given")
    return values[number]
