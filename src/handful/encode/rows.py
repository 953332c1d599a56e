"""Rows: texts of which a causal language model learns some tokens, several answers in one, or several texts packed.

    chained   given answer given answer ...    every answer sees all that stands before it (examples in the prompt)
    packed    [given answer] [given answer]    each block sees itself alone, and counts its places from 0

A packed row is the same as its blocks one by one, in fewer passes: no token is lost or repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from handful.errors import BadInput


@dataclass(frozen=True)
class Row:
    """Token ids, and which of them are learnt.

    Args:
        ids: of the whole row.
        learnt: places of the tokens that are learnt, ascending; never the first of a block, which follows on nothing.
        begins: the first place of each block.
    """

    ids: tuple[int, ...]
    learnt: tuple[int, ...]
    begins: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        if not self.learnt or not 0 < self.learnt[0] <= self.learnt[-1] < len(self.ids):
            raise BadInput(f"a row of {len(self.ids)} tokens learns at the places {self.learnt[:4]}: nothing, or none")
        if set(self.learnt) & set(self.begins):
            raise BadInput("the first token of a block cannot be learnt: it follows on nothing")

    def blocks(self) -> list[Row]:
        """Each block as a row of its own."""
        out = []
        for first, end in zip(self.begins, (*self.begins[1:], len(self.ids)), strict=True):
            out.append(Row(self.ids[first:end], tuple(at - first for at in self.learnt if first <= at < end)))
        return out


def chained(parts: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Row:
    """One row of parts, what is given and what is learnt of each, in which all sees what stands before it."""
    ids: list[int] = []
    learnt: list[int] = []
    for given, answer in parts:
        ids += given
        learnt += range(len(ids), len(ids) + len(answer))
        ids += answer
    return Row(tuple(ids), tuple(learnt))


def packed(rows: Sequence[Row], most: int) -> list[Row]:
    """Rows one behind the other in fewer rows of at most ``most`` tokens, each a block that sees itself alone.

    In their order: a row that does not fit any more begins the next one.

    Raises:
        BadInput: a row is longer than ``most``.
    """
    out: list[list[Row]] = []
    for number, row in enumerate(rows):
        if len(row.ids) > most:
            raise BadInput(f"row {number} has {len(row.ids)} tokens, more than the {most} of a packed one; shorten it")
        if out and sum(len(one.ids) for one in out[-1]) + len(row.ids) <= most:
            out[-1].append(row)
        else:
            out.append([row])
    return [_joined(some) for some in out]


def block_mask(rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
    """Who sees whom, to be added to attention ``[B, 1, L, L]``, and the place of each token in its block ``[B, L]``."""
    width = max(len(row.ids) for row in rows)
    place = torch.arange(width)
    begins = torch.zeros(len(rows), width, dtype=torch.long)
    for number, row in enumerate(rows):
        for first in row.begins:
            begins[number, first:] = first
        begins[number, len(row.ids) :] = len(row.ids)  # padding is a block of its own
    seen = (begins[:, :, None] == begins[:, None, :]) & (place[None, :] <= place[:, None])
    hidden = torch.finfo(torch.float32).min
    return torch.where(seen, 0.0, hidden)[:, None], place - begins


def _joined(rows: Sequence[Row]) -> Row:
    ids: list[int] = []
    learnt: list[int] = []
    begins: list[int] = []
    for row in rows:
        at = len(ids)
        begins += [at + first for first in row.begins]
        learnt += [at + place for place in row.learnt]
        ids += row.ids
    return Row(tuple(ids), tuple(learnt), tuple(begins))
