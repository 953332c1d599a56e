"""The ways `handful.adapt.auto` considers of looking at the same few examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.stats import binom
from torch import Tensor

from handful.adapt.base import Head
from handful.adapt.gda import GDA
from handful.adapt.kernel import KernelRidge
from handful.adapt.logistic import Logistic, held_out
from handful.core.calibration import accuracy
from handful.core.distances import unit
from handful.core.task import ClassText, Query, State, Task, lowest, mask_classes
from handful.core.text_rows import with_text_rows

TRANSFORMS = ("plain", "root", "plain+middle", "root+middle")
"""Unit features; unit square roots (of what is not negative); either beside the features of a middle layer."""
MIDDLE = 0.6
"""Length of a middle layer's vector beside the unit features."""
LARGE = 5000
"""Support rows above which logistic regression stands in for kernel ridge regression, whose time is cubic in them."""
FOLDS = 5
"""Folds of items, where leaving each out by itself has no closed form."""
SURE = 0.01
"""Names take part if by chance they would label the examples as well with at most this probability."""


def members(large: bool) -> dict[str, Head]:
    """The heads of every plan, by the prefix of their state. Their strengths are held: with few examples a search
    loses more by its noise than it gains."""
    first = Logistic(C=10.0, normalize=True) if large else KernelRidge(beta=3.0, alpha=0.2)
    return {"regression": first, "discriminant": GDA()}


@dataclass(frozen=True)
class Plan:
    """A prepared support and what was learnt from it.

    Args:
        transform: one of `TRANSFORMS`.
        names: whether class names are among the examples.
        state: the states of the heads, their names prefixed.
        left_out: logits ``[M, *b, N, C]`` of each head and of the names for examples they have not seen.
        sizes: root mean square of each of these about its row's mean ``[M, *b]``.
    """

    transform: str
    names: bool
    state: State
    left_out: Tensor
    sizes: Tensor


def make_plans(task: Task, trust: Tensor) -> list[Plan]:
    """All plans that make sense for the task; names only where ``trust [*b]``. The last of each kind is the blind
    choice."""
    roots = bool((task.x >= 0).all())
    transforms = [
        how for how in TRANSFORMS if (roots or "root" not in how) and ("middle" in task.views or "middle" not in how)
    ]
    rows = (False, True) if _same_space(task) and bool(trust.any()) else (False,)
    return [_plan(task, how, names, trust) for names in rows for how in transforms]


def _plan(task: Task, how: str, names: bool, trust: Tensor) -> Plan:
    real = task.weight > 0
    views = {name: torch.where(real[..., None], view, 0.0) for name, view in task.views.items() if name == "middle"}
    x = transformed(task.x, views, how)
    ready, n = replace(task, support=x, prior=None, query=None, views={}), x.shape[-2]
    if task.text is not None and _same_space(task):  # all plans have these rows, so that their states have one shape
        ready = with_text_rows(replace(ready, text=_moved(task, x)), trust.to(x.dtype) if names else 0.0)
    ready = replace(ready, text=None)
    state: State = {}
    parts = []
    for name, head in members(n > LARGE).items():
        state |= {f"{name}.{key}": value for key, value in head.adapt(ready).items()}
        parts.append(unseen(head, ready)[..., :n, :])
    parts.append(torch.zeros_like(task.labels) if task.offset is None else task.offset)
    logits = torch.stack(parts)
    return Plan(how, names, state, logits, _sizes(logits, task))


def unseen(head: Head, task: Task) -> Tensor:
    """Logits ``[*b, N, C]`` of each row by the head without its item, or, where that has no closed form, without its
    fold: as with copies of an example under several labels, which make one item of several classes.
    """
    found = head.leave_one_out(task)
    if found is not None:
        return found
    found = torch.zeros_like(task.labels)
    for held in held_out(task, FOLDS):
        rest = replace(task, weight=torch.where(held[..., 0], 0.0, task.weight))
        found = torch.where(held, head.answer(head.adapt(rest), Query(task.x)), found)
    return found


def transformed(x: Tensor, views: Mapping[str, Tensor], how: str) -> Tensor:
    """Rows ``[*b, N, D']``, D' the same for every ``how``: without a middle layer its place is zero."""
    kind, _, middle = how.partition("+")
    rows = unit(x.clamp_min(0).sqrt() if kind == "root" else x)
    if "middle" not in views:
        return rows
    m = views["middle"].to(x.dtype)
    m = MIDDLE * unit(m.sign() * m.abs().sqrt() if kind == "root" else m)
    return torch.cat([rows, m if middle else torch.zeros_like(m)], -1)


def names_confirmed(task: Task) -> Tensor:
    """Whether the zero-shot answers label the items too well for chance ``[*b]``: P(X >= right) <= `SURE`."""
    if task.offset is None:
        return torch.zeros(task.labels.shape[:-2], dtype=torch.bool, device=task.labels.device)
    one = task.y * task.items.first[..., None]
    one = one / one.sum(-1, keepdim=True).clamp_min(1e-30)
    n = one.sum((-2, -1))
    right = accuracy(mask_classes(task.offset, task.class_mask), one) * n
    chance = binom.sf(np.ceil(right.cpu().numpy() - 1e-3) - 1, n.round().cpu().numpy(), 1 / task.ways.cpu().numpy())
    return torch.as_tensor(np.asarray(chance <= SURE), device=task.labels.device)


def _same_space(task: Task) -> bool:
    """Whether class text lives where the features do."""
    return (
        task.text is not None and "aligned" not in task.views and task.text.vectors.shape[-1] == task.support.shape[-1]
    )


def _moved(task: Task, x: Tensor) -> ClassText:
    """Class text moved as a whole so that its mean is that of the support: names differ from items in kind."""
    assert task.text is not None
    mean, known = task.text.mean.to(x.dtype), (task.text.mask.any(-1) & task.class_mask)[..., None]
    centre = torch.where(known, mean, 0.0).sum(-2, keepdim=True) / known.sum(-2, keepdim=True).clamp_min(1)
    w = task.y.sum(-1, keepdim=True)
    here = (w * x).sum(-2, keepdim=True) / w.sum(-2, keepdim=True).clamp_min(1e-30)
    return ClassText(unit(torch.where(known, mean - centre + here, 0.0))[..., None, :], known)


def _sizes(logits: Tensor, task: Task) -> Tensor:
    """Root mean square of logits ``[M, *b, N, C]`` about their row's mean, over what is possible, rows by weight."""
    w = task.y.sum(-1, keepdim=True)
    real = (w > 0) & task.class_mask[..., None, :] & (logits > lowest(logits) / 2)
    mean = torch.where(real, logits, 0.0).sum(-1, keepdim=True) / real.sum(-1, keepdim=True).clamp_min(1)
    square = torch.where(real, w * (logits - mean).square(), 0.0).sum((-2, -1))
    return (square / torch.where(real, w, 0.0).sum((-2, -1)).clamp_min(1e-30)).sqrt().clamp_min(1e-12)
