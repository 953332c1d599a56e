"""The scale of logits, and the choice among sets of logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from handful.core.calibration import accuracy, fit_scale, pick


def case(seed: int = 0, size: float = 1.0, n: int = 40) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    y = torch.nn.functional.one_hot(torch.randint(0, 4, (n,), generator=draw), 4).double()
    logits = size * (torch.randn(n, 4, generator=draw, dtype=torch.float64) + 1.2 * y)
    return logits, y, torch.ones(4, dtype=torch.bool)


@pytest.mark.parametrize("size", [1e-4, 1.0, 1e3])
def test_the_scale_minimises_the_log_loss(size: float) -> None:
    logits, y, mask = case(size=size)
    t, loss = fit_scale(logits, y, mask)

    def log_loss(u: float) -> float:
        return float(-(y * (np.exp(u) * logits).log_softmax(-1)).sum() / len(y))

    best = minimize_scalar(log_loss, bounds=(np.log(1e-2 / size), np.log(1e2 / size)), method="bounded")
    assert float(t) == pytest.approx(np.exp(best.x), rel=1e-3)
    assert float(loss) == pytest.approx(best.fun, abs=1e-9)


def test_scaling_the_logits_scales_the_answer_back() -> None:
    logits, y, mask = case()
    t, loss = fit_scale(torch.stack([logits, 50 * logits]), y, mask)
    assert float(t[0] / t[1]) == pytest.approx(50, rel=1e-4)
    assert float(loss[0]) == pytest.approx(float(loss[1]))


def test_a_batch_is_its_parts_and_padding_counts_for_nothing() -> None:
    cases = [case(seed) for seed in range(3)]
    t, loss = fit_scale(
        torch.stack([c[0] for c in cases]), torch.stack([c[1] for c in cases]), cases[0][2].expand(3, 4)
    )
    for i, (logits, y, mask) in enumerate(cases):
        alone = fit_scale(logits, y, mask)
        torch.testing.assert_close(torch.stack([t[i], loss[i]]), torch.stack(alone), atol=1e-8, rtol=1e-8)
    logits, y, _ = cases[0]
    more = torch.nn.functional.pad(logits, (0, 1, 0, 5), value=7.0)
    wide = fit_scale(more, torch.nn.functional.pad(y, (0, 1, 0, 5)), torch.tensor([True] * 4 + [False]))
    torch.testing.assert_close(torch.stack(wide), torch.stack([t[0], loss[0]]), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_perfect_useless_and_impossible_logits_stay_finite(dtype: torch.dtype) -> None:
    _, y, mask = case()
    y = y.to(dtype)
    impossible = torch.zeros_like(y).masked_fill(y > 0, torch.finfo(dtype).min / 4)
    for logits in (y, -y, torch.zeros_like(y), impossible):
        t, loss = fit_scale(logits, y, mask)
        assert t.isfinite() and loss.isfinite() and float(t) > 0
    assert float(fit_scale(y, y, mask)[1]) < 1e-3
    assert float(fit_scale(-y, y, mask)[1]) == pytest.approx(np.log(4), rel=1e-2)
    assert float(fit_scale(impossible, y, mask)[1]) == pytest.approx(2 * np.log(4), rel=1e-5)


def test_pick_takes_the_most_accurate_then_the_likeliest() -> None:
    _, y, mask = case()
    wrong = y.roll(1, -1)
    less = torch.where(torch.arange(40)[:, None] < 5, wrong, y) * 1.0
    noise = torch.rand(40, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    right, sure = y + 0.8 * noise, y + 0.1 * noise
    assert accuracy(less, y) == pytest.approx(35 / 40)
    assert int(pick(torch.stack([less, right, sure]), y, mask)) == 2  # two tie: the loss decides
    assert int(pick(torch.stack([sure, less, right]), y, mask)) == 0
    batch = torch.stack([torch.stack([less, sure]), torch.stack([sure, less])], 1)
    assert pick(batch, y.expand(2, 40, 4), mask.expand(2, 4)).tolist() == [1, 0]


def test_a_padded_class_does_not_sway_the_choice() -> None:
    logits, y, mask = case()
    wider = torch.nn.functional.pad(torch.stack([logits - 9, -logits - 9]), (0, 1), value=0.0)
    mask = torch.tensor([True] * 4 + [False])
    assert int(pick(wider, torch.nn.functional.pad(y, (0, 1)), mask)) == 0
