"""TIM in both forms, and transductive fine-tuning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from handful.adapt.finetuning import TransductiveFinetuning
from handful.adapt.prototype_descent import Likeness, Metric
from handful.adapt.tim import TIMADM, TIMGD
from handful.core.information import Information
from handful.core.task import Query, Task, make_task
from handful.errors import BadInput

Golden = Callable[[str], tuple[dict[str, Any], Any]]
METRICS: tuple[Metric, ...] = ("sqeuclidean", "euclidean", "cosine")


def read(golden: Golden) -> tuple[Task, dict[str, Tensor]]:
    inputs, expected = golden("tim")
    support, query = (torch.tensor(inputs[name], dtype=torch.float64) for name in ("support", "query"))
    labels = torch.tensor(inputs["labels"]).expand(len(support), -1)
    task = make_task(support, labels, query=Query(query))
    return task, {name: torch.tensor(value, dtype=torch.float64) for name, value in expected.items()}


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (TIMGD(n_steps=50, lr=1e-3), "gd"),
        (TIMADM(n_steps=30), "adm"),
        (TIMADM(n_steps=30, loss_weights=("auto", 1.0, 0.1)), "auto"),
    ],
)
def test_numbers_are_those_of_the_authors(golden: Golden, head: Any, name: str) -> None:
    task, expected = read(golden)
    logits = head.logits(task)
    torch.testing.assert_close(logits.softmax(-1), expected[name], atol=1e-6, rtol=0)
    if f"{name}_weights" in expected:
        mean = head.move(head.start(task), task.query)[1]["mean"]
        torch.testing.assert_close(mean, expected[f"{name}_weights"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("metric", METRICS)
def test_the_gradient_is_that_of_the_loss(metric: Metric) -> None:
    """Written out by hand; autograd agrees."""
    draw = torch.Generator().manual_seed(0)
    w, x = (torch.randn(2, n, 5, generator=draw, dtype=torch.float64) for n in (3, 9))
    y = torch.rand(2, 4, 3, generator=draw, dtype=torch.float64)
    real = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    information, likeness = Information.of(y, real, (0.3, 1.0, 0.2)), Likeness(metric, 3.0)
    x = likeness.prepared(x)
    square = x.square().sum(-1)[..., None, :]
    s, a, b = likeness.logits(w, x, square)
    slope = information.slope(s)
    by_hand = (slope * a) @ x + (slope * b).sum(-1, keepdim=True) * w
    free = w.requires_grad_()
    loss = information.loss(likeness.logits(free.clone(), x, square)[0]).sum()
    torch.testing.assert_close(by_hand, torch.autograd.grad(loss, free)[0])


def test_the_loss_is_what_its_formula_says() -> None:
    s = torch.randn(3, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = torch.eye(3, dtype=torch.float64)[[0, 1]]
    y = torch.cat([y, torch.tensor([[0.0, 0.0, 2.0]], dtype=y.dtype)])
    real = torch.ones(4, dtype=torch.bool)
    p = s.softmax(0)
    fit = -(p[0, 0].log() + p[1, 1].log() + 2 * p[2, 2].log()) / 4
    mean = p[:, 3:].mean(1)
    marginal, conditional = -(mean * mean.log()).sum(), -(p[:, 3:] * p[:, 3:].log()).sum(0).mean()
    got = Information.of(y, real, (0.5, 2.0, 3.0)).loss(s)
    torch.testing.assert_close(got, 0.5 * fit - 2 * marginal + 3 * conditional)


def test_easyfsl_is_a_choice_of_parameters(golden: Golden) -> None:
    """The steps of easyfsl 1.5, written out with torch's own Adam."""
    task, _ = read(golden)
    assert task.query is not None
    s, q, y = task.support[0], task.query.x[0], task.labels[0]
    unit = torch.nn.functional.normalize

    def steps(n: int, lr: float, loss: Callable[[Tensor], Tensor]) -> Tensor:
        w = s.unflatten(0, (3, 2)).mean(1).requires_grad_()
        adam = torch.optim.Adam([w], lr=lr)
        for _ in range(n):
            adam.zero_grad()
            loss(w).backward()
            adam.step()
        return w.detach()

    def entropy(p: Tensor) -> Tensor:
        return -(p * (p + 1e-12).log()).sum(-1)

    def tim(w: Tensor) -> Tensor:
        ls, lq = (10 * unit(x, dim=-1) @ unit(w, dim=-1).T for x in (s, q))
        p = lq.softmax(-1)
        return -(y * ls.log_softmax(-1)).sum(-1).mean() - entropy(p.mean(0)) + 0.1 * entropy(p).mean()

    def fine(w: Tensor) -> Tensor:
        return (
            -(y * (-torch.cdist(s, w)).log_softmax(-1)).sum(-1).mean()
            + entropy((-torch.cdist(q, w)).softmax(-1)).mean()
        )

    cases: list[tuple[Any, Tensor]] = [
        (
            TIMGD(norm="UN", metric="cosine", temperature=10.0, loss_weights=(1.0, 1.0, 0.1), n_steps=50),
            steps(50, 1e-4, tim),
        ),
        (TransductiveFinetuning(norm="UN"), steps(25, 5e-5, fine)),
    ]
    for head, want in cases:
        got = head.move(head.start(task), task.query)[1]["mean"][0]
        torch.testing.assert_close(got, want, atol=1e-7, rtol=0)


def test_mutual_information_grows() -> None:
    draw = torch.Generator().manual_seed(0)
    centre = torch.randn(20, 5, 1, 16, generator=draw)
    x = centre + 0.9 * torch.randn(20, 5, 16, 16, generator=draw)
    labels = torch.arange(5).expand(20, -1)
    task = make_task(x[:, :, 0], labels, query=Query(x[:, :, 1:].flatten(1, 2)))
    truth = torch.arange(5).repeat_interleave(15).expand(20, -1)
    right = {}
    for head in (TIMGD(n_steps=0), TIMGD(n_steps=300, lr=1e-3), TIMADM()):
        right[(head.key, head.n_steps)] = float(
            (torch.as_tensor(head.logits(task)).argmax(-1) == truth).double().mean()
        )
    start = right["tim-gd", 0]
    assert right["tim-gd", 300] > start + 0.03
    assert right["tim-adm", 150] > start + 0.03


def test_what_makes_no_sense_is_refused(golden: Golden) -> None:
    task, _ = read(golden)
    cases: list[tuple[Any, str]] = [
        (TIMGD(loss_weights=(0.1, 1.0)), "three"),  # type: ignore[arg-type]
        (TIMGD(loss_weights=("most", 1.0, 0.1)), "'auto'"),  # type: ignore[arg-type]
        (TIMGD(lr=0.0), "lr"),
        (TIMADM(alpha=1.5), "alpha"),
        (TIMADM(temperature=0.0), "temperature"),
        (TransductiveFinetuning(metric="manhattan"), "metric"),  # type: ignore[arg-type]
    ]
    for head, match in cases:
        with pytest.raises(BadInput, match=match):
            head.logits(task)
