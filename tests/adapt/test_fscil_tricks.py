"""The tricks one by one, and that without any there is nothing but class means."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from handful.adapt import head
from handful.adapt.tricks import least_important, partners, supervised_contrast, with_virtual
from handful.errors import BadInput

SMALL: dict[str, Any] = {"width": 16, "slots": 12, "epochs": 10}


@pytest.fixture
def case(blobs: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Eight classes, the first six of which are base classes."""
    x, y = blobs(ways=8, noise=1.0)
    return x, y, y < 6


def grown(case: Any, **params: Any) -> Any:
    x, y, base = case
    return head("fscil-tricks", **{**SMALL, **params}).fit(x[base], y[base]).grow(x[~base], y[~base])


@pytest.mark.paper(171, oracle="a")
def test_without_tricks_it_is_teen_without_calibration(case: Any, blobs: Any) -> None:
    x, y, base = case
    q, _ = blobs(ways=8, shots=30, seed=1)
    want = head("teen", alpha=0.0).fit(x[base], y[base]).grow(x[~base], y[~base])  # type: ignore[attr-defined]
    got = grown(case, tricks=())
    np.testing.assert_allclose(got.logits(q), want.logits(q), atol=1e-9)
    assert np.array_equal(got.predict(q), want.predict(q))


@pytest.mark.paper(171, oracle="b")
def test_with_one_positive_the_contrast_is_nt_xent() -> None:
    draw = torch.Generator().manual_seed(0)
    n, tau = 5, 0.07
    views = torch.nn.functional.normalize(torch.randn(2, n, 4, generator=draw, dtype=torch.float64), dim=-1)
    u = views.reshape(2 * n, 4)
    logits = (u @ u.T / tau).fill_diagonal_(-torch.inf)
    want = torch.nn.functional.cross_entropy(logits, torch.arange(2 * n).roll(n))
    y = torch.nn.functional.one_hot(torch.arange(n).repeat(2)).double()
    torch.testing.assert_close(supervised_contrast(u, y, tau), want)


@pytest.mark.paper(171, oracle="b")
def test_the_contrast_by_its_definition() -> None:
    draw = torch.Generator().manual_seed(1)
    u = torch.nn.functional.normalize(torch.randn(7, 4, generator=draw, dtype=torch.float64), dim=-1)
    codes, tau = [0, 0, 0, 1, 1, 2, -1], 0.5  # the sixth is alone in its class, the last is padding
    y = torch.zeros(7, 3, dtype=torch.float64)
    for i, code in enumerate(codes[:6]):
        y[i, code] = 1
    each = []
    for i in range(5):
        others = [a for a in range(6) if a != i]
        total = sum(np.exp(float(u[i] @ u[a]) / tau) for a in others)
        same = [p for p in others if codes[p] == codes[i]]
        each.append(-np.mean([np.log(np.exp(float(u[i] @ u[p]) / tau) / total) for p in same]))
    assert float(supervised_contrast(u, y, tau)) == pytest.approx(np.mean(each))


@pytest.mark.paper(171, oracle="c")
def test_mixes_are_classes_of_their_own_that_only_the_training_knows(case: Any) -> None:
    partner, virtual = partners(4, torch.Generator().manual_seed(0), 4)
    assert sorted(partner.tolist()) == [0, 1, 2, 3] and (partner != torch.arange(4)).all()
    assert virtual.tolist() == [4, 5, 6, 7]
    target = torch.eye(4)[[2, 0]]
    labels = with_virtual(target, target.argmax(-1, keepdim=True), virtual, torch.ones(8, dtype=torch.bool))
    assert labels.argmax(-1).tolist() == [2, 0, 6, 4]
    _, few = partners(4, torch.Generator(), 1)
    assert few.tolist() == [4, -1, -1, -1]  # one slot is free: the other mixes have no class and do not count
    assert with_virtual(target, target.argmax(-1, keepdim=True), few, torch.ones(5, dtype=torch.bool))[2].sum() == 0
    assert grown(case).logits(case[0]).shape[1] == 8


