"""ProLIP and its linear adapter against the authors' numbers, and what keeps them close to where they start."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from handful.adapt import head
from handful.adapt.base import Features
from handful.core.distances import unit
from handful.core.task import ClassText, Query, make_task
from handful.core.train import SGD, cosine, descend
from handful.errors import BadInput


@pytest.fixture
def case(blobs: Any) -> tuple[Features, np.ndarray, dict[int, np.ndarray], np.ndarray]:
    h, y = blobs(noise=2.0, width=12)
    draw = np.random.default_rng(0)
    start = draw.normal(size=(12, 8))
    return Features(h @ start, {"pre": h}), y, dict(enumerate(draw.normal(size=(4, 8)))), start


@pytest.mark.paper(10, oracle="a")
@pytest.mark.parametrize("key", ["prolip", "linear-adapter"])
def test_a_strong_penalty_keeps_the_projection(case: Any, key: str) -> None:
    x, y, text, _ = case
    fitted = head(key, text=text, reg=1e6, lr=1e-5).fit(x, y)
    assert fitted.state_["change"].abs().max() < 1e-4
    zero_shot = head("zero-shot", text=text).fit(x.x, y)
    assert (fitted.predict(x) == zero_shot.predict(x.x)).all()


@pytest.mark.paper(10, oracle="b")
@pytest.mark.parametrize("key", ["prolip", "linear-adapter"])
def test_without_a_rate_it_is_zero_shot(case: Any, key: str) -> None:
    x, y, text, _ = case
    fitted = head(key, text=text, lr=0.0, epochs=3).fit(x, y)
    np.testing.assert_allclose(fitted.logits(x), head("zero-shot", text=text).fit(x.x, y).logits(x.x), atol=1e-9)


@pytest.mark.parametrize("key", ["prolip", "linear-adapter"])
def test_the_change_serves_classes_without_examples(case: Any, key: str) -> None:
    x, y, text, _ = case
    more = {9: np.random.default_rng(3).normal(size=(2, 8))}
    plain, fitted = (head(key, text=each, lr=1e-2).fit(x, y) for each in (text, text | more))
    np.testing.assert_array_equal(plain.logits(x), fitted.logits(x))  # what is named does not sway what is learnt
    h = x.views["pre"] if key == "prolip" else x.x
    z = torch.as_tensor(x.x + h @ np.asarray(fitted.state_["change"]))
    words = unit(unit(torch.as_tensor(more[9])).mean(0))
    answers = fitted.logits(x, [9, 2])
    np.testing.assert_allclose(answers[:, 0], 100 * unit(z) @ words, atol=1e-9)
    np.testing.assert_allclose(answers[:, 1], plain.logits(x)[:, 2], atol=1e-9)
    with pytest.raises(BadInput, match="class text of 9 has width 7, that of others 8"):
        head(key, text=text | {9: np.ones(7)}).fit(x, y)


@pytest.mark.paper(10, oracle="c")
def test_the_penalty_does_not_sway_the_first_step(case: Any) -> None:
    x, y, text, _ = case
    first = [head("prolip", text=text, reg=reg, epochs=1).fit(x, y).state_["change"] for reg in (0.0, 100.0)]
    torch.testing.assert_close(*first)
    later = [head("prolip", text=text, reg=reg, lr=1e-2).fit(x, y).state_["change"] for reg in (0.0, 100.0)]
    assert later[1].norm() < 0.5 * later[0].norm()


@pytest.mark.paper(10, oracle="d")
def test_turning_what_is_before_the_projection_changes_nothing(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, text, _ = case
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(12, 12)))[0]
    monkeypatch.setattr("handful.adapt.prolip.Adam", lambda eps: SGD(momentum=0.0))  # Adam is not blind to a turn

    def logits(h: np.ndarray) -> Any:
        items = Features(x.x, {"pre": h})
        return head("prolip", text=text, lr=1e-3, epochs=20, logit_scale=10.0).fit(items, y).logits(items)

    np.testing.assert_allclose(logits(x.views["pre"] @ turn), logits(x.views["pre"]), atol=1e-8)


@pytest.mark.paper(10, oracle="e")
def test_the_tuned_projection_gives_the_heads_logits(case: Any) -> None:
    x, y, text, start = case
    fitted = head("prolip", text=text, lr=1e-2, epochs=20).fit(x, y)
    moved = x.views["pre"] @ fitted.projection(torch.as_tensor(start)).numpy()
    zero_shot = head("zero-shot", text=text).fit(moved, y)
    np.testing.assert_allclose(fitted.logits(x), zero_shot.logits(moved), atol=1e-6)
    with pytest.raises(BadInput, match=r"not \(12, 8\)"):
        fitted.projection(torch.zeros(8, 12))


@pytest.mark.paper(10, oracle="f")
def test_equals_the_authors_code(golden: Any) -> None:
    inputs, expected = golden("prolip")
    views, labels = (torch.as_tensor(np.asarray(inputs[name])) for name in ("views", "labels"))
    h, query = views.flatten(0, 1), torch.as_tensor(np.asarray(inputs["query"]))
    start, text = (torch.as_tensor(np.asarray(inputs[name])) for name in ("projection", "text"))
    items = torch.arange(12).repeat(2)
    task = make_task(
        h @ start,
        labels.repeat(2),
        item=items,
        text=ClassText(text[:, None], torch.ones(4, 1, dtype=torch.bool)),
        views={"pre": h},
        query=Query(query @ start, views={"pre": query}),
    )
    made = head("prolip", epochs=inputs["epochs"], lr=inputs["lr"])
    with torch.no_grad():
        change = made.adapt(task)["change"]
    np.testing.assert_allclose(start + change, expected["projection"], atol=1e-7)
    np.testing.assert_allclose(made.logits(task), expected["logits"], atol=1e-5)


def test_training_explains_the_support(case: Any) -> None:
    x, y, text, _ = case
    fitted = head("prolip", text=text, lr=3e-2, reg=0.0, logit_scale=20.0).fit(x, y)
    assert (fitted.predict(x) == y).mean() > 0.95 > (head("zero-shot", text=text).fit(x.x, y).predict(x.x) == y).mean()
    strong = head("prolip", text=text, lr=1e-2, reg="1/K", epochs=50).fit(x, y).state_["change"].norm()
    assert strong < head("prolip", text=text, lr=1e-2, reg="1/K2", epochs=50).fit(x, y).state_["change"].norm()


def test_a_rate_falls_after_its_warm_up() -> None:
    flat, climbing = cosine(1.0, 10, warmup=4, warmup_lr=0.1), cosine(1.0, 10, warmup=4, warmup_lr=0.1, climb=True)
    assert [flat(step) for step in range(5)] == [0.1, 0.1, 0.1, 0.1, 1.0]
    assert [climbing(step) for step in range(5)] == [0.1, 0.25, 0.5, 0.75, 1.0]
    assert flat(14) == pytest.approx(0.0)
    assert cosine(1.0, 10, last=0.2)(10) == pytest.approx(0.2)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_optimisers_are_those_of_torch(decay: float) -> None:
    from handful.core.train import Adam

    matrix = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def losses(parameters: list[torch.Tensor], _: torch.Tensor) -> torch.Tensor:
        return (matrix @ parameters[0] - 1).square().sum()

    pairs = [
        (Adam(weight_decay=decay), lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=decay)),
        (SGD(0.9, decay), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=decay)),
    ]
    for ours, theirs in pairs:
        free = torch.zeros(4, dtype=torch.float64, requires_grad=True)
        optimiser = theirs([free])
        rates = [0.01, 0.005, 0.02]
        for rate in rates:
            optimiser.param_groups[0]["lr"] = rate
            optimiser.zero_grad()
            losses([free], matrix).backward()
            optimiser.step()
        found = descend([torch.zeros(4, dtype=torch.float64)], losses, torch.arange(3), lambda i, r=rates: r[i], ours)
        torch.testing.assert_close(found[0], free.detach())


@pytest.mark.parametrize("bad", [{"reg": "1/n"}, {"reg": -1.0}, {"epochs": -1}, {"lr": -1.0}], ids=str)
def test_parameters_that_make_no_sense_are_refused(case: Any, bad: dict[str, Any]) -> None:
    x, y, text, _ = case
    with pytest.raises(BadInput, match=f"^{next(iter(bad))} "):
        head("prolip", text=text, **bad).fit(x, y)


def test_features_that_do_not_fit_are_refused(case: Any) -> None:
    x, y, text, _ = case
    with pytest.raises(BadInput, match="view 'pre'"):
        head("prolip", text=text).fit(x.x, y)
    with pytest.raises(BadInput, match="take 'linear-adapter'"):
        head("prolip", text=text).fit(Features(x.x / np.linalg.norm(x.x, axis=1, keepdims=True), x.views), y)
    with pytest.raises(BadInput, match=r"view 'pre' holds numbers \[n, d\]"):
        head("prolip", text=text).fit(Features(x.x, {"pre": x.views["pre"][:, 0]}), y)
    with pytest.raises(BadInput, match="view 'pre' has width 8, but ProLIP knows 12"):
        head("prolip", text=text, epochs=1).fit(x, y).predict(Features(x.x, {"pre": x.x}))
    aligned = Features(x.x, {**x.views, "aligned": x.x[:, :5]})
    with pytest.raises(BadInput, match="class text has width 5"):
        head("prolip", text={c: v[:5] for c, v in text.items()}).fit(aligned, y)
