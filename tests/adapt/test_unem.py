"""Paper 134: generalised EM, and its strengths learnt over tasks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from handful.adapt import head
from handful.adapt.em import DirichletRows, GaussianRows, generalized_em
from handful.adapt.unem import UNEM
from handful.adapt.unrolled import Layers, learn, load_reference_params
from handful.core.dirichlet import fit_dirichlet
from handful.core.softem import Rows
from handful.core.task import ClassText, Query, Task, make_task
from handful.errors import BadInput
from handful.protocols import Needs
from handful.testing import check_head

Golden = Callable[[str], tuple[dict[str, Any], Any]]


@dataclass(eq=False, repr=False, kw_only=True)
class Dirichlet(UNEM):
    """The family that needs class text, as a head that says so."""

    needs: ClassVar[Needs] = Needs(transductive=True, text=True)
    family: Any = "dirichlet"


def tasks(
    n: int, seed: int, *, ways: int = 8, some: int = 3, queries: int = 24, width: int = 20
) -> tuple[Task, Tensor]:
    """All classes in the support, some of them among the queries."""
    draw = torch.Generator().manual_seed(seed)
    centre = 3 * torch.randn(n, ways, width, generator=draw) / width**0.5
    labels = torch.arange(ways).repeat_interleave(2).expand(n, -1)
    present = torch.rand(n, ways, generator=draw).argsort(-1)[:, :some]
    answers = present.gather(1, torch.randint(some, (n, queries), generator=draw))

    def drawn(code: Tensor) -> Tensor:
        x = centre.gather(1, code[..., None].expand(-1, -1, width))
        return x + 0.8 * torch.randn(x.shape, generator=draw)

    return make_task(drawn(labels), labels, ways=ways, query=Query(drawn(answers))), answers


def with_text(golden: Golden) -> tuple[Task, Task, dict[str, Tensor]]:
    """The golden task times 3, and as cosines of unit rows and class text, as the authors' code got them."""
    inputs, expected = golden("unem")
    support, query, text = (torch.tensor(inputs[n], dtype=torch.float64) for n in ("support", "query", "text"))
    labels = torch.tensor(inputs["labels"]).expand(len(support), -1)
    cosines = [100 * torch.nn.functional.normalize(x, dim=-1) @ text.T for x in (support, query)]
    vectors = ClassText(text[:, None].expand(2, 3, 1, 12), torch.ones(2, 3, 1, dtype=torch.bool))
    gaussian = make_task(3 * support, labels, query=Query(3 * query))
    dirichlet = make_task(support, labels, text=vectors, prior=cosines[0], query=Query(query, cosines[1]))
    more = {name: torch.tensor(value, dtype=torch.float64) for name, value in expected.items()}
    return gaussian, dirichlet, more | {"mean_log": torch.tensor(inputs["mean_log"], dtype=torch.float64)}


def softplus(x: float) -> float:
    return float(torch.nn.functional.softplus(torch.tensor(x, dtype=torch.float64)))


def test_numbers_are_those_of_the_authors(golden: Golden) -> None:
    gaussian, dirichlet, expected = with_text(golden)
    two, third = softplus(2.0), 1 + softplus(0.3)
    cases = [
        ("gaussian", gaussian, UNEM(n_iter=4, lam=two, temperature=third, feature_temperature=softplus(0.5))),
        ("paddle", gaussian, UNEM.paddle(10.0).set_params(n_iter=20)),
        ("dirichlet", dirichlet, UNEM(family="dirichlet", n_iter=3, lam=two)),
        ("em_dirichlet", dirichlet, UNEM.em_dirichlet(1).set_params(n_iter=5, lam=2.0)),
    ]
    for name, task, solver in cases:
        got = torch.as_tensor(solver.logits(task)).softmax(-1)
        torch.testing.assert_close(got, expected[name], atol=1e-5, rtol=0, msg=name)


@pytest.mark.paper(134, oracle="a")
def test_the_dirichlet_fit_is_the_most_likely_one(golden: Golden) -> None:
    _, _, expected = with_text(golden)
    y = expected["mean_log"]
    a = fit_dirichlet(y, torch.ones_like(y), torch.ones_like(y, dtype=torch.bool))
    torch.testing.assert_close(a, expected["alpha"], atol=1e-6, rtol=0)
    gradient = torch.digamma(a) - torch.digamma(a.sum(-1, keepdim=True))
    torch.testing.assert_close(gradient, y, atol=1e-3, rtol=0)
    minka = torch.ones_like(y)
    for _ in range(3000):  # his fixed point: psi(a) = psi(sum a) + y, solved by Newton's steps
        goal, a_new = torch.digamma(minka.sum(-1, keepdim=True)) + y, minka
        for _ in range(5):
            a_new = (a_new - (torch.digamma(a_new) - goal) / torch.polygamma(1, a_new)).clamp_min(1e-3)
        minka = a_new
    torch.testing.assert_close(a, minka, rtol=1e-3, atol=1e-3)
    single = fit_dirichlet(y.float(), torch.ones_like(y).float(), torch.ones_like(y, dtype=torch.bool))
    torch.testing.assert_close(single.double(), a, rtol=5e-3, atol=1e-4)


