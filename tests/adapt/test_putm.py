"""Paper 052: PUTM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from handful.adapt.pt_map import PTMAP
from handful.adapt.putm import PUTM
from handful.core.navigator import ConditionalTransport, distances, navigator
from handful.core.task import Query, Task, make_task
from handful.errors import BadInput

Golden = Callable[[str], tuple[dict[str, Any], Any]]


def answers(head: Any, task: Task) -> Tensor:
    return torch.as_tensor(head.logits(task))


def drawn(n: int, counts: list[int], seed: int = 0, noise: float = 0.5) -> tuple[Task, Tensor]:
    """Positive features; so many queries of each class."""
    code = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return around(code.expand(n, -1), len(counts), seed, noise)


def around(code: Tensor, ways: int, seed: int = 0, noise: float = 0.5) -> tuple[Task, Tensor]:
    """Positive features around a centre a class; queries of the classes ``code [n, Q]``."""
    n, draw = len(code), torch.Generator().manual_seed(seed)
    centre = torch.rand(n, ways, 24, generator=draw)
    s = (centre + noise * torch.randn(n, ways, 24, generator=draw)).abs()
    own = centre.gather(1, code[..., None].expand(-1, -1, 24))
    q = (own + noise * torch.randn(own.shape, generator=draw)).abs()
    return make_task(s, torch.arange(ways).expand(n, -1), query=Query(q)), code


def test_plans_are_those_of_the_authors(golden: Golden) -> None:
    inputs, expected = golden("putm")
    support, query = (torch.tensor(inputs[name], dtype=torch.float64) for name in ("support", "query"))
    labels = torch.tensor(inputs["labels"]).expand(len(support), -1)
    head = PUTM(n_outer=4, inner_steps=5, hidden=16, theta=0.2, reference_scale=True)
    got = answers(head, make_task(support, labels, query=Query(query))).exp()
    torch.testing.assert_close(got, torch.tensor(expected["forward"], dtype=torch.float64), atol=1e-7, rtol=0)


@pytest.mark.paper(52, oracle="a")
def test_plans_are_shares() -> None:
    d = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0))
    queries = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    classes = torch.tensor([[True] * 3, [True, True, False]])
    forward, backward = ConditionalTransport(queries, classes, 0.5, 0.0).plans(d)
    torch.testing.assert_close(forward.sum(-1), queries.float(), atol=1e-6, rtol=0)
    torch.testing.assert_close(backward.sum(-2), classes.float(), atol=1e-6, rtol=0)


@pytest.mark.paper(52, oracle="b")
def test_a_network_that_adds_makes_it_soft_k_means(monkeypatch: pytest.MonkeyPatch) -> None:
    task, _ = drawn(1, [4, 4, 4])
    task = replace(task, support=task.support[..., :6], query=Query(task.query.x[..., :6]))  # type: ignore[union-attr]
    rows = 6
    adds = [torch.eye(rows), torch.zeros(1, rows), torch.eye(rows), torch.zeros(1, rows), torch.ones(rows, 1)]
    adds = [w[None] for w in [*adds, torch.zeros(1, 1)]]
    monkeypatch.setattr("handful.adapt.putm.navigator", lambda *_, **__: adds)
    unit = torch.nn.functional.normalize
    s, q = (unit((x[0] + 1e-6) ** 0.6, dim=-1) for x in (task.support, task.query.x))  # type: ignore[union-attr]
    p = (-torch.cdist(q, s).square()).softmax(-1)
    for basis in ("qr", "eigen"):
        still = PUTM(n_outer=0, inner_steps=0, basis=basis)
        torch.testing.assert_close(answers(still, task)[0].exp(), p, atol=1e-5, rtol=0)
        once = PUTM(n_outer=1, inner_steps=0, alpha=(1.0, 1.0), basis=basis)
        mean = once.move(once.start(task), task.query)[1]["mean"][0]  # type: ignore[arg-type]
        torch.testing.assert_close(mean, (s + p.T @ q) / (1 + p.sum(0))[:, None], atol=1e-5, rtol=0)


@pytest.mark.paper(52, oracle="c")
def test_the_loss_is_the_mean_expected_cost_and_the_balance() -> None:
    draw = torch.Generator().manual_seed(0)
    cost, d = (torch.rand(5, 3, generator=draw) for _ in range(2))
    ones = torch.ones(5, dtype=torch.bool), torch.ones(3, dtype=torch.bool)
    only = ConditionalTransport(*ones, 1.0, 0.0)
    forward, backward = only.plans(d)
    loop = sum(float(cost[q, k] * forward[q, k]) for q in range(5) for k in range(3)) / 5
    assert float(only.loss(cost, forward, backward)) == pytest.approx(loop)
    both = ConditionalTransport(*ones, 0.3, 0.4)
    s = (0.3 * forward + 0.7 * backward).sum(0)
    other = (cost * backward).sum() / 3
    want = 0.4 * (s / s.sum() - 1 / 3).square().mean() + 0.6 * (0.3 * loop + 0.7 * other)
    torch.testing.assert_close(both.loss(cost, forward, backward), want)


@pytest.mark.slow
@pytest.mark.paper(52, oracle="d")
def test_imbalance_hurts_those_who_assume_balance() -> None:
    """Proportions from Dirichlet(2), and equal ones, there with the authors' settings for balance."""
    share = torch.as_tensor(np.random.default_rng(0).dirichlet([2.0] * 5, 500))
    uneven = share.multinomial(30, replacement=True, generator=torch.Generator().manual_seed(0))
    even = torch.arange(5).repeat_interleave(6).expand(500, -1)
    for code, balance in ((uneven, {}), (even, {"rho": 1.0, "theta": 0.001})):
        task, truth = around(code, 5, noise=0.25)
        few = PUTM(n_outer=15, inner_steps=10, lr=6e-3, hidden=64, **balance)
        ours, theirs = ((answers(h, task).argmax(-1) == truth).float().mean(-1) for h in (few, PTMAP()))
        gain = ours - theirs
        if balance:
            assert gain.mean() <= 0.01
        else:
            assert gain.mean() - 1.96 * gain.std() / len(gain) ** 0.5 > 0


