"""Mamba-FSCIL against the authors' projector and losses, the scan by hand, and what growing does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from handful.adapt import head, ssm
from handful.adapt.base import Features
from handful.adapt.mamba_fscil import _both, class_squares, dot_regression, separation
from handful.core.etf import simplex_etf
from handful.errors import BadInput
from handful.evaluate.incremental import incremental_step

SMALL: dict[str, Any] = {"slots": 8, "width": 12, "states": 3, "rank": 2, "epochs": 20, "lr": 0.05}
WAYS, BASE = 7, 5


def maps(shots: int, seed: int = 0, noise: float = 0.5) -> tuple[Features, np.ndarray]:
    """Maps of 2 x 2 places and 6 channels around one map a class."""
    draw, centre = np.random.default_rng(seed), np.random.default_rng(9).normal(size=(WAYS, 4, 6))
    y = np.repeat(np.arange(WAYS), shots)
    local = centre[y] + noise * draw.normal(size=(len(y), 4, 6))
    return Features(local.mean(1), {"local": local}), y


def fitted(**params: Any) -> Any:
    x, y = maps(8)
    return head("mamba-fscil", **{**SMALL, **params}).fit(x.take(y < BASE), y[y < BASE])


def tensors(rows: dict[str, Any]) -> dict[str, Tensor]:
    found = {name: torch.tensor(value, dtype=torch.float64) for name, value in rows.items()}
    m, places = found["gain"].shape[1], found["gain"].shape[0]
    empty = {"more": (0, m, m), "more_bias": (0, m), "more_gain": (0, places, m), "more_shift": (0, places, m)}
    return {**{name: torch.zeros(size, dtype=torch.float64) for name, size in empty.items()}, **found}


def test_equals_the_authors_projector_and_losses(golden: Any) -> None:
    given, want = golden("mamba_fscil")
    state = {f"{side}.{name}": t for side in ("one", "two") for name, t in tensors(given[side]).items()}
    state["residual"] = torch.tensor(given["residual"], dtype=torch.float64)
    z, second = _both(state, torch.tensor(given["maps"], dtype=torch.float64))
    np.testing.assert_allclose(z, want["out"], atol=1e-9)
    np.testing.assert_allclose(second.gate, want["gate"], atol=1e-9)
    base = torch.tensor(given["base"], dtype=torch.float64)
    for part, expected in zip(second.chosen, want["separation"], strict=True):
        assert float(separation(part, base, 1 - base)) == pytest.approx(expected, abs=1e-9)
    code, ones = torch.tensor(given["code"]), torch.ones(3, dtype=torch.float64)
    directions = torch.tensor(given["directions"], dtype=torch.float64)
    got = dot_regression(z, directions, ones, class_squares(code, ones, 2))
    assert float(got) == pytest.approx(want["loss"], abs=1e-9)


@pytest.mark.paper(161, oracle="a")
@pytest.mark.parametrize(("width", "slots"), [(5, 5), (16, 7), (3, 2)])
def test_directions_of_a_frame_are_as_far_apart_as_can_be(width: int, slots: int) -> None:
    frame = simplex_etf(width, slots, torch.Generator().manual_seed(0))
    want = slots / (slots - 1) * (torch.eye(slots) - torch.full((slots, slots), 1 / slots))
    torch.testing.assert_close(frame.T @ frame, want.double(), atol=1e-6, rtol=0)
    with pytest.raises(BadInput, match="not 6"):
        simplex_etf(5, 6, torch.Generator())


class TestScan:
    """The recurrence, by itself."""

    draw = torch.Generator().manual_seed(0)
    u = torch.randn(2, 9, 3, generator=draw, dtype=torch.float64)
    enter, leave = torch.randn(2, 2, 9, 4, generator=draw, dtype=torch.float64)
    decay = -torch.rand(3, 4, generator=draw, dtype=torch.float64)
    skip = torch.randn(3, generator=draw, dtype=torch.float64)

    @pytest.mark.paper(161, oracle="b")
    def test_without_a_step_only_what_skips_it_comes_out(self) -> None:
        got = ssm.selective_scan(self.u, torch.zeros_like(self.u), self.decay, self.enter, self.leave, self.skip)
        torch.testing.assert_close(got, self.skip * self.u)

    @pytest.mark.paper(161, oracle="b")
    def test_one_state_is_an_explicit_recurrence(self) -> None:
        step = torch.rand(2, 9, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        got = ssm.selective_scan(self.u, step, self.decay[:, :1], self.enter[..., :1], self.leave[..., :1], self.skip)
        for i in range(2):
            for c in range(3):
                h = 0.0
                for t in range(9):
                    d = float(step[i, t, c])
                    h = np.exp(d * float(self.decay[c, 0])) * h + d * float(self.enter[i, t, 0] * self.u[i, t, c])
                    want = h * float(self.leave[i, t, 0]) + float(self.skip[c] * self.u[i, t, c])
                    assert float(got[i, t, c]) == pytest.approx(want, abs=1e-9)

    @pytest.mark.paper(161, oracle="b")
    def test_when_nothing_is_chosen_it_is_a_long_convolution(self) -> None:
        step, b, c = 0.3, self.enter[:1, :1], self.leave[:1, :1]
        steps = torch.full_like(self.u, step)
        got = ssm.selective_scan(self.u, steps, self.decay, b.expand(2, 9, 4), c.expand(2, 9, 4), self.skip)
        lags = torch.arange(9)[:, None, None]
        kernel = ((lags * step * self.decay).exp() * step * b[0] * c[0]).sum(-1)  # [9, 3]
        want = torch.stack([sum(kernel[t - s] * self.u[:, s] for s in range(t + 1)) for t in range(9)], 1)
        torch.testing.assert_close(got, want + self.skip * self.u)


def test_the_four_orders_of_a_square_map() -> None:
    rows, back, columns, up = ssm.orders(4, torch.device("cpu"))
    assert (rows.tolist(), back.tolist()) == ([0, 1, 2, 3], [3, 2, 1, 0])
    assert (columns.tolist(), up.tolist()) == ([0, 2, 1, 3], [3, 1, 2, 0])


@pytest.mark.paper(161, oracle="c")
@pytest.mark.parametrize("layers", [2, 3])
def test_the_second_branch_starts_silent(layers: int) -> None:
    model, x = fitted(layers=layers), torch.tensor(maps(3, seed=1)[0].views["local"])
    scanned = ssm.branch({name: model.state_[f"two.{name}"] for name in ssm.SHAPES}, x)
    assert scanned.out.abs().max() == 0 and scanned.gate.abs().max() == 0
    loud = ssm.branch({name: model.state_[f"one.{name}"] for name in ssm.SHAPES}, x)
    assert loud.out.abs().max() > 0
    same = fitted(layers=layers, grow_steps=0)
    few, y = maps(3, seed=1)
    before = same.logits(few)
    same.grow(few.take(y >= BASE), y[y >= BASE])
    np.testing.assert_allclose(same.logits(few)[:, :BASE], before, atol=1e-12)


@pytest.mark.paper(161, oracle="d")
def test_no_loss_where_rows_lie_on_their_directions() -> None:
    frame = simplex_etf(6, 4, torch.Generator().manual_seed(0)).T
    code, ones = torch.tensor([0, 3, 3]), torch.ones(3, dtype=torch.float64)
    squares = class_squares(code, ones, 4)
    torch.testing.assert_close(squares, torch.tensor([1.5, 0.75, 0.75], dtype=torch.float64))
    assert float(dot_regression(5 * frame[code], frame[code], ones, squares)) == pytest.approx(0)
    assert float(dot_regression(-frame[code], frame[code], ones)) == pytest.approx(5 * 4)


@pytest.mark.paper(161, oracle="e")
def test_separation_of_the_same_and_of_the_orthogonal() -> None:
    base = torch.tensor([1.0, 0.0])
    same = torch.tensor([[[1.0, 2.0]], [[2.0, 4.0]]])
    assert float(separation(same, base, 1 - base)) == pytest.approx(0.5)
    apart = torch.tensor([[[1.0, 0.0]], [[0.0, 3.0]]])
    assert float(separation(apart, base, 1 - base)) == pytest.approx(0.0, abs=1e-7)


@pytest.mark.paper(161, oracle="f")
def test_accuracy_is_that_of_base_and_new_classes_by_their_share() -> None:
    model = fitted(width=64, lr=0.25, epochs=10, grow_steps=100, random_state=1)
    (x, y), (q, true) = maps(4), maps(30, seed=1)
    answers = model.grow(x.take(y >= BASE), y[y >= BASE]).predict(q)
    step = incremental_step(true, answers, range(BASE))
    assert step.novel is not None
    assert step.accuracy == pytest.approx((BASE * step.base + (WAYS - BASE) * step.novel) / WAYS)
    assert step.base > 0.6 and step.novel > 0.6


def test_growing_changes_the_second_branch_only_and_keeps_one_map_a_class() -> None:
    model, (x, y) = fitted(grow_steps=5), maps(4)
    before = dict(model.state_)
    model.grow(x.take(y >= BASE), y[y >= BASE])
    changed = {name for name in before if name.startswith(("one.", "two.", "residual"))}
    changed = {name for name in changed if not torch.equal(before[name], model.state_[name])}
    assert "two.enter" in changed and all(name.startswith("two.") for name in changed)
    local = torch.tensor(x.views["local"])
    torch.testing.assert_close(model.state_["memory"][6], local[torch.tensor(y) == 6].mean(0))
    torch.testing.assert_close(model.state_["memory"][:BASE], before["memory"])
    assert model.state_["base"].tolist() == [1, 1, 1, 1, 1, 0, 0]


def test_growing_that_runs_away_is_refused_and_leaves_the_head_as_it_was() -> None:
    model, (x, y) = fitted(grow_lr=1e6, clip=None), maps(4)
    before = model.logits(x)
    with pytest.raises(BadInput, match="smaller grow_lr"):
        model.grow(x.take(y >= BASE), y[y >= BASE])
    assert np.array_equal(model.logits(x), before)


def test_without_a_width_the_branches_are_as_wide_as_the_maps() -> None:
    model = fitted(width=None, slots=6)
    assert model.state_["residual"].shape == (0, 6)
    model.check_state()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"slots": 13}, "slots=13, width=12: take a slot for every class"),
        ({"slots": 4}, "5 classes, slots=4"),
        ({"layers": 1}, "layers must be"),
        ({"mix": 1.5}, "mix must be"),
        ({"clip": 0.0}, "clip must be"),
        ({"states": 0}, "states must be"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        fitted(**params)


def test_maps_that_do_not_fit_are_refused() -> None:
    x, y = maps(3)
    local = x.views["local"]
    with pytest.raises(BadInput, match="3 places, which make no square"):
        head("mamba-fscil", **SMALL).fit(Features(x.x, {"local": local[:, :3]}), y)
    with pytest.raises(BadInput, match=r"must be an array \[n, places, d\]"):
        head("mamba-fscil", **SMALL).fit(Features(x.x, {"local": local[:, 0]}), y)
    model, new = fitted(), y >= BASE
    for wrong in (local[:, :1], local[..., :4]):
        with pytest.raises(BadInput, match="learnt from maps of shape"):
            model.predict(Features(x.x, {"local": wrong}))
        with pytest.raises(BadInput, match="learnt from maps of shape"):
            model.grow(Features(x.x, {"local": wrong}).take(new), y[new])
    many = np.arange(len(y)) + 100
    with pytest.raises(BadInput, match="26 classes, but slots=8"):
        model.grow(x, many)
