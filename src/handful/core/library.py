"""Vectors with names, and which of them are nearest: models, data sets or tasks that are to be found again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from handful.errors import BadInput


@dataclass(frozen=True)
class Found:
    """One of a ranking: ``score`` is higher for what fits better, ``rank`` begins at 1."""

    name: str
    score: float
    rank: int


def ranked(scores: Mapping[str, float]) -> tuple[Found, ...]:
    """Names by score, the highest first; of equal ones by name.

    Raises:
        BadInput: there are none, or one is NaN.
    """
    for name, score in scores.items():
        if score != score:
            raise BadInput(f"{name!r} has no score (NaN), so that nothing can be ranked")
    if not scores:
        raise BadInput("there is nothing to rank")
    order = sorted(scores, key=lambda name: (-scores[name], name))
    return tuple(Found(name, float(scores[name]), place) for place, name in enumerate(order, start=1))


@dataclass
class Library:
    """Named vectors of one space.

    Args:
        space: what made them, such as an encoder's fingerprint; vectors of another are refused.
        vectors: ``[d]`` by name.
        about: of each, whatever is known of it.
    """

    space: str = ""
    vectors: dict[str, Tensor] = field(default_factory=dict)
    about: dict[str, Mapping[str, object]] = field(default_factory=dict)

    def add(self, name: str, vector: Tensor, about: Mapping[str, object] | None = None, *, space: str = "") -> None:
        """Keep a vector.

        Raises:
            BadInput: the name is taken; the vector is of another space or length, is 0, or holds what is no number.
        """
        if name in self.vectors:
            raise BadInput(f"{name!r} is in the library already")
        self.vectors[name] = self._checked(name, vector, space)
        self.about[name] = dict(about or {})

    def search(self, vector: Tensor, k: int | None = None, *, space: str = "") -> tuple[Found, ...]:
        """The ``k`` nearest by cosine, all by default. Raises `BadInput` as `add`; k is below 1."""
        if k is not None and k < 1:
            raise BadInput(f"k is {k}; it must be at least 1")
        query = self._checked("what is searched for", vector, space)
        if not self.vectors:
            raise BadInput("the library is empty")
        cosine = torch.cosine_similarity(torch.stack(list(self.vectors.values())), query[None], dim=1)
        return ranked(dict(zip(self.vectors, cosine.tolist(), strict=True)))[:k]

    def cosines(self) -> Tensor:
        """Of all with all ``[n, n]``, in the order in which they were added."""
        rows = torch.nn.functional.normalize(torch.stack(list(self.vectors.values())), dim=1)
        return rows @ rows.mT

    def _checked(self, name: str, vector: Tensor, space: str) -> Tensor:
        if space != self.space:
            raise BadInput(f"{name!r} was made by {space[:40]!r}, not by {self.space[:40]!r}: they cannot be compared")
        try:
            vector = torch.as_tensor(vector).detach().double()
        except (TypeError, ValueError, RuntimeError) as error:
            raise BadInput(f"{name!r} must be a vector, not {vector!r:.60}") from error
        first = next(iter(self.vectors.values()), vector)
        if vector.dim() != 1 or vector.shape != first.shape or not bool(torch.isfinite(vector).all()):
            raise BadInput(f"{name!r} must be {len(first)} finite numbers, not a tensor of shape {tuple(vector.shape)}")
        if not bool(vector.any()):
            raise BadInput(f"{name!r} is the zero vector, which has no direction: nothing changed, or nothing was read")
        return vector
