"""Sinkhorn's sweeps: marginals, both domains, masks, batches, and POT's numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from handful.core.softem import Rows, shares
from handful.core.transport import sinkhorn
from handful.errors import BadInput

GOLDEN = Path(__file__).parents[1] / "golden" / "pot.json"


@pytest.fixture
def pot() -> dict[str, Any]:
    content = json.loads(GOLDEN.read_text(encoding="utf-8"))
    return {name: torch.tensor(value) for part in ("inputs", "expected") for name, value in content[part].items()}


@pytest.fixture
def problem() -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    cost = torch.rand(6, 3, 8, generator=draw, dtype=torch.float64)
    a = shares(torch.rand(6, 3, generator=draw, dtype=torch.float64) + 0.2)
    return cost, a, torch.full((8,), 1 / 8, dtype=torch.float64)


@pytest.mark.parametrize("domain", ["probability", "log", "auto"])
@pytest.mark.parametrize(("reg", "which"), [(0.1, 0), (0.02, 1)])
def test_plans_are_those_of_pot(pot: dict[str, Tensor], domain: Any, reg: float, which: int) -> None:
    plan = sinkhorn(pot["cost"].double(), reg, pot["a"].double(), pot["b"].double(), tol=1e-10, domain=domain)
    torch.testing.assert_close(plan, pot["plans"][which].double(), atol=1e-5, rtol=0)


def test_the_barycentric_map_is_that_of_pot(pot: dict[str, Tensor]) -> None:
    x, y = pot["x"].double(), pot["y"].double()
    cost = torch.cdist(x, y).square()
    fifth, ninth = torch.full((5,), 1 / 5, dtype=x.dtype), torch.full((9,), 1 / 9, dtype=x.dtype)
    plan = sinkhorn(cost / cost.max(), 0.05, fifth, ninth, tol=1e-12, max_sweeps=5000)
    torch.testing.assert_close(shares(plan) @ y, pot["mapped"].double(), atol=1e-5, rtol=0)


def test_both_marginals_are_kept(problem: tuple[Tensor, Tensor, Tensor]) -> None:
    cost, a, b = problem
    p = sinkhorn(cost, 0.05, a, b, tol=1e-12)
    torch.testing.assert_close(p.sum(-1), a, atol=1e-12, rtol=0)
    torch.testing.assert_close(p.sum(-2), b.expand(6, 8), atol=1e-9, rtol=0)


@pytest.fixture
def slow() -> tuple[Tensor, Tensor, Tensor]:
    """Twenty queries near each of three classes, where the shares ask for eighteen to twenty-two."""
    draw = torch.Generator().manual_seed(0)
    cost = torch.rand(5, 3, 60, generator=draw, dtype=torch.float64)
    cost[:, torch.arange(60) % 3, torch.arange(60)] -= 4
    return cost, torch.tensor([18.0, 20.0, 22.0], dtype=torch.float64), torch.ones(60, dtype=torch.float64)


@pytest.mark.parametrize("domain", ["probability", "log"])
def test_where_sweeps_come_closer_slowly_steps_of_newtons_find_their_plan(
    slow: tuple[Tensor, Tensor, Tensor], domain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = sinkhorn(slow[0], 0.5, *slow[1:], tol=1e-10, max_sweeps=30, domain=domain)
    monkeypatch.setattr("handful.core.transport.ALONE", 100_000)
    far = sinkhorn(slow[0], 0.5, *slow[1:], tol=1e-10, max_sweeps=30, domain=domain)
    long = sinkhorn(slow[0], 0.5, *slow[1:], tol=1e-12, max_sweeps=100_000)
    torch.testing.assert_close(fast, long, atol=1e-8, rtol=0)
    assert (fast.sum(-2) - 1).abs().max() < 1e-10
    assert (far.sum(-2) - 1).abs().max() > 1e-2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_sharpest_plans_keep_both_marginals(slow: tuple[Tensor, Tensor, Tensor], dtype: torch.dtype) -> None:
    cost, a, b = (t.to(dtype) for t in slow)
    p = sinkhorn(cost, 0.005, a, b, tol=1e-6, max_sweeps=200)
    torch.testing.assert_close(p.sum(-1), a.expand(5, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(p.sum(-2), b.expand(5, 60), atol=2e-5, rtol=0)


def test_steps_of_newtons_leave_padding_out(slow: tuple[Tensor, Tensor, Tensor]) -> None:
    cost, a, b = slow
    padded = torch.nn.functional.pad(cost, (0, 2, 0, 1), value=-9.0)
    more = torch.nn.functional.pad(a, (0, 1)), torch.nn.functional.pad(b, (0, 2))
    for domain in ("probability", "log"):
        p = sinkhorn(padded, 0.5, *more, domain=domain)
        torch.testing.assert_close(p[..., :3, :60], sinkhorn(cost, 0.5, a, b))
        assert p[..., 3, :].abs().max() == p[..., 60:].abs().max() == 0


def test_a_batch_is_a_loop_whoever_converges_first(problem: tuple[Tensor, Tensor, Tensor]) -> None:
    cost, a, b = problem
    cost = cost * torch.logspace(-2, 0.5, 6, dtype=cost.dtype)[:, None, None]
    together = sinkhorn(cost, 0.05, a, b, domain="probability")
    for i in range(6):
        alone = sinkhorn(cost[i], 0.05, a[i], b, domain="probability")
        torch.testing.assert_close(together[i], alone, atol=1e-14, rtol=0)


def test_where_a_marginal_is_zero_nothing_is_sent(problem: tuple[Tensor, Tensor, Tensor]) -> None:
    cost, a, b = problem
    padded = torch.nn.functional.pad(cost, (0, 2, 0, 1), value=123.0)
    for domain in ("probability", "log"):
        p = sinkhorn(
            padded, 0.05, torch.nn.functional.pad(a, (0, 1)), torch.nn.functional.pad(b, (0, 2)), domain=domain
        )
        torch.testing.assert_close(p[..., :3, :8], sinkhorn(cost, 0.05, a, b))
        assert p[..., 3, :].abs().max() == 0
        assert p[..., 8:].abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sharp_costs_need_logarithms_and_get_them(dtype: torch.dtype) -> None:
    """Forced to send what costs far more than the number format's exponent can weigh."""
    cost = torch.tensor([[0.0, 0.1, 500.0], [0.3, 900.0, 0.0]], dtype=dtype)
    a, b = torch.tensor([1.0, 2.0], dtype=dtype), torch.ones(3, dtype=dtype)
    p = sinkhorn(cost, 0.5, a, b, tol=1e-5, max_sweeps=5000)
    assert np.array_equal(p.round().numpy(), [[0, 1, 0], [1, 0, 1]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_all_of_whose_costs_are_large_sends_its_share(dtype: torch.dtype) -> None:
    cost = torch.tensor([[0.0, 0.0], [900.0, 900.0]], dtype=dtype)  # what is added to a whole row changes no plan
    half = torch.full((2,), 0.5, dtype=dtype)
    torch.testing.assert_close(sinkhorn(cost, 1.0, half, half), torch.full((2, 2), 0.25, dtype=dtype))


def test_a_regularisation_that_makes_no_sense_is_refused(problem: tuple[Tensor, Tensor, Tensor]) -> None:
    with pytest.raises(BadInput, match="above 0"):
        sinkhorn(problem[0], 0.0, problem[1], problem[2])


def test_rows_and_prototypes_by_inner_products() -> None:
    """With and without the table of inner products, distances and cosines are the plain ones."""
    draw = torch.Generator().manual_seed(1)
    z = torch.randn(2, 5, 30, generator=draw, dtype=torch.float64)
    a = shares(torch.rand(2, 3, 5, generator=draw, dtype=torch.float64))
    few, many = Rows.of(z), Rows.of(z, looks=1)
    assert few.gram is not None
    assert many.gram is None
    for rows in (few, many):
        torch.testing.assert_close(rows.sqeuclidean(a), torch.cdist(a @ z, z).square())
        plain = torch.nn.functional.cosine_similarity((a @ z)[:, :, None], z[:, None], dim=-1)
        torch.testing.assert_close(rows.cosine(a), plain)
