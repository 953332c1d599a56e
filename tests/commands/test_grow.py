"""`grow` adds classes to a model file, and says what is known of new and old ones."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import handful
from handful.commands.evaluate import SeenBefore
from handful.commands.fit import fit
from handful.commands.grow import grow
from handful.errors import BadInput
from handful.ship.model import Model

OLD, NEW = ("crow", "dove", "emu"), ("finch", "bat")


def items(classes: tuple[str, ...], shots: int, seed: int) -> tuple[np.ndarray, list[str]]:
    draw = np.random.default_rng(seed)
    centre = {name: np.random.default_rng(ord(name[0])).normal(size=16) for name in (*OLD, *NEW)}
    labels = [name for name in classes for _ in range(shots)]
    return np.stack([centre[name] + 0.4 * draw.normal(size=16) for name in labels]), labels


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of features of three classes."""
    out = tmp_path_factory.mktemp("grow") / "old.handful"
    fit(*items(OLD, 6, 0), head="teen", out=out)
    return out


def test_a_grown_model_is_a_file_that_says_where_it_comes_from(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "new.handful"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    grown = handful.grow(path, items(NEW, 4, 1), out=out)
    again = Model.load(out)
    x, labels = items((*OLD, *NEW), 20, 2)
    assert again.classes == tuple(sorted((*OLD, *NEW)))
    assert np.array_equal(again.predict_proba(x), grown.predict_proba(x))
    assert np.mean(np.array(again.predict(x)) == labels) > 0.9
    step = again.card["grown"][0]
    assert step["from"] == digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert step["classes"] == [{"name": "bat", "count": 4}, {"name": "finch", "count": 4}]
    assert step["when"].endswith("+00:00")
    assert again.card["task"]["n"] == 26
    assert {row["name"]: row["count"] for row in again.card["task"]["classes"]}["crow"] == 6
    assert again.card["estimate"]["accuracy"] is None
    again.report(tmp_path / "r.html")


def test_it_may_grow_again(path: Path) -> None:
    new, labels = items(NEW, 4, 1)
    once = grow(path, (new[:4], labels[:4]))
    twice = grow(once, (new[4:], labels[4:]))
    together = grow(path, (new, labels))
    x, _ = items((*OLD, *NEW), 5, 2)
    np.testing.assert_allclose(twice.predict_proba(x), together.predict_proba(x), atol=1e-6)
    assert [len(step["classes"]) for step in twice.card["grown"]] == [1, 1]
    assert Model.load(path).classes == OLD and once.classes != twice.classes


def test_new_classes_are_judged_by_leaving_their_examples_out(path: Path) -> None:
    x, labels = items(NEW, 4, 1)
    judged = grow(path, (x, labels)).card["grown"][0]["judged"]
    right = []
    for i, label in enumerate(labels):
        rest = [k for k in range(len(x)) if k != i]
        without = grow(path, (x[rest], [labels[k] for k in rest]))
        right.append(without.predict(x[[i]])[0] == label)
    assert judged["n"] == 8
    assert judged["novel"]["value"] == pytest.approx(np.mean(right))
    alone = grow(path, items(NEW, 1, 1)).card["grown"][0]["judged"]
    assert alone["novel"] is None and "second example" in alone["method"]


def test_copies_do_not_judge_each_other(path: Path) -> None:
    x, labels = items(NEW, 1, 1)
    judged = grow(path, (np.repeat(x, 3, axis=0), np.repeat(labels, 3).tolist())).card["grown"][0]["judged"]
    assert judged["novel"] is None


def test_a_test_set_judges_old_and_new_classes(path: Path) -> None:
    test = items((*OLD, *NEW), 10, 3)
    grown = grow(path, items(NEW, 4, 1), test=test)
    found = grown.card["grown"][0]["test"]
    answers, true = np.array(grown.predict(test[0])), np.array(test[1])
    of_old = np.isin(true, OLD)
    assert found["n"] == 50
    assert found["base"]["value"] == pytest.approx((answers == true)[of_old].mean())
    assert found["novel"]["value"] == pytest.approx((answers == true)[~of_old].mean())
    assert grown.card["test"]["assessment"]["n"] == 50


def test_classes_that_pay_for_a_new_one_are_named(path: Path) -> None:
    x, _ = items(("crow",), 5, 1)
    grown = grow(path, (x, ["raven"] * 5), test=items(OLD, 10, 3))
    hurt = grown.card["grown"][0]["test"]["hurt"]
    assert [one["name"] for one in hurt] == ["crow"]
    assert hurt[0]["after"] < hurt[0]["before"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head": "gda"}, "head 'gda' cannot grow; those can: .*teen"),
        ({"head": "teen", "class_prior": {"crow": 1, "dove": 1, "emu": 2}}, "--class-prior"),
    ],
)
def test_models_that_cannot_grow(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        grow(fit(*items(OLD, 4, 0), **change), items(NEW, 3, 1))


def test_refusals(path: Path, tmp_path: Path) -> None:
    x, labels = items(NEW, 3, 1)
    with pytest.raises(BadInput, match="'crow' is known already"):
        grow(path, items(("crow", "finch"), 3, 1))
    with pytest.raises(BadInput, match="reads 16 features"):
        grow(path, (x[:, :3], labels))
    with pytest.raises(BadInput, match="no item has a label"):
        grow(path, (x, [None] * len(x)))
    with pytest.raises(BadInput, match="class 'owl', which neither"):
        grow(path, (x, labels), test=(x[:1], ["owl"]))
    taken = tmp_path / "taken.handful"
    taken.write_bytes(b"")
    with pytest.raises(BadInput, match="--force"):
        grow(path, (x, labels), out=taken)
    with pytest.raises(BadInput, match="is a folder"):
        grow(path, (x, labels), out=tmp_path)
    assert taken.read_bytes() == b""


def test_a_head_that_takes_examples_of_known_classes() -> None:
    model = fit(*items(OLD, 4, 0), head="prototypes")
    grown = grow(model, items(("crow", "finch"), 3, 1))
    assert {row["name"]: row["count"] for row in grown.card["task"]["classes"]}["crow"] == 7
    assert [row["name"] for row in grown.card["grown"][0]["classes"]] == ["finch"]
    assert grown.card["grown"][0]["judged"]["n"] == 3
    with pytest.raises(BadInput, match="known already"):
        grow(model, items(("crow",), 3, 1))


def test_the_file_learnt_from_proves_nothing(model: Model, learnt_from: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.csv"
    rows = [("send me an invoice", "bill"), ("I need a receipt", "bill")]
    pl.DataFrame(rows, schema=["message", "queue"], orient="row").write_csv(new)
    with pytest.warns(SeenBefore):
        grown = grow(model, new, test=learnt_from)
    assert "bill" in grown.classes
    assert grown.predict(["may I have a receipt"]) == ["bill"]


def test_a_threshold_goes(path: Path) -> None:
    model = fit(*items(OLD, 8, 0), head="teen", target_precision=0.9)
    grown = grow(model, items(NEW, 3, 1))
    assert grown.decision.threshold is None
    assert bool(grown.card["grown"][0]["notes"]) == (model.decision.threshold is not None)


def test_a_pool_of_any_class_is_learnt_from(tmp_path: Path) -> None:
    model = fit(*items(OLD, 6, 0), head="aldc")
    x, labels = items(NEW, 3, 1)
    pool, _ = items((*OLD, *NEW), 10, 2)
    test = items((*OLD, *NEW), 20, 3)
    out = tmp_path / "grown.handful"
    with pytest.warns(UserWarning, match="no unlabelled items"):
        alone = grow(model, (x, labels))
    grown = grow(
        model, (np.concatenate([x, pool[:5]]), [*labels, *[None] * 5]), unlabelled=pool[5:], test=test, out=out
    )
    assert alone.card["grown"][0]["unlabelled"] is None
    found = grown.card["grown"][0]["unlabelled"]
    assert (found["n"], found["dropped"]) == (50, 0) and "50 items without labels" in found["use"]
    assert np.mean(np.array(grown.predict(test[0])) == test[1]) > 0.85
    assert not np.allclose(grown.predict_proba(test[0]), alone.predict_proba(test[0]))
    assert np.array_equal(Model.load(out).predict_proba(test[0]), grown.predict_proba(test[0]))
    rows = grow(model, (np.concatenate([x, pool]), [*labels, *[None] * 50]), unlabelled="rows")
    assert rows.card["grown"][0]["unlabelled"]["n"] == 50
    with pytest.raises(BadInput, match=r"every item of the pool \(nearly\) equals one labelled"):
        grow(model, (x, labels), unlabelled=x)


def test_heads_that_learn_nothing_from_a_pool_say_so(path: Path) -> None:
    with pytest.raises(BadInput, match=r"--unlabelled: head 'teen' grows by labelled items alone; .*aldc"):
        grow(path, items(NEW, 3, 1), unlabelled=items(NEW, 3, 2)[0])