@pytest.mark.paper(134, oracle="b")
def test_without_penalty_it_is_soft_k_means_with_the_labels_held() -> None:
    task, _ = tasks(1, 0)
    assert task.query is not None
    s, q, y = task.support[0].double(), task.query.x[0].double(), task.labels[0].double()
    w = (y.T @ s) / y.sum(0)[:, None]
    for _ in range(6):
        u = torch.stack([(-0.5 * (row - w).square().sum(-1)).softmax(-1) for row in q])
        w = (y.T @ s + u.T @ q) / (y.sum(0) + u.sum(0))[:, None]
    got = UNEM.k_means().set_params(n_iter=6).logits(make_task(s, y, query=Query(q)))
    torch.testing.assert_close(torch.as_tensor(got).softmax(-1), u, atol=1e-6, rtol=0)
    hard = UNEM.k_means(hard=True)
    logits, state = hard.move(hard.start(make_task(s, y)), Query(q))
    assert logits.isfinite().all()
    assert state["theta"].shape == w.shape


@pytest.mark.paper(134, oracle="b")
def test_hard_assignments_begin_after_the_first_iteration(golden: Golden) -> None:
    """The first classes are fitted to the queries' own probabilities, the second to the classes that follow."""
    _, task, _ = with_text(golden)
    assert task.query is not None
    soft, once = (UNEM.em_dirichlet(3, hard=hard).set_params(n_iter=1) for hard in (False, True))
    first = torch.as_tensor(soft.logits(task))
    torch.testing.assert_close(torch.as_tensor(once.logits(task)), first)
    u = torch.nn.functional.one_hot(first.argmax(-1), 3).double()
    support, q = (
        ((30 / 100 * prior).softmax(-1) + 1e-15).log() for prior in (task.offset, task.query.prior) if prior is not None
    )
    y = torch.cat([task.labels, u], -2)
    mean = y.mT @ torch.cat([support, q], -2) / y.sum(-2)[..., None]
    a = fit_dirichlet(mean, torch.ones_like(mean), torch.ones_like(mean, dtype=torch.bool))
    density = (a.sum(-1).lgamma() - a.lgamma().sum(-1))[:, None] + q @ (a - 1).mT
    want = density + (u.mean(-2, keepdim=True) + 1e-15).log()
    twice = UNEM.em_dirichlet(3, hard=True).set_params(n_iter=2)
    got = torch.as_tensor(twice.logits(task)).softmax(-1)
    torch.testing.assert_close(got, want.softmax(-1), atol=1e-5, rtol=0)


@pytest.mark.paper(134, oracle="c")
def test_a_large_penalty_leaves_one_class_and_a_hot_softmax_all() -> None:
    task, _ = tasks(5, 1)
    one = torch.as_tensor(UNEM(lam=1e4, temperature=1.0).logits(task)).argmax(-1)
    assert all(len(set(row.tolist())) == 1 for row in one)
    flat = torch.as_tensor(UNEM(lam=0.0, temperature=1e9).logits(task)).softmax(-1)
    torch.testing.assert_close(flat, torch.full_like(flat, 1 / 8))


