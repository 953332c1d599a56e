"""Linear CKA: what it does not see, what it is for unrelated vectors, and its formula."""

from __future__ import annotations

import pytest
import torch

from handful.core.alignment import linear_cka
from handful.errors import BadInput

DRAW = torch.Generator().manual_seed(0)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=DRAW, dtype=torch.float64)


@pytest.mark.paper(80, oracle="b")
@pytest.mark.parametrize(("n", "d", "e"), [(50, 8, 8), (50, 8, 5), (6, 20, 12)])
def test_rotations_and_scales_are_not_seen(n: int, d: int, e: int) -> None:
    x, y = normal(n, d), normal(n, e)
    q = torch.linalg.qr(normal(d, d)).Q
    torch.testing.assert_close(linear_cka(3.7 * x @ q, y), linear_cka(x, y))
    assert float(linear_cka(x, x @ q + 5)) == pytest.approx(1, abs=1e-6)
    a, b = x - x.mean(0), y - y.mean(0)
    formula = (b.mT @ a).norm() ** 2 / ((a.mT @ a).norm() * (b.mT @ b).norm())
    torch.testing.assert_close(linear_cka(x, y), formula)
    assert float(linear_cka(normal(2000, 20), normal(2000, 20))) < 0.05
    torch.testing.assert_close(linear_cka(torch.stack([x, x]), torch.stack([y, y])), formula.expand(2))


def test_bad_input() -> None:
    with pytest.raises(BadInput, match="not of the same items"):
        linear_cka(normal(3, 2), normal(4, 2))
    with pytest.raises(BadInput, match="not finite"):
        linear_cka(normal(3, 2), torch.full((3, 2), torch.nan))