@pytest.mark.paper(52, oracle="e")
def test_tasks_do_not_know_of_each_other() -> None:
    task, _ = drawn(3, [3, 2, 4])
    task = replace(task.map(lambda x: x.double()), labels=task.labels.double(), weight=task.weight.double())
    head = PUTM(n_outer=3, inner_steps=4)
    together = answers(head, task)
    for i in range(3):
        alone = make_task(task.support[i], task.labels[i], query=Query(task.query.x[i]))  # type: ignore[union-attr]
        torch.testing.assert_close(answers(head, alone), together[i], atol=1e-8, rtol=0)


def test_padding_draws_the_same_network() -> None:
    like = torch.zeros((), dtype=torch.float64)
    narrow, wide = (navigator(torch.tensor([5]), most, 8, seed=0, like=like) for most in (5, 9))
    square = torch.rand(1, 2, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    padded = torch.nn.functional.pad(square, (0, 4))
    torch.testing.assert_close(distances(wide, padded), distances(narrow, square))


def test_projection_and_soft_start_run_and_answer() -> None:
    task, truth = drawn(4, [5, 5, 5], noise=0.15)
    head = PUTM(n_outer=15, inner_steps=10, lr=1e-2, project=True, soft_start=10.0)
    assert float((answers(head, task).argmax(-1) == truth).float().mean()) > 0.8


def test_what_makes_no_sense_is_refused() -> None:
    task, _ = drawn(1, [2, 2])
    for params, match in (
        ({"rho": 1.5}, "rho"),
        ({"theta": -0.1}, "theta"),
        ({"alpha": (0.1,)}, "two numbers"),
        ({"basis": "pca"}, "basis"),
        ({"hidden": 1}, "hidden"),
    ):
        with pytest.raises(BadInput, match=match):
            PUTM(**params).logits(task)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="Negative"):
        PUTM().logits(task.map(lambda x: x - 1))