@pytest.mark.paper(134, oracle="d")
def test_layers_are_the_iterations_and_gradients_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handful.core.dirichlet.MOST", 60)
    task, _ = tasks(2, 2, ways=3, some=2, queries=5, width=4)
    task = make_task(task.support.double(), task.labels.double(), query=Query(task.query.x.double()))  # type: ignore[union-attr]
    layers = Layers(torch.full((2,), 0.7), torch.full((2,), 0.2), torch.tensor(0.4))
    solver = UNEM(n_iter=2)
    plain = layers.onto(solver)
    assert plain.lam == pytest.approx([softplus(0.7)] * 2)
    torch.testing.assert_close(
        layers.forward(solver, task).mT, torch.as_tensor(plain.logits(task)).softmax(-1), atol=1e-6, rtol=0
    )
    z = torch.cat([task.support, task.query.x], -2)  # type: ignore[union-attr]
    real = torch.ones(2, 5, dtype=torch.bool)

    def gaussian(lam: Tensor, t: Tensor, scale: Tensor) -> Tensor:
        return generalized_em(GaussianRows(Rows.of(z), scale), task.y, real, lam, t, eps=1e-6)[0].softmax(-2)

    def dirichlet(lam: Tensor, t: Tensor) -> Tensor:
        model = DirichletRows(z[:1].log_softmax(-1), torch.ones(1, 1, 4, dtype=torch.bool))
        return generalized_em(model, task.y[:1], real[:1], lam, t, eps=1e-15)[0].softmax(-2)

    strengths = [torch.tensor([0.5, 1.5], dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(gaussian, (*strengths, torch.tensor(1.2, dtype=torch.float64, requires_grad=True)))
    assert torch.autograd.gradcheck(dirichlet, tuple(strengths), atol=1e-4)


@pytest.mark.paper(134, oracle="e")
def test_learnt_strengths_are_as_good_as_the_best_of_a_grid() -> None:
    (train, answers), (test, truth) = tasks(60, 0), tasks(150, 1)

    def right(solver: UNEM) -> float:
        return float((torch.as_tensor(solver.logits(test)).argmax(-1) == truth).double().mean())

    grid = [
        right(UNEM(lam=float(lam), per_query=True, temperature=1.0, feature_temperature=1.0))
        for lam in (0, 5, 10, 25, 50, 75, 100, 150, 200)
    ]
    learnt = learn(UNEM(), [train], [answers], epochs=60)
    assert right(learnt) >= max(grid) - 0.003
    assert learnt.lam != UNEM().lam
    assert len(learnt.temperature) == 10  # type: ignore[arg-type]


def test_the_contract_holds_for_the_other_family_and_the_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handful.core.dirichlet.MOST", 60)
    check_head(Dirichlet(n_iter=2))
    check_head(UNEM.paddle().set_params(n_iter=5))
    check_head(UNEM(n_iter=3, lam=[0.5, 1.0, 2.0]))


def test_probabilities_are_enough_for_the_dirichlet_family() -> None:
    draw = np.random.default_rng(0)
    x, y = draw.dirichlet([12, 2, 1], 6), np.repeat([0, 1], 3)
    x[3:] = x[3:, ::-1]
    fitted = UNEM(family="dirichlet").fit(x, y)
    assert (fitted.predict(x) == y).all()
    assert fitted.frozen(x).predict_proba(x[:1]).shape == (1, 2)
    with pytest.raises(BadInput, match="row 0 is no probability vector"):
        UNEM(family="dirichlet").fit(x + 1, y)


def test_the_dirichlet_family_learns_too(golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handful.core.dirichlet.MOST", 60)
    _, task, _ = with_text(golden)
    truth = torch.as_tensor(UNEM.em_dirichlet(1).logits(task)).argmax(-1)
    learnt = learn(UNEM(family="dirichlet", n_iter=2), [task], [truth], epochs=2, per_layer=False)
    assert learnt.feature_temperature != 30.0
    assert len(set(learnt.lam)) == 1  # type: ignore[arg-type]


def test_files_of_the_authors_are_read(tmp_path: Path) -> None:
    values = {f"gamma.{i}": torch.tensor(0.1 * i) for i in range(3)} | {f"t2.{i}": torch.tensor(1.0) for i in range(3)}
    torch.save({**values, "t1": torch.tensor(0.5)}, tmp_path / "good.pt")
    got = load_reference_params(UNEM(n_iter=3), tmp_path / "good.pt")
    assert got.lam == pytest.approx([softplus(0.1 * i) for i in range(3)])
    assert got.feature_temperature == pytest.approx(softplus(0.5))
    with pytest.raises(BadInput, match="10 iterations"):
        load_reference_params(UNEM(), tmp_path / "good.pt")
    (tmp_path / "bad.pt").write_bytes(b"nothing")
    with pytest.raises(BadInput, match="no learnt parameters"):
        load_reference_params(UNEM(), tmp_path / "bad.pt")


def test_what_makes_no_sense_is_refused() -> None:
    task, answers = tasks(1, 0)
    for params, match in (
        ({"temperature": 0.5}, "temperature"),
        ({"lam": -1.0}, "lam"),
        ({"lam": [1.0]}, "10 iterations"),
        ({"k_eff": 9}, "only 8"),
        ({"family": "cauchy"}, "family"),
        ({"lam": "much"}, "lam"),
        ({"feature_temperature": "hot"}, "feature_temperature is one of 'auto'"),
    ):
        with pytest.raises(BadInput, match=match):
            head("unem", **params).logits(task)
    with pytest.raises(BadInput, match="answers of shape"):
        learn(UNEM(), [task], [answers[:, 1:]])
    with pytest.raises(BadInput, match="lr must be"):
        learn(UNEM(), [task], [answers], lr=0.0)
    assert learn(UNEM(n_iter=2), [task], [answers], epochs=0).lam == pytest.approx([softplus(1.0)] * 2)
    with pytest.raises(BadInput, match="one each"):
        learn(UNEM(), [task], [])
    with pytest.raises(BadInput, match="queries"):
        learn(UNEM(), [make_task(task.support, task.labels)], [answers])
