"""What is asked of the batched core of a head: what should not matter does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from handful.adapt.base import Head
from handful.core.task import ClassText, Query, Task, lowest
from handful.testing.tasks import QUERIES, WAYS, ask, bare, made_up_task, pad, rows, stack, tasks

TOLERANCE = {torch.float32: 2e-4, torch.float64: 1e-6}
"""For what changes the order of sums. Batch against loop has to agree to 1e-5 and 1e-10."""


def shape(head: Head) -> None:
    """Logits have one row a query and one column a class, in the features' precision."""
    for dtype in (torch.float32, torch.float64):
        for task in tasks(head, dtype):
            out = _answer(head, task)
            assert out.shape == (QUERIES, WAYS), f"logits of shape {tuple(out.shape)}, not {(QUERIES, WAYS)}"
            assert out.dtype == dtype, f"logits are {out.dtype} for features that are {dtype}"
            assert out.isfinite().all(), "logits that are not finite"


def precision(head: Head) -> None:
    """Single precision gives what double does, with the same strengths."""
    for single, double in zip(tasks(head, torch.float32), tasks(head, torch.float64), strict=True):
        held = head.held(head.adapt(double))
        _same(_answer(held, single).double(), _answer(held, double), "float32 against float64", 5e-3)


def padding(head: Head) -> None:
    """Garbage in padded rows, queries and classes changes nothing."""
    for task in tasks(head):
        plain = _answer(head, task)
        for garbage in (1e3, float("nan")):
            padded = _answer(head, pad(task, garbage))
            assert (padded[:, WAYS:] <= lowest(plain)).all(), "a padded class gets a logit that is not the lowest"
            _same(padded[:QUERIES, :WAYS], plain, f"padded with {garbage}")


def batch(head: Head) -> None:
    """A batch of tasks gives what each alone gives."""
    if head.needs.batched == "loop":
        return
    few = head.needs.min_shots
    for dtype, limit in ((torch.float32, 1e-5), (torch.float64, 1e-10)):
        # One class has a single example in one task only: what that task does must not sway the others.
        shots = [(few + 2, few + 2, few + 2), (few + 6, few, few), (few + 3, few + 2, few + 1)]
        with_text = [made_up_task(head, seed, dtype, k) for seed, k in enumerate(shots)]
        for group in [with_text] if head.needs.text else [with_text, [bare(task) for task in with_text]]:
            together = _answer(head, stack(group))
            for i, task in enumerate(group):
                _same(together[i], _answer(head, task), f"task {i} of a batch against itself alone in {dtype}", limit)


def order(head: Head) -> None:
    """Examples, classes and queries may come in any order, queries in any company."""
    for task in tasks(head):
        plain, q = _answer(head, task), task.query
        assert q is not None
        shuffled = rows(task, torch.randperm(len(task.support), generator=torch.Generator().manual_seed(5)))
        _same(_answer(head, shuffled), plain, "examples in another order")
        order = torch.tensor([2, 0, 1])
        renamed = replace(
            task,
            labels=task.labels[:, order],
            prior=None if task.prior is None else task.prior[:, order],
            text=task.text and ClassText(task.text.vectors[order], task.text.mask[order]),
            query=replace(q, prior=None if q.prior is None else q.prior[:, order]),
        )
        _same(_answer(head, renamed), plain[:, order], "classes in another order")
        back = torch.arange(QUERIES - 1, -1, -1)
        _same(_answer(head, ask(task, back)), plain[back], "queries in another order")
        if not head.needs.transductive:
            _same(_answer(head, ask(task, back[-1:])), plain[:1], "a query asked alone")


def weights(head: Head) -> None:
    """A row given twice is a row of weight 2."""
    for task in tasks(head):
        n = len(task.support)
        twice = rows(task, torch.cat([torch.arange(n), torch.tensor([0, n - 1])]))
        weight = task.weight.clone()
        weight[[0, n - 1]] = 2
        _same(
            _answer(head, twice),
            _answer(head, replace(task, weight=weight)),
            "a row given twice against a row of weight 2",
        )


def soft_labels(head: Head) -> None:
    """A soft label is rows of those classes with its shares as weights."""
    for task in tasks(head):
        soft = task.labels.clone()
        soft[0] = soft.new_tensor([0.75, 0.25, 0.0])
        split = rows(task, torch.cat([torch.tensor([0]), torch.arange(len(task.support))]))
        labels, weight = split.labels.clone(), split.weight.clone()
        labels[:2] = torch.eye(WAYS, dtype=labels.dtype)[:2]
        weight[:2] = weight.new_tensor([0.75, 0.25])
        got = _answer(head, replace(task, labels=soft))
        _same(
            got,
            _answer(head, replace(split, labels=labels, weight=weight)),
            "a soft label against two rows with its shares as weights",
        )


def leave_one_out(head: Head) -> None:
    """The closed form is really leaving out each item."""
    for task in tasks(head):
        if head.leaves == "fold":
            return
        n = len(task.support)
        views = rows(task, torch.cat([torch.arange(n), torch.tensor([0, 2])]))  # items of two different rows
        moved = views.support.clone()
        moved[n:] += 0.3
        for case, what in ((task, "one row an item"), (replace(views, support=moved), "two rows an item")):
            left_out = head.leave_one_out(case)
            if left_out is None:
                continue
            assert left_out.shape == case.labels.shape, f"leave-one-out of shape {tuple(left_out.shape)}"
            held = head.held(head.adapt(case))
            for i in range(len(case.support)):
                rest = replace(case, weight=torch.where(case.item == case.item[i], 0.0, case.weight))
                prior = None if case.prior is None else case.prior[[i]]
                query = Query(case.support[[i]], prior, views={k: v[[i]] for k, v in case.views.items()})
                _same(left_out[[i]], _answer(held, replace(rest, query=query)), f"leaving out row {i}, {what}", 1e-6)


def repeatable(head: Head) -> None:
    """The same task gives the same state, bit for bit."""
    task = tasks(head)[0]
    first, second = head.adapt(task), head.adapt(task)
    assert first.keys() == second.keys(), "the state has other tensors the second time"
    assert all(torch.equal(first[name], second[name]) for name in first), "the same seed gives other bits"


CHECKS: Mapping[str, Callable[[Head], None]] = {
    "shape": shape,
    "precision": precision,
    "padding": padding,
    "batch": batch,
    "order": order,
    "weights": weights,
    "soft labels": soft_labels,
    "leave-one-out": leave_one_out,
    "repeatable": repeatable,
}
"""The checks by name."""


def _answer(head: Head, task: Task) -> Tensor:
    out = head.logits(task)
    assert isinstance(out, Tensor), "logits of a task must be a tensor"
    return out


def _same(got: Tensor, want: Tensor, what: str, tolerance: float | None = None) -> None:
    assert got.shape == want.shape, f"{what}: shape {tuple(got.shape)}, not {tuple(want.shape)}"
    possible = (got > lowest(got) / 1e6) | (want > lowest(want) / 1e6)
    got, want = torch.where(possible, got, 0.0), torch.where(possible, want, 0.0)
    gap = float((got - want).abs().max() / want.abs().max().clamp_min(1.0))
    limit = TOLERANCE[want.dtype] if tolerance is None else tolerance
    assert gap <= limit, f"{what}: logits differ by {gap:.1e} of the largest, more than {limit:.0e}"
