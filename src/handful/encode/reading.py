"""What an encoder gives of a text's token vectors in place of their mean, once it was tuned to be read so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from handful.core.late_interaction import Tokens, token_similarity
from handful.errors import BadInput

if TYPE_CHECKING:
    from handful.encode.asking import Asking

Direction = Literal["doc", "query", "both"]
DIRECTIONS = ("doc", "query", "both")


class Reading(Protocol):
    """From token vectors to what the encoder gives."""

    @property
    def width(self) -> int:
        """Of what it gives."""
        ...

    def __call__(self, tokens: Tokens) -> Tensor:
        """``[n, width]`` of the token vectors of n texts; no text's depends on the others."""
        ...


@dataclass(frozen=True)
class LateInteraction:
    """How well each of C class texts fits a text, token by token, over the number of the text's tokens.

    Args:
        projection: of token vectors ``[p, d]``; they are made unit then.
        documents: unit projected token vectors of the class texts ``[C, L, p]``.
        mask: their tokens ``[C, L]``.
        direction: ``"doc"`` looks for the text's tokens in the class text, ``"query"`` for the class text's in the
            text, ``"both"`` takes the mean.
    """

    projection: Tensor
    documents: Tensor
    mask: Tensor
    direction: Direction = "doc"

    def __post_init__(self) -> None:
        checked_direction(self.direction)
        shapes = [tuple(t.shape) for t in (self.projection, self.documents, self.mask)]
        if [len(s) for s in shapes] != [2, 3, 2] or shapes[1] != (*shapes[2], shapes[0][0]):
            raise BadInput(f"projection, documents and mask of shapes {shapes} do not fit together")
        if not all(bool(torch.isfinite(t).all()) for t in (self.projection, self.documents)):
            raise BadInput("projection and documents must be finite")

    @property
    def width(self) -> int:
        return len(self.documents)

    def __call__(self, tokens: Tokens) -> Tensor:
        states = functional.normalize(functional.linear(tokens.states.float(), self.projection), dim=-1)
        # One more place than tokens: every text is padded then, whatever it is read along with.
        texts = Tokens(functional.pad(states, (0, 0, 0, 1)), functional.pad(tokens.mask, (0, 1)))
        classes = Tokens(self.documents, self.mask)
        scores = []
        if self.direction != "query":
            scores.append(token_similarity(classes, texts, by_length=False))
        if self.direction != "doc":
            scores.append(token_similarity(texts, classes, by_length=False).mT)
        # The number of tokens does not change which class is first, and lets one scale serve all lengths.
        return torch.stack(scores).mean(0) / tokens.mask.sum(1)[:, None]

    def described(self) -> dict[str, Any]:
        """What it is, short of its tensors: JSON-able."""
        return {"kind": "late-interaction", "direction": self.direction}

    def tensors(self) -> dict[str, Tensor]:
        """By name."""
        return {"projection": self.projection, "documents": self.documents, "mask": self.mask}


def reading_of(described: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> LateInteraction | Asking:
    """What `described` and `tensors` are of. Raises `BadInput` where they are of nothing known."""
    from handful.encode.asking import asking_of

    if (asked := asking_of(described, tensors)) is not None:
        return asked
    if described.get("kind") != "late-interaction" or tensors.keys() != {"projection", "documents", "mask"}:
        raise BadInput(f"there is no reading {str(described.get('kind'))[:80]!r} with tensors {sorted(tensors)[:4]}")
    return LateInteraction(**tensors, direction=described.get("direction", "doc"))


def checked_direction(direction: str) -> None:
    """Raise `BadInput` for what is no direction."""
    if direction not in DIRECTIONS:
        raise BadInput(f"direction is one of {', '.join(DIRECTIONS)}, not {direction!r}")


def refuse_reading(reading: Reading | None) -> None:
    """Raise `BadInput` for a reading of token vectors, which an image encoder has none of."""
    if reading is not None:
        raise BadInput("an image has no tokens to be read one by one; take a recipe for images")