@pytest.mark.paper(171, oracle="d")
@pytest.mark.parametrize("share", [0.1, 0.25, 1.0])
def test_growing_changes_just_the_share_of_the_weights_that_is_free(case: Any, share: float) -> None:
    x, y, base = case
    fitted: Any = head("fscil-tricks", **SMALL, share=share, grow_lr=0.1).fit(x[base], y[base])
    before = {name: fitted.state_[name] for name in ("inner", "outer")}
    fitted.grow(x[~base], y[~base])
    changed = {name: fitted.state_[name] != before[name] for name in before}
    total = sum(c.numel() for c in changed.values())
    assert sum(int(c.sum()) for c in changed.values()) == round(share * total)
    assert all((changed[name] <= (fitted.state_[f"free_{name}"] > 0)).all() for name in changed)


def test_the_least_important_weights_are_found_over_all_of_them() -> None:
    weights = [torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[0.5, 6.0]])]
    gradients = (torch.tensor([[1.0, 0.1], [1.0, 0.0]]), torch.tensor([[0.2, 1.0]]))
    got = least_important(weights, gradients, 0.5)  # products 1, 0.2, 3, 0 and 0.1, 6
    assert [m.tolist() for m in got] == [[[0.0, 1.0], [0.0, 1.0]], [[1.0, 0.0]]]


@pytest.mark.paper(171, oracle="e")
def test_which_class_has_which_slot_does_not_matter(blobs: Any) -> None:
    x, y = blobs(ways=6, shots=50, noise=1.0)
    held = np.arange(len(y)) % 50 >= 10
    (q, true), (x, y) = (x[held], y[held]), (x[~held], y[~held])
    order = np.array([3, 5, 1, 0, 4, 2])

    def accuracy(names: np.ndarray, seed: int) -> float:
        model = head("fscil-tricks", **{**SMALL, "epochs": 30}, tricks=("etf",), random_state=seed)
        return float((model.fit(x, names[y]).predict(q) == names[true]).mean())

    plain = [accuracy(np.arange(6), seed) for seed in range(3)]
    permuted = [accuracy(order, seed) for seed in range(3)]
    assert min(plain) > 0.6  # of six classes
    assert abs(np.mean(plain) - np.mean(permuted)) <= max(np.ptp(plain), np.ptp(permuted), 0.02)


def test_classes_take_slots_in_the_order_they_come(case: Any) -> None:
    x, y, base = case
    names = np.array(list("qwertyui"))[y]
    fitted: Any = head("fscil-tricks", **SMALL).fit(x[base], names[base])
    fitted.grow(x[y == 7], names[y == 7]).grow(x[y == 6], names[y == 6])
    slots = dict(zip(fitted.classes_.tolist(), fitted.state_["slot"].tolist(), strict=True))
    assert [slots[c] for c in sorted("qwerty")] == [0, 1, 2, 3, 4, 5]
    assert (slots["i"], slots["u"]) == (6, 7)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"tricks": ("rotation",)}, "'rotation' changes the encoder"),
        ({"tricks": ("etfs",)}, "no 'etfs'; did you mean 'etf'"),
        ({"tricks": "etf"}, "a list of supcon, etf, pseudo, subnet, .* not 'etf'"),
        ({"tricks": None}, "not None"),
        ({"slots": 17}, "width=17 or more"),
        ({"slots": 5}, "6 classes, but slots=5"),
        ({"share": 0.0}, "share must be"),
        ({"tau": 0.0}, "tau must be"),
        ({"grow_steps": -1}, "grow_steps must be"),
    ],
)
def test_what_makes_no_sense_is_refused(case: Any, params: dict[str, Any], message: str) -> None:
    x, y, base = case
    with pytest.raises(BadInput, match=message):
        head("fscil-tricks", **{**SMALL, **params}).fit(x[base], y[base])


def test_more_classes_than_slots_are_refused(case: Any) -> None:
    with pytest.raises(BadInput, match="8 classes, but slots=7"):
        grown(case, slots=7)
