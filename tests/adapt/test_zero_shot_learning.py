"""The heads of paper 202: classes by their signatures, also those that have no examples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import solve_sylvester
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

from handful.adapt import head
from handful.adapt.base import Features
from handful.adapt.bilinear import sylvester
from handful.adapt.compatibility import LATEM
from handful.adapt.mixtures import intersections, proportions
from handful.adapt.ranking import Ranking
from handful.core.column_regression import fit_columns
from handful.core.task import ClassText, Query, make_task
from handful.errors import BadInput
from handful.evaluate.generalised import gzsl_scores, per_class_accuracy
from handful.ship.model import Model

RANKING = ("devise", "ale", "sje", "latem")
PARAMS: dict[str, dict[str, Any]] = {
    "devise": {"epochs": 10},
    "ale": {"epochs": 10},
    "sje": {"epochs": 10},
    "latem": {"epochs": 12, "n_matrices": 2, "prune_every": 0, "lr": 0.05},
    "eszsl": {},
    "sae": {},
    "dap": {},
    "iap": {},
    "conse": {},
    "sse": {"steps": 60, "lr": 0.05},
    "sync": {},
    "cmt": {"steps": 100},
    "gfzsl": {},
}
KEYS = tuple(PARAMS)
LEAST = {"iap": 0.9, "conse": 0.9, "sse": 0.8, "sync": 0.9}
"""What has to be right on classes without examples, where it is less than 0.95: these are no linear models."""


class World:
    """Classes whose items lie around a linear image of their signatures; the last six have no examples."""

    def __init__(self, *, seen: int = 24, width: int = 8, shots: int = 8, binary: bool = False, seed: int = 1) -> None:
        draw = np.random.default_rng(seed)
        s = draw.normal(size=(seen + 6, width))
        if binary:
            s = (((draw.permutation(2**width - 1)[: seen + 6] + 1)[:, None] >> np.arange(width)) & 1).astype(float)
        self.text = {f"c{c:02d}": row / np.linalg.norm(row) for c, row in enumerate(s)}
        names = np.array([*self.text])
        y = np.repeat(np.arange(seen + 6), shots)
        x = np.stack([*self.text.values()])[y] @ draw.normal(size=(width, 20)) + 0.1 * draw.normal(size=(len(y), 20))
        self.seen, self.unseen = names[:seen].tolist(), names[seen:].tolist()
        self.x, self.y, self.new, self.true = x[y < seen], names[y[y < seen]], x[y >= seen], names[y[y >= seen]]

    def fitted(self, key: str, **params: Any) -> Any:
        return head(key, text=self.text, **{**PARAMS[key], **params}).fit(self.x, self.y)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def fitted(world: World) -> Callable[[str], Any]:
    """Every head fitted once."""
    made: dict[str, Any] = {}
    return lambda key: made.setdefault(key, world.fitted(key))


# --- every head -----------------------------------------------------------------------------------------------------


@pytest.mark.paper(202, oracle="c")
@pytest.mark.parametrize("key", KEYS)
def test_classes_without_examples_are_recognised(key: str, world: World, fitted: Callable[[str], Any]) -> None:
    answers = fitted(key).predict(world.new, classes=world.unseen)
    assert per_class_accuracy(world.true, answers) > LEAST.get(key, 0.95)


@pytest.mark.paper(202, oracle="c", part="dap")
def test_binary_attributes_are_learnt_one_by_one() -> None:
    world = World(binary=True)
    for threshold in (0.0, "mean"):
        answers = world.fitted("dap", threshold=threshold).predict(world.new, classes=world.unseen)
        assert per_class_accuracy(world.true, answers) > 0.95


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.paper(202, oracle="e")
@pytest.mark.paper(202, oracle="d")
@pytest.mark.parametrize("key", KEYS)
def test_seen_and_unseen_classes_are_judged_apart(key: str, world: World, fitted: Callable[[str], Any]) -> None:
    made = fitted(key)
    x, y = np.concatenate([world.x, world.new]), np.concatenate([world.y, world.true])
    blind = gzsl_scores(y, made.predict(x), world.seen)
    assert blind.U == blind.H == 0 and blind.S > 0.7
    free = made.predict(x, classes=[*world.text])
    both = gzsl_scores(y, free, world.seen)
    assert pytest.approx(balanced_accuracy_score(world.true, free[len(world.y) :])) == both.U
    assert pytest.approx(balanced_accuracy_score(world.y, free[: len(world.y)])) == both.S
    swapped = gzsl_scores(y, free, world.unseen)
    assert (swapped.U, swapped.S) == (both.S, both.U) and pytest.approx(both.H) == swapped.H


@pytest.mark.parametrize("key", [*KEYS, "zero-shot"])
def test_a_saved_head_answers_for_classes_it_has_never_seen(key: str, world: World, tmp_path: Path) -> None:
    params: dict[str, Any] = {"epochs": 1} if key in RANKING else {}
    made = head(key, text=world.text, **params)
    x = Features(world.x[:60], {"aligned": world.x[:60, :8]}) if key == "zero-shot" else world.x[:60]
    new = Features(world.new, {"aligned": world.new[:, :8]}) if key == "zero-shot" else world.new
    made.fit(x, world.y[:60])
    assert made.unseen_.tolist() == sorted(set(world.text) - set(world.y[:60]))
    Model(made, None, "", 1.0).save(tmp_path / "model.handful")
    again = Model.load(tmp_path / "model.handful")
    wanted = [*world.unseen, world.seen[0]]
    assert again.head.predict(new, classes=wanted).tolist() == made.predict(new, classes=wanted).tolist()
    if key != "zero-shot":
        assert again.predict(new, classes=wanted) == made.predict(new, classes=wanted).tolist()
        np.testing.assert_allclose(again.predict_proba(new, wanted), made.predict_proba(new, wanted), atol=1e-9)


@pytest.mark.parametrize("key", KEYS)
def test_a_task_may_have_classes_without_examples(key: str, world: World) -> None:
    params: dict[str, Any] = {**PARAMS[key], **({"epochs": 2} if key in RANKING else {})}
    codes = torch.as_tensor(np.searchsorted([*world.text], world.y))
    text = torch.as_tensor(np.stack([*world.text.values()]))[:, None]
    x, new = torch.as_tensor(world.x), torch.as_tensor(world.new)
    task = make_task(
        x, codes, ways=30, text=ClassText(text, torch.ones(30, 1, dtype=torch.bool)), query=Query(new), seed=0
    )
    fitted = head(key, text=world.text, **params).fit(world.x, world.y)
    np.testing.assert_allclose(
        np.asarray(head(key, **params).logits(task)), fitted.logits(world.new, [*world.text]), atol=1e-6, rtol=1e-6
    )


# --- choosing among classes -----------------------------------------------------------------------------------------


def test_classes_are_columns_in_the_order_they_are_asked_for(world: World, fitted: Callable[[str], Any]) -> None:
    made = fitted("eszsl")
    everything = made.logits(world.new, [*world.text])
    np.testing.assert_allclose(made.logits(world.new), everything[:, :24], atol=1e-12)
    np.testing.assert_allclose(made.logits(world.new, ["c29", "c03"]), everything[:, [29, 3]], atol=1e-12)
    p = made.predict_proba(world.new, np.array(world.unseen))
    assert p.shape == (48, 6) and np.allclose(p.sum(1), 1)


def test_other_heads_choose_among_the_classes_they_have(world: World) -> None:
    made = head("logistic").fit(world.x, world.y)
    assert set(made.predict(world.x, classes=["c01", "c00"])) == {"c00", "c01"}
    np.testing.assert_array_equal(made.logits(world.x, ["c05", "c01"]), made.logits(world.x)[:, [5, 1]])
    with pytest.raises(BadInput, match="class 'c29' is not known: head 'logistic' learns from examples only"):
        made.predict(world.x, classes=["c00", "c29"])


def test_what_cannot_be_answered_is_refused(world: World, fitted: Callable[[str], Any]) -> None:
    made = fitted("eszsl")
    with pytest.raises(BadInput, match="class 'zebra' is not known: give its class text"):
        made.predict(world.new, classes=["c00", "zebra"])
    for classes in ([], ["c00", "c00"], "c00"):
        with pytest.raises(BadInput, match="different labels"):
            made.predict(world.new, classes=classes)
    with pytest.raises(BadInput, match="no class text for c05"):
        head("eszsl", text={c: v for c, v in world.text.items() if c != "c05"}).fit(world.x, world.y)
    with pytest.raises(BadInput, match="same signature"):
        head("eszsl", text=dict.fromkeys(world.text, np.ones(3))).fit(world.x, world.y)
    with pytest.raises(BadInput, match="-1 beside values above 1"):
        percent = {c: np.where(v < 0, -1, np.round(100 * v)) for c, v in world.text.items()}
        head("eszsl", text=percent).fit(world.x, world.y)
    with pytest.raises(BadInput, match="-1 beside values above 1"):
        percent = {c: np.abs(np.round(100 * v)) for c, v in world.text.items()}
        percent[world.unseen[0]][0] = -1
        head("eszsl", text=percent).fit(world.x, world.y)
    with pytest.raises(BadInput, match="width"):
        head("eszsl", text={**world.text, "c29": np.ones(3)}).fit(world.x, world.y)


def test_a_state_without_the_labels_of_its_unseen_classes_is_refused(fitted: Callable[[str], Any]) -> None:
    made = fitted("eszsl")
    made.check_state()
    for unseen in (None, made.unseen_[:2]):
        again = type(made).restore(made.parameters(), made.classes_, made.state_, made.n_features_in_, unseen)
        with pytest.raises(BadInput, match="unseen"):
            again.check_state()


BAD: list[tuple[str, dict[str, Any]]] = [
    ("devise", {"lr": 0.0}),
    ("ale", {"margin": -1.0}),
    ("sje", {"epochs": -1}),
    ("devise", {"metric": "l2"}),
    ("latem", {"n_matrices": 0}),
    ("latem", {"keep": 2.0}),
    ("latem", {"prune_every": -1}),
    ("eszsl", {"alpha": float("nan")}),
    ("eszsl", {"scaling": "l2"}),
    ("sae", {"lam": 0.0}),
    ("sae", {"space": "semantic"}),
    ("dap", {"C": 0.0}),
    ("iap", {"threshold": "median"}),
    ("conse", {"top": 0}),
    ("sse", {"reg": 0.0}),
    ("sync", {"sigma": 0.0}),
    ("cmt", {"novelty": 2.0}),
    ("cmt", {"hidden": 0}),
    ("gfzsl", {"kernel": "poly"}),
    ("gfzsl", {"ridge": 0.0}),
]


@pytest.mark.parametrize(("key", "params"), BAD, ids=lambda value: str(value))
def test_parameters_that_make_no_sense_are_refused(key: str, params: dict[str, Any], world: World) -> None:
    with pytest.raises(BadInput, match=rf"^{next(iter(params))}\b"):
        head(key, text=world.text, **params).fit(world.x, world.y)


# --- the authors' numbers and the formulas --------------------------------------------------------------------------


class TestGolden:
    """Numbers of the reference."""

    @pytest.fixture
    def case(self, golden: Any) -> tuple[Any, Any]:
        given, want = golden("zero_shot")
        return {name: np.array(value) for name, value in given.items()}, want

    def fit(self, given: Any, key: str, **params: Any) -> Any:
        return head(key, text=dict(enumerate(given["signatures"])), **params).fit(given["x"], given["y"])

    @pytest.mark.paper(202, oracle="a", part="eszsl")
    def test_eszsl(self, case: tuple[Any, Any]) -> None:
        given, want = case[0], case[1]["eszsl"]
        made = self.fit(given, "eszsl", alpha=float(want["alpha"]), gamma=float(want["gamma"]))
        np.testing.assert_allclose(made.state_["weight"].numpy(), want["weight"], atol=1e-9)
        np.testing.assert_allclose(made.logits(given["queries"], range(9)), want["scores"], atol=1e-9)

    @pytest.mark.paper(202, oracle="b", part="sae")
    @pytest.mark.parametrize("space", ["feature", "signature"])
    def test_sae(self, case: tuple[Any, Any], space: str) -> None:
        given, want = case[0], case[1]["sae"]
        made = self.fit(given, "sae", lam=want["lam"], space=space, logit_scale=1.0)
        np.testing.assert_allclose(made.state_["weight"].numpy(), want["weight"], atol=1e-6)
        np.testing.assert_allclose(made.logits(given["queries"], range(9)), want[space], atol=1e-6)
        made.row_normalize = False
        assert np.abs(made.logits(given["queries"], range(9)) - want[space]).max() > 1e-3

    @pytest.mark.parametrize("key", ["devise", "ale", "sje"])
    def test_updates_row_by_row(self, case: tuple[Any, Any], key: str) -> None:
        given, want = case[0], case[1][key]
        made = head(key, lr=want["lr"])
        assert isinstance(made, Ranking)
        x, y, s = (torch.as_tensor(given[name]) for name in ("x", "y", "signatures"))
        s = s[:6]
        w, alive = torch.as_tensor(given["start"])[None].clone(), torch.ones(1, dtype=x.dtype)
        wrong = ~torch.nn.functional.one_hot(y, 6).to(torch.bool)
        drawn = (torch.as_tensor(given["draws"]) + 0.5) / 5
        for at, i in enumerate([*given["order"], *given["order"]]):
            made.step(s, w, alive, (x[i], y[i], torch.tensor(1.0), wrong[i]), drawn[at])
        np.testing.assert_allclose(w[0].numpy(), want["weight"], atol=1e-9)


@pytest.mark.paper(202, oracle="a", part="eszsl")
def test_eszsl_is_where_the_gradient_is_zero(world: World) -> None:
    made = world.fitted("eszsl", alpha=0.5, gamma=-1.0)
    x, y = world.x, (world.y[:, None] == np.array(world.seen)).astype(float)
    s = np.stack([world.text[c] for c in world.seen])
    a, g = 10**0.5, 10**-1.0

    def gradient(w: np.ndarray) -> np.ndarray:
        """Of |XWS' - Y|^2 + g |XW|^2 + a |WS'|^2 + a g |W|^2, halved."""
        return x.T @ (x @ w @ s.T - y) @ s + g * x.T @ x @ w + a * w @ s.T @ s + a * g * w

    w = made.state_["weight"].numpy()
    assert np.abs(gradient(w)).max() < 1e-6 < np.abs(gradient(1.01 * w)).max()
    left = np.linalg.solve(x.T @ x + a * np.eye(20), x.T @ y @ s)
    np.testing.assert_allclose(w, np.linalg.solve(s.T @ s + g * np.eye(8), left.T).T, atol=1e-9)


@pytest.mark.paper(202, oracle="b", part="sae")
def test_sae_solves_its_equation(world: World) -> None:
    lam = 0.7
    w = world.fitted("sae", lam=lam).state_["weight"].numpy()
    x = world.x / np.linalg.norm(world.x, axis=1, keepdims=True)
    s = np.stack([world.text[c] for c in world.y])
    a, b, c = s.T @ s, lam * x.T @ x, (1 + lam) * s.T @ x
    assert np.abs(a @ w + w @ b - c).max() < 1e-8
    np.testing.assert_allclose(w, solve_sylvester(a, b, c), atol=1e-8)


def test_sylvester_where_there_are_fewer_rows_than_features() -> None:
    draw = torch.Generator().manual_seed(0)
    x, s = (torch.randn(3, 5, d, generator=draw, dtype=torch.float64) for d in (30, 8))
    a, b, c = s.mT @ s, x.mT @ x, s.mT @ x
    w = sylvester(a, b, c)
    torch.testing.assert_close(a @ w + w @ b, c, atol=1e-8, rtol=0)
    assert w.isfinite().all() and float(w.abs().max()) < 10


def test_eszsl_leaves_items_out_in_closed_form(world: World) -> None:
    made = head("eszsl", text=world.text, alpha=0.0).fit(world.x, world.y)
    assert made.spread(world.x, world.y) != 1.0
    text = torch.as_tensor(np.stack([world.text[c] for c in world.seen]))[:, None]
    signatures = ClassText(text, torch.ones(24, 1, dtype=torch.bool))
    x, codes = torch.as_tensor(world.x), torch.as_tensor(np.searchsorted(world.seen, world.y))
    for scaling in ("none", "unit"):
        made = head("eszsl", alpha=0.0, scaling=scaling)
        left_out = made.leave_one_out(make_task(x, codes, ways=24, text=signatures))
        assert left_out is not None
        for i in (0, 100):
            rest = torch.arange(len(x)) != i
            task = make_task(x[rest], codes[rest], ways=24, text=signatures, query=Query(x[i : i + 1]))
            torch.testing.assert_close(left_out[i : i + 1], made.logits(task))


def test_ale_weighs_a_violation_by_the_rank_it_estimates() -> None:
    gap, wrong = torch.tensor([-1.0, 9.0, 1.0, 2.0, -1.0, -1.0]), torch.tensor([1, 0, 1, 1, 1, 1]).bool()
    ale = head("ale")
    assert isinstance(ale, Ranking)
    # Wrong classes are 0, 2, 3, 4, 5; numbers from 0 to 1 draw them by fifths.
    for drawn, at, rank in (([0.3, 0, 0, 0, 0], 2, 5), ([0.1, 0.9, 0.5, 0, 0], 3, 1), ([0.0, 0.3, 0.3, 0, 0], 2, 2)):
        found, weight = ale.pick(gap, wrong, torch.tensor(drawn))
        assert int(found) == at and float(weight) == pytest.approx(sum(1 / j for j in range(1, rank + 1)))
    assert float(ale.pick(gap - 9, wrong, torch.rand(5))[1]) == 0
    few = torch.tensor([1, 0, 1, 0, 0, 0]).bool()  # of two wrong classes two draws are made, whatever comes after
    assert float(ale.pick(gap, few, torch.tensor([0.1, 0.2, 0.9, 0.9, 0.9]))[1]) == 0


def test_devise_takes_the_first_violator_and_sje_the_worst() -> None:
    gap, wrong = torch.tensor([9.0, -1.0, 1.0, 2.0]), torch.tensor([0, 1, 1, 1]).bool()
    for key, at in (("devise", 2), ("sje", 3)):
        made = head(key)
        assert isinstance(made, Ranking)
        found, weight = made.pick(gap, wrong, torch.empty(0))
        assert (int(found), float(weight)) == (at, 1)
        assert float(made.pick(gap - 9, wrong, torch.empty(0))[1]) == 0


def test_latem_drops_matrices_that_answer_for_few_and_one_matrix_is_linear(world: World) -> None:
    made = world.fitted("latem", n_matrices=6, epochs=10, prune_every=5, keep=0.2)
    alive = made.state_["alive"].numpy()
    assert 1 <= alive.sum() < 6
    w, s = made.state_["weight"].numpy()[alive > 0], np.stack([*world.text.values()])
    x = (world.new - made.state_["centre"].numpy()) / made.state_["spread"].numpy()
    want = np.einsum("nd,kdt,ct->knc", x, w, s).max(0)
    np.testing.assert_allclose(made.logits(world.new, [*world.text]), want, atol=1e-9)
    assert world.fitted("latem", n_matrices=1, epochs=5).state_["alive"].tolist() == [1.0]


def test_latem_moves_the_matrices_that_answered() -> None:
    draw = torch.Generator().manual_seed(0)
    s, w = torch.eye(3), torch.randn(2, 4, 3, generator=draw)
    x, y = torch.randn(4, generator=draw), 1
    f = x @ w  # [K, C]: with unit signatures the compatibilities themselves
    on = f.argmax(0)
    moved, wrong = w.clone(), torch.tensor([True, False, True])
    row = (x, torch.tensor(y), torch.tensor(1.0), wrong)
    assert LATEM(lr=0.1, margin=100.0).step(s, moved, torch.ones(2), row, torch.tensor([0.9]))  # class 2 is drawn
    want = w.clone()
    want[on[1], :, 1] += 0.1 * x
    want[on[2], :, 2] -= 0.1 * x
    torch.testing.assert_close(moved, want)


def test_dap_by_hand() -> None:
    text = {"a": [1.0, 0, 1], "b": [1.0, 1, 0], "c": [1.0, 0, 0], "d": [1.0, 1, 1]}
    draw = np.random.default_rng(0)
    y = np.array(list("abc") * 6)
    x = np.stack([text[c] for c in y]) @ draw.normal(size=(3, 5)) + 0.3 * draw.normal(size=(18, 5))
    made = head("dap", text=text, threshold=0.0, scaling="none").fit(x, y)
    np.testing.assert_allclose(made.state_["prior"].numpy(), [1, 1 / 3, 1 / 3])
    logits = np.zeros((18, 4))
    for m in (1, 2):  # all have the first
        p = LogisticRegression(tol=1e-8).fit(x, [text[c][m] for c in y]).predict_proba(x)[:, 1]
        has = np.array([text[c][m] for c in "abcd"])
        logits += np.where(has, np.log(3 * p[:, None]), np.log(1.5 * (1 - p[:, None])))
    np.testing.assert_allclose(made.logits(x, [*"abcd"]), logits, atol=1e-3)


def test_iap_by_hand(world: World, fitted: Callable[[str], Any]) -> None:
    made = fitted("iap")
    x = (world.new - world.x.mean(0)) / world.x.std(0)
    seen = LogisticRegression(tol=1e-8, max_iter=1000).fit((world.x - world.x.mean(0)) / world.x.std(0), world.y)
    s = np.stack([*world.text.values()])
    has = s > s[:24].mean(0)
    p = np.clip(seen.predict_proba(x) @ has[:24], 1e-6, 1 - 1e-6)
    prior = has[:24].mean(0)
    want = np.log(p / prior) @ has.T + np.log((1 - p) / (1 - prior)) @ (~has).T
    np.testing.assert_allclose(made.logits(world.new, [*world.text]), want, atol=0.05, rtol=0.01)


@pytest.mark.paper(202, oracle="f", part="conse")
def test_conse_with_one_class_is_the_class_nearest_to_it(world: World) -> None:
    made = world.fitted("conse", top=1)
    first = made.predict(world.new)  # the likeliest seen class is its own nearest
    s = np.stack([*world.text.values()])
    near = {c: world.unseen[int((s[24:] @ world.text[c]).argmax())] for c in world.seen}
    assert made.predict(world.new, classes=world.unseen).tolist() == [near[c] for c in first]
    x = [(a - world.x.mean(0)) / world.x.std(0) for a in (world.x, world.new)]
    plain = LogisticRegression(max_iter=1000).fit(x[0], world.y).predict(x[1])
    assert np.mean(first == plain) > 0.95


def test_sse_proportions_are_the_best_mixture() -> None:
    draw = torch.Generator().manual_seed(0)
    known = torch.randn(5, 12, generator=draw, dtype=torch.float64)
    share = torch.tensor([0.5, 0.0, 0.3, 0.2, 0.0], dtype=torch.float64)
    seen = torch.ones(5, dtype=torch.bool)
    z = proportions((share @ known)[None], known, seen, 1e-9)
    torch.testing.assert_close(z[0], share, atol=1e-4, rtol=0)
    far = proportions(torch.randn(3, 12, generator=draw, dtype=torch.float64), known, seen & (share != 0.3), 1e-2)
    assert far[:, 2].abs().max() == 0 and torch.allclose(far.sum(-1), torch.ones(3, dtype=torch.float64))


def test_sse_intersections() -> None:
    draw = torch.Generator().manual_seed(0)
    w, v, x = (torch.randn(*size, generator=draw, dtype=torch.float64) for size in ((2, 6), (2, 3, 6), (2, 4, 6)))
    want = (w[:, None, None] * torch.minimum(x[:, :, None], v[:, None])).sum(-1)
    torch.testing.assert_close(intersections(w, v, x), want)


def test_sync_answers_for_seen_classes_as_the_machines_it_mixes(world: World) -> None:
    made = world.fitted("sync", sigma=0.7)
    y = torch.as_tensor((world.y[:, None] == np.array(world.seen)).astype(float))
    x = torch.as_tensor((world.x - world.x.mean(0)) / world.x.std(0))
    w, _ = fit_columns(x, y, 1 - y, 1.0, loss="squared-hinge", intercept=False)
    np.testing.assert_allclose(made.logits(world.x), (x @ w.mT).numpy(), atol=1e-4)


def test_cmt_with_novelty_keeps_seen_and_unseen_classes_apart() -> None:
    world = World(shots=24)
    everything, half = [*world.text], np.arange(len(world.x)) % 2 == 0
    plain, star, every = (
        head("cmt", text=world.text, steps=100, novelty=share).fit(world.x[half], world.y[half])
        for share in (0.0, 0.1, 1.0)
    )
    fresh = world.x[~half]
    assert np.isin(star.predict(fresh, classes=everything), world.unseen).mean() == pytest.approx(0.1, abs=0.05)
    assert np.isin(star.predict(world.new, classes=everything), world.unseen).mean() > 0.8
    assert np.isin(every.predict(fresh, classes=everything), world.unseen).all()
    np.testing.assert_allclose(star.logits(fresh), plain.logits(fresh), atol=1e-9)  # nothing to rule out


def test_gfzsl_is_a_gaussian_with_predicted_mean_and_variances(world: World) -> None:
    made = world.fitted("gfzsl", scaling="none", ridge=1e-8, variance_ridge=1e-8, kernel="rbf")
    mean = np.stack([world.x[world.y == c].mean(0) for c in world.seen])
    square = np.stack([world.x[world.y == c].var(0) * 8 for c in world.seen])
    variance = (square + square.sum(0) / len(world.x)) / 9
    gap = world.x[:, None] - mean
    want = -0.5 * (np.log(variance) + gap**2 / variance).sum(-1)
    np.testing.assert_allclose(made.logits(world.x), want, rtol=1e-3, atol=1e-2)


def test_seen_classes_alone_teach(world: World) -> None:
    """A class without examples must not sway what is learnt, wherever it stands."""
    for key in KEYS:
        params = {**PARAMS[key], **({"epochs": 2} if key in RANKING else {"steps": 5} if key in ("cmt", "sse") else {})}
        few = {c: world.text[c] for c in world.seen}
        with_others = head(key, text=world.text, **params).fit(world.x, world.y)
        alone = head(key, text=few, **params).fit(world.x, world.y)
        np.testing.assert_array_equal(with_others.logits(world.x), alone.logits(world.x))


def test_ranking_is_a_batch_of_tasks_at_once() -> None:
    draw = torch.Generator().manual_seed(0)
    x, text = torch.randn(3, 12, 6, generator=draw), torch.randn(3, 4, 1, 5, generator=draw)
    labels = torch.arange(12).remainder(4).expand(3, -1)
    mask = torch.ones(3, 4, 1, dtype=torch.bool)
    task = make_task(x, labels, ways=4, text=ClassText(text, mask), query=Query(x))
    made = head("ale", epochs=3)
    together = made.logits(task)
    for i in range(3):
        alone = replace(
            task,
            **{name: getattr(task, name)[i] for name in ("support", "labels", "weight", "item", "class_mask")},
            text=ClassText(text[i], mask[i]),
            query=Query(x[i]),
        )
        torch.testing.assert_close(together[i], made.logits(alone), atol=1e-4, rtol=1e-5)
