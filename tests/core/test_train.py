"""The training loop of heads against torch's own optimiser."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from handful.core.train import SGD, Adam, AdamW, Clipped, adamw, descend


def squares(parameters: list[Tensor], rows: Tensor) -> Tensor:
    target = torch.arange(6, dtype=torch.float64)[rows]
    return (parameters[0][..., :1] * target - 2 * target - parameters[1]).square().mean(-1)


def start() -> list[Tensor]:
    return [torch.tensor([0.5, -1.0], dtype=torch.float64), torch.tensor([0.25], dtype=torch.float64)]


def test_equals_torchs_adamw_with_its_cosine() -> None:
    free = [p.clone().requires_grad_() for p in start()]
    optimiser = torch.optim.AdamW(free, lr=0.05, eps=1e-4, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 7)
    for _ in range(7):
        optimiser.zero_grad()
        torch.autograd.backward(squares(free, torch.arange(6)).sum() + 0 * free[0].sum())
        optimiser.step()
        schedule.step()
    got = adamw(start(), squares, rows=torch.arange(6), epochs=7, lr=0.05, eps=1e-4, weight_decay=0.1)
    for mine, theirs in zip(got, free, strict=True):
        torch.testing.assert_close(mine, theirs.detach(), atol=1e-12, rtol=1e-10)


def test_equals_torchs_amsgrad_and_goes_on_from_its_memory() -> None:
    free = [p.clone().requires_grad_() for p in start()]
    optimiser = torch.optim.AdamW(free, lr=0.05, weight_decay=0.1, amsgrad=True)
    rows = [torch.tensor([at % 6]) for at in (5, 0, 0, 0, 3, 0, 0)]  # large gradients, then small ones
    for some in rows:
        optimiser.zero_grad()
        torch.autograd.backward(squares(free, some).sum() + 0 * free[0].sum())
        optimiser.step()
    first, then = AdamW(weight_decay=0.1, amsgrad=True), AdamW(weight_decay=0.1, amsgrad=True)
    half = descend(start(), squares, rows[:3], lambda step: 0.05, first)
    then.recall([m.clone() for m in first.memory()])
    for mine, theirs in zip(descend(half, squares, rows[3:], lambda step: 0.05, then), free, strict=True):
        torch.testing.assert_close(mine, theirs.detach(), atol=1e-12, rtol=1e-10)


def test_equals_torchs_adam_with_a_penalty_whatever_the_sizes() -> None:
    """Parameters share the room that a step computes in: smaller, larger, of another kind, transposed."""
    draw = torch.Generator().manual_seed(0)
    sizes, kinds = [(3,), (4, 5), (2, 2, 2), (7,)], [torch.float64, torch.float64, torch.float32, torch.float64]
    made = [torch.randn(n, generator=draw, dtype=kind) for n, kind in zip(sizes, kinds, strict=True)]
    made[1] = made[1].mT
    free = [p.clone().requires_grad_() for p in made]
    optimiser = torch.optim.Adam(free, lr=0.05, weight_decay=0.3)

    def losses(parameters: list[Tensor], step: Tensor) -> Tensor:
        return torch.stack([(p.sin() * (step + 1)).sum().double() for p in parameters]).sum()

    steps = [torch.tensor(float(at)) for at in range(6)]
    for step in steps:
        optimiser.zero_grad()
        torch.autograd.backward(losses(list(free), step))
        optimiser.step()
    got = descend(made, losses, steps, lambda step: 0.05, Adam(weight_decay=0.3))
    for mine, theirs in zip(got, free, strict=True):
        torch.testing.assert_close(mine, theirs.detach(), atol=1e-6 if mine.dtype == torch.float32 else 1e-12, rtol=0)


@pytest.mark.parametrize("nesterov", [False, True])
def test_equals_torchs_sgd(nesterov: bool) -> None:
    free = [p.clone().requires_grad_() for p in start()]
    optimiser = torch.optim.SGD(free, lr=0.05, momentum=0.9, weight_decay=0.1, nesterov=nesterov)
    for _ in range(7):
        optimiser.zero_grad()
        torch.autograd.backward(squares(free, torch.arange(6)).sum() + 0 * free[0].sum())
        optimiser.step()
    update = SGD(0.9, 0.1, nesterov=nesterov)
    got = descend(start(), squares, [torch.arange(6)] * 7, lambda step: 0.05, update)
    for mine, theirs in zip(got, free, strict=True):
        torch.testing.assert_close(mine, theirs.detach(), atol=1e-12, rtol=1e-10)


def test_gradients_are_clipped_as_torch_clips_them_each_task_by_itself() -> None:
    gradients = (torch.tensor([[3.0, 0.0], [0.1, 0.2]]), torch.tensor([4.0, 0.2]))
    parameters = [torch.zeros(2, 2), torch.zeros(2)]
    Clipped(SGD(0.0), 1.0, batch=1)(parameters, gradients, 1.0)
    for task in range(2):
        free = [torch.nn.Parameter(torch.zeros_like(g[task])) for g in gradients]
        for p, g in zip(free, gradients, strict=True):
            p.grad = g[task].clone()
        torch.nn.utils.clip_grad_norm_(free, 1.0)
        for mine, theirs in zip(parameters, free, strict=True):
            torch.testing.assert_close(-mine[task], theirs.grad, atol=1e-5, rtol=1e-5)


def test_steps_are_drawn_by_the_seed_and_cover_every_row() -> None:
    seen: list[list[int]] = []

    def watch(parameters: list[Tensor], rows: Tensor) -> Tensor:
        seen.append(rows.tolist())
        return squares(parameters, rows)

    one = adamw(start(), watch, rows=torch.tensor([0, 2, 3, 5]), epochs=2, lr=0.1, batch_size=3, seed=1)
    assert [len(rows) for rows in seen] == [3, 1, 3, 1]
    assert sorted(seen[0] + seen[1]) == sorted(seen[2] + seen[3]) == [0, 2, 3, 5]
    again = adamw(start(), squares, rows=torch.tensor([0, 2, 3, 5]), epochs=2, lr=0.1, batch_size=3, seed=1)
    other = adamw(start(), squares, rows=torch.tensor([0, 2, 3, 5]), epochs=2, lr=0.1, batch_size=3, seed=2)
    assert torch.equal(one[0], again[0])
    assert not torch.equal(one[0], other[0])


def test_no_epochs_leave_the_start_and_gradients_stay_off() -> None:
    with torch.no_grad():
        same = adamw(start(), squares, rows=torch.arange(6), epochs=0, lr=0.1)
        moved = adamw(start(), squares, rows=torch.arange(6), epochs=1, lr=0.1)
    assert torch.equal(same[0], start()[0])
    assert not torch.equal(moved[1], start()[1])
    assert not moved[0].requires_grad
