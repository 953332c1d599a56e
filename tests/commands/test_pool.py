"""`fit --unlabelled`: what a pool teaches stays in the model, and no number is helped by items that were seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from handful.commands.fit import fit
from handful.commands.inspect import inspect
from handful.commands.predict import predict
from handful.errors import BadInput
from handful.read import Dataset
from handful.ship.model import Model


def blobs(n: int | list[int], seed: int, classes: int = 3, noise: float = 0.6) -> tuple[np.ndarray, list[str]]:
    """Positive features: clusters with some overlap."""
    centre = 2 + 2 * np.eye(classes, 8)
    y = np.repeat(np.arange(classes), n)
    x = np.abs(centre[y] + noise * np.random.default_rng(seed).normal(size=(len(y), 8)))
    return x.astype(np.float32), [f"k{c}" for c in y]


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, Path]:
    """``few``: labelled, with two rows that are not and a group; ``pool``: others, one of them a copy."""
    texts = {"refund": ["give me my money back", "please refund me"], "login": ["cannot sign in", "my password fails"]}
    rows = [(t, label, f"{label}{i}") for label, some in texts.items() for i, t in enumerate(some)]
    rows += [("the money has not come back", "", "x"), ("sign in says no", "", "login0")]
    pool = ["where is my refund", "Cannot sign in!", "password forgotten", "  "]
    paths = {name: tmp_path / f"{name}.csv" for name in ("few", "pool")}
    pl.DataFrame(rows, schema=["message", "queue", "who"], orient="row").write_csv(paths["few"])
    pl.DataFrame({"message": pool, "queue": ["login"] * 4}).write_csv(paths["pool"])
    return paths


@pytest.mark.parametrize("head", ["auto", "bd-cspn", "laplacianshot", "tim-adm", "unem"])
def test_answers_of_a_saved_model_stand_alone_and_the_pool_taught_something(head: str, tmp_path: Path) -> None:
    (x, y), (pool, _), (asked, _) = blobs(3, 0, noise=1.2), blobs(20, 1), blobs(5, 2, noise=1.2)
    out = tmp_path / "m.handful"
    fit(x, y, head=head, unlabelled=pool, out=out)
    model = Model.load(out)
    together = model.predict_proba(asked)
    np.testing.assert_allclose(
        np.concatenate([model.predict_proba(asked[[i]]) for i in range(4)]), together[:4], atol=1e-5
    )
    assert not np.allclose(together, fit(x, y, head=head).predict_proba(asked), atol=1e-4)
    assert model.card["unlabelled"]["n"] == 60
    assert model.card["estimate"]["accuracy"]["value"] > 0.5


def test_the_card_says_which_pool_and_copies_and_groups_are_dropped(tables: dict[str, Path], tmp_path: Path) -> None:
    out, page = tmp_path / "m.handful", tmp_path / "m.html"
    asked: dict[str, Any] = {"text": "message", "label": "queue", "group": "who", "head": "bd-cspn"}
    card = fit(tables["few"], **asked, unlabelled=tables["pool"], out=out, report=page).card
    pool = card["unlabelled"]
    assert (pool["n"], pool["dropped"], pool["skipped"]) == (3, 2, 1)  # a copy, one of a labelled group; a blank
    assert pool["sources"] == [str(tables["pool"])] and list(pool["sha256"]) == ["pool.csv"]
    assert str(tables["pool"]) in card["provenance"]["command"]
    found = inspect(out)
    assert found["unlabelled"]["n"] == 3
    assert str(tables["pool"]) in found["personal"]["paths"]
    assert found["provenance"]["sha256"]["pool.csv"] == pool["sha256"]["pool.csv"]
    assert "3 items without labels were learnt from" in page.read_text("utf-8")
    assert fit(tables["few"], **asked, unlabelled="rows").card["unlabelled"]["n"] == 1


def test_labels_of_the_pool_are_not_read() -> None:
    (x, y), (pool, names) = blobs(3, 0), blobs(10, 1)
    true, false = (
        fit(x, y, head="bd-cspn", unlabelled=Dataset(pool, tuple(labels), "features"))
        for labels in (names, list(reversed(names)))
    )
    assert all((true.head.state_[k] == false.head.state_[k]).all() for k in true.head.state_)


def test_items_tested_on_are_never_in_the_pool() -> None:
    (x, y), (pool, names) = blobs(3, 0), blobs(10, 1)
    card = fit(x, y, unlabelled=np.concatenate([pool, x]), test=(pool[::5], names[::5])).card
    assert (card["unlabelled"]["n"], card["unlabelled"]["dropped"]) == (24, 15)
    card = fit(np.concatenate([x, pool]), [*y, *names], shots=2, unlabelled=blobs(4, 5)[0]).card
    assert card["unlabelled"]["n"] == 12


def test_a_head_that_assumes_balance_is_warned_of_an_uneven_pool() -> None:
    (x, y), even, uneven = blobs(5, 0), blobs(40, 1)[0], blobs([110, 5, 5], 1)[0]
    asked: dict[str, Any] = {"head": "pt-map", "time_limit": 1e-9}  # no time to estimate
    warned = fit(x, y, **asked, unlabelled=uneven).card["unlabelled"]
    assert warned["apart"] == pytest.approx(110 / 120 - 1 / 3, abs=0.05)
    assert "equally frequent" in warned["warning"] and "laplacianshot" in warned["warning"]
    assert not {"opta", "cipa", "pt-map,", "tim-gd"} & set(warned["warning"].split("balance: ")[1].split(", "))
    assert fit(x, y, **asked, unlabelled=even).card["unlabelled"]["warning"] is None
    assert "warning" not in fit(x, y, head="bd-cspn", unlabelled=uneven).card["unlabelled"]


def test_without_a_pool_it_says_what_it_does_and_transductive_is_only_when_asked(tmp_path: Path) -> None:
    (x, y), (asked, _) = blobs(3, 0, noise=1.2), blobs(5, 2, noise=1.2)
    out = tmp_path / "m.handful"
    alone = fit(x, y, head="bd-cspn", out=out)
    assert "labelled examples alone" in alone.card["unlabelled"]["use"]
    np.testing.assert_allclose(alone.predict_proba(asked[:1]), alone.predict_proba(asked)[:1], atol=1e-6)
    swayed = fit(x, y, head="bd-cspn", transductive=True)
    assert "sway" in swayed.card["unlabelled"]["use"]
    assert not np.allclose(swayed.predict_proba(asked[:2])[0], swayed.predict_proba(asked)[0], atol=1e-6)
    again = Model.load(out).transductive()
    logits = np.asarray(again.head.logits(asked))
    np.testing.assert_allclose(logits, swayed.head.logits(asked), atol=1e-5)
    plain, moved = predict(out, asked), predict(out, asked, transductive=True)
    assert not plain["handful_confidence"].equals(moved["handful_confidence"])


def test_what_cannot_be_is_refused(tables: dict[str, Path]) -> None:
    (x, y), (pool, _) = blobs(3, 0), blobs(4, 1)
    for wrong, message in [
        ({"head": "gda", "unlabelled": pool}, "learns nothing from items without labels"),
        ({"head": "gda", "transductive": True}, "answers each item by itself"),
        ({"head": "auto", "transductive": True}, "answers each item by itself"),
        ({"head": "bd-cspn", "transductive": True, "unlabelled": pool}, "give one"),
        ({"head": "bd-cspn", "unlabelled": pool[:, :4]}, "4 features an item"),
        ({"head": "bd-cspn", "unlabelled": tables["pool"]}, "holds text"),
        ({"head": "bd-cspn", "unlabelled": "rows"}, "no unlabelled item"),
        ({"head": "bd-cspn", "unlabelled": x}, "labelled or tested on"),
    ]:
        with pytest.raises(BadInput, match=message):
            fit(x, y, **wrong)
    with pytest.raises(BadInput, match="answers each item by itself"):
        fit(x, y, head="gda").transductive()


def test_the_mix_of_classes_may_be_read_off_the_pool() -> None:
    (x, y), (pool, _) = blobs(5, 0), blobs([60, 10, 10], 1)
    card = fit(x, y, head="gda", unlabelled=pool, class_prior="pool").card
    assert card["population"]["shares"]["k0"] == pytest.approx(0.75, abs=0.08)
    assert "learns nothing" in card["unlabelled"]["use"]


def test_a_model_of_an_outside_head_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_heads.py").write_text(
        "from handful.adapt.prototypes import Prototypes\nclass Mine(Prototypes):\n    key = 'mine'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    x, y = blobs(3, 0)
    model = fit(x, y, head="their_heads:Mine")
    assert model.predict(x) == y
    with pytest.raises(BadInput, match=r"never imports outside code.*handful\.heads"):
        fit(x, y, head="their_heads:Mine", out=tmp_path / "m.handful")
    with pytest.raises(BadInput, match="never imports outside code"):
        model.save(tmp_path / "m.handful")
    assert not (tmp_path / "m.handful").exists()
