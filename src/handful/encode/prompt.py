"""A question put to a language model, as token ids, and the words it may answer with.

A word of the answer is encoded as it stands in running text: behind a space where the tokenizer marks spaces at
the beginning of a word inside the token (byte-level BPE: RoBERTa, GPT-2, Llama 3, SmolLM2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from handful.errors import BadInput

SPACE = "Ġ"
"""How a byte-level vocabulary writes a space in front of a word."""


@dataclass(frozen=True)
class Prompt:
    """Token ids with what goes beside them.

    Args:
        ids: of the whole input, special tokens included.
        segments: the kind of each token, from 0 (BERT's token types).
        masks: places of the masks, from the left; none for a model that goes on with the text.
    """

    ids: tuple[int, ...]
    segments: tuple[int, ...]
    masks: tuple[int, ...] = ()

    @classmethod
    def of(cls, ids: Sequence[int], mask: int | None, segments: Sequence[int] | None = None) -> Prompt:
        """With the places of ``mask`` found; all of kind 0 unless ``segments`` says otherwise."""
        kinds = tuple(segments) if segments is not None else (0,) * len(ids)
        return cls(tuple(ids), kinds, tuple(at for at, one in enumerate(ids) if one == mask))

    def inserted(self, at: int, ids: Sequence[int]) -> Prompt:
        """With more tokens before place ``at``, of kind 0."""
        kinds = (0,) * len(ids)
        masks = tuple(place + len(ids) * (place >= at) for place in self.masks)
        return Prompt((*self.ids[:at], *ids, *self.ids[at:]), (*self.segments[:at], *kinds, *self.segments[at:]), masks)

    def widened(self, count: int) -> Prompt:
        """With ``count`` masks where its one mask is."""
        (at,) = self.masks
        ids = (*self.ids[:at], *[self.ids[at]] * count, *self.ids[at + 1 :])
        kinds = (*self.segments[:at], *[self.segments[at]] * count, *self.segments[at + 1 :])
        return Prompt(ids, kinds, tuple(range(at, at + count)))


@dataclass(frozen=True)
class Question:
    """A prompt with the answers it may be given, each as token ids."""

    prompt: Prompt
    answers: tuple[tuple[int, ...], ...]


def word_ids(tokenizer: Any, word: str) -> tuple[int, ...]:
    """The tokens of a word as it stands in running text, without special tokens.

    Raises:
        BadInput: the word is empty, or has no tokens.
    """
    if not isinstance(word, str) or not word.strip():
        raise BadInput(f"an answer of the language model is {word!r}; it needs at least one letter")
    if word in tokenizer.all_special_tokens or word[0] in ".,":  # signs and special tokens stand without a space
        sign = tokenizer.convert_tokens_to_ids(word)
        if sign is not None and sign != tokenizer.unk_token_id:
            return (int(sign),)
    spaced = tokenizer.encode(" " + word.strip(), add_special_tokens=False)
    if spaced and str(tokenizer.convert_ids_to_tokens(spaced[0])).startswith(SPACE):
        return tuple(spaced)
    ids = tokenizer.encode(word.strip(), add_special_tokens=False)
    if not ids:
        raise BadInput(f"the tokenizer makes no token of the answer {word!r}")
    return tuple(ids)


def continuation(tokenizer: Any, text: str) -> tuple[int, ...]:
    """The tokens of a text that goes on from another: behind a space, where the tokenizer writes spaces into tokens.

    Raises:
        BadInput: the text is empty.
    """
    if not text.strip():
        raise BadInput(f"what is wanted is empty: {text!r}")
    spaced = tuple(tokenizer.encode(" " + text.strip(), add_special_tokens=False))
    if str(tokenizer.convert_ids_to_tokens(spaced[0])).startswith(SPACE):
        return spaced
    return tuple(tokenizer.encode(text.strip(), add_special_tokens=False))


@dataclass(frozen=True)
class LabelWords:
    """What a language model may answer, by class: a verbaliser.

    Args:
        classes: names of the classes.
        words: the answer of each, as text.
        ids: its tokens.
    """

    classes: tuple[str, ...]
    words: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, tokenizer: Any, words: Mapping[str, str]) -> LabelWords:
        """Encode the word of each class.

        Raises:
            BadInput: no classes; a word that is empty or unknown to the tokenizer; two classes with one word.
        """
        if not words or not isinstance(words, Mapping):
            raise BadInput("no answers: give the word of each class, such as {'bad': 'terrible', 'good': 'great'}")
        ids = tuple(word_ids(tokenizer, word) for word in words.values())
        unknown = tokenizer.unk_token_id
        seen: dict[tuple[int, ...], str] = {}
        for (name, word), own in zip(words.items(), ids, strict=True):
            if unknown is not None and unknown in own:
                raise BadInput(f"the tokenizer does not know the word {word!r} of class {name!r}; take another")
            if own in seen:
                raise BadInput(f"classes {seen[own]!r} and {name!r} have one word, {word!r}; give each its own")
            seen[own] = name
        return cls(tuple(words), tuple(words.values()), ids)

    @property
    def single(self) -> Tensor:
        """The one token of each class ``[C]``. Raises `BadInput` naming a word that has several."""
        for word, own in zip(self.words, self.ids, strict=True):
            if len(own) > 1:
                raise BadInput(
                    f"the word {word!r} is {len(own)} tokens; take a shorter one, or rank whole answers (Ranked, score)"
                )
        return torch.tensor([own[0] for own in self.ids])


def masked(tokenizer: Any, texts: Sequence[str], masks: int, *, position: int = 1, most: int = 128) -> Prompt:
    """A text, or two, with ``masks`` masks; texts are shortened until all is at most ``most`` tokens, masks are not.

    Of two texts in one segment the second is shortened, and the first once nothing of it is left; in two, the longer.

    Args:
        tokenizer: with a mask.
        texts: one or two.
        masks: M.
        position: of two texts a and b with masks m: 0 ``a b m``, 1 ``a m b``, both in one segment; 2 ``a | m b``,
            3 ``a | b m``, in two.
        most: tokens at most.

    Raises:
        BadInput: no mask in the tokenizer; M below 1; more than two texts; no room for text.
    """
    if tokenizer.mask_token_id is None:
        raise BadInput("the tokenizer has no mask token, which this method asks at")
    if masks < 1 or position not in range(4) or len(texts) not in (1, 2):
        raise BadInput(f"one mask at least, position 0 to 3, one or two texts; not {masks}, {position}, {len(texts)}")
    parts = [list(tokenizer.encode(text, add_special_tokens=False)) for text in texts]
    ends = 3 if len(parts) == 2 and position > 1 else 2
    room = most - masks - ends
    if room < 1:
        raise BadInput(f"{most} tokens leave no room for text beside {masks} masks")
    a, b, m = parts[0], parts[1] if len(parts) == 2 else [], [tokenizer.mask_token_id] * masks
    while len(a) + len(b) > room:
        (a if ends == 3 and len(a) > len(b) else b or a).pop()
    first, second = [(a + b + m, []), (a + m + b, []), (a, m + b), (a, b + m)][position if len(parts) == 2 else 0]
    ids = [tokenizer.cls_token_id, *first, tokenizer.sep_token_id]
    kinds = [0] * len(ids)
    if second:
        ids += [*second, tokenizer.sep_token_id]
        kinds += [1] * (len(ids) - len(kinds))
    begins = len(a) + ends - 1 + (len(b) if position in (0, 3) else 0)  # a mask that stands in a text is no question
    return Prompt(tuple(ids), tuple(kinds), tuple(range(begins, begins + masks)))


def padded(lists: Sequence[Sequence[int]], fill: int) -> Tensor:
    """``[n, longest]``, filled up on the right."""
    out = torch.full((len(lists), max(map(len, lists), default=0)), fill)
    for row, some in enumerate(lists):
        out[row, : len(some)] = torch.tensor(some, dtype=torch.long)
    return out


def level_prompt(tokenizer: Any, text: str, depth: int, most: int) -> Prompt:
    """``It was 1 level: [MASK] … D level: [MASK]. text``, of which the text is cut at its end.

    Raises:
        BadInput: no room for text.
    """

    def tokens(words: str) -> list[int]:
        return list(tokenizer.encode(words, add_special_tokens=False))

    ids = [tokenizer.cls_token_id, *tokens("It was")]
    for level in range(1, depth + 1):
        ids += [*tokens(f" {level} level:"), tokenizer.mask_token_id]
    ids += tokens(".")
    room = most - len(ids) - 1
    if room < 1:
        raise BadInput(f"{most} tokens leave no room for text beside the masks of {depth} levels")
    masks = Prompt.of(ids, tokenizer.mask_token_id).masks  # a mask that stands in the text is no question
    ids += [*tokens(" " + text.strip())[:room], tokenizer.sep_token_id]
    return Prompt(tuple(ids), (0,) * len(ids), masks)
