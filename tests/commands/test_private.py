"""A private fit: what is refused, what is withheld, and that nothing un-noised is left in what comes out."""

from __future__ import annotations

import csv
import hashlib
import json
import sys
import zipfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import safetensors.numpy
from sklearn.base import clone

from handful.adapt.private import PrivateLogistic
from handful.adapt.private_search import PrivateSearch
from handful.adapt.steel import Steel
from handful.cli.show_fit import privacy
from handful.commands.evaluate import evaluate
from handful.commands.fit import fit
from handful.commands.inspect import inspect
from handful.commands.predict import predict
from handful.errors import BadInput
from handful.ship.model import Model

pytest.importorskip("dp_accounting")
COUNTS = {"refund": 23, "login": 31, "delivery": 17}


def quick(**params: Any) -> PrivateLogistic:
    return PrivateLogistic(epochs=60, lr=0.02, **params)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """71 texts, each with a word of its own, one of them twice, some without a label."""
    path = tmp_path_factory.mktemp("private") / "payroll-of-springfield.csv"
    words = {"refund": "money back", "login": "cannot sign in", "delivery": "parcel is late"}
    rows = [
        (f"{words[label]} secretword{label}{i % (n - 1)}", label, f"person{i}")
        for label, n in COUNTS.items()
        for i in range(n)
    ]
    rows += [(f"unlabelledword{i}", "", "nobody") for i in range(13)]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("message", "queue", "customer"), *rows])
    return path


@pytest.fixture(scope="module")
def made(source: Path) -> tuple[Path, Path]:
    """A private model and its report."""
    out, report = source.with_name("m.handful"), source.with_name("r.html")
    fit(source, text="message", label="queue", private=4.0, head=quick(), out=out, report=report)
    return out, report


def content(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return b"\n".join(archive.read(name) for name in archive.namelist())


def test_nothing_un_noised_is_in_the_model_or_the_report(made: tuple[Path, Path], source: Path) -> None:
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    rows = source.read_text(encoding="utf-8").splitlines()
    for data in (content(made[0]), made[1].read_bytes()):
        for trace in ("secretword", "unlabelledword", "money back", "springfield", "person1", digest, digest[:16]):
            assert trace.encode() not in data, trace
        assert not [row for row in rows[1:] if hashlib.sha256(row.encode()).hexdigest()[:16].encode() in data]


def test_no_count_but_how_many_there_are(made: tuple[Path, Path]) -> None:
    """Every number of the description that depends on the examples is n, or follows from it."""
    with zipfile.ZipFile(made[0]) as archive:
        card = json.loads(archive.read("handful.json"))["card"]
        state = safetensors.numpy.load(archive.read("state.safetensors"))
    assert set(state) == {"weight", "bias"}
    assert card["task"]["n"] == sum(COUNTS.values())
    assert [row["count"] for row in card["task"]["classes"]] == [None] * 3
    card["task"]["n"] = card["private"]["n"] = None
    found = json.dumps(card)
    for number in {*COUNTS.values(), 13, len(set(COUNTS.values()))} - {60, 3}:
        assert f": {number}," not in found and f": {number}}}" not in found, number
    empty = ("selective", "cost", "shots_curve", "suspicious", "duplicates", "blind_spots", "test", "candidates")
    assert not any(card[name] for name in empty)
    assert card["estimate"]["assessment"] is None and card["estimate"]["accuracy"] is None
    assert card["population"]["shares"] == {}


def test_neighbours_leave_the_same_description(made: tuple[Path, Path], source: Path, tmp_path: Path) -> None:
    """Other texts, other shares of the classes, as many examples: all but the weights is byte for byte the same."""
    texts = [f"wholly other {label} {i}" for label in ("delivery", "login", "refund") for i in range(20)]
    labels = [label for label in ("delivery", "login", "refund") for _ in range(20)]
    texts += [f"more {i}" for i in range(11)]
    labels += ["login"] * 11
    other, out = tmp_path / "o.csv", tmp_path / "o.handful"
    with other.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("message", "queue"), *zip(texts, labels, strict=True)])
    fit(other, text="message", label="queue", private=4.0, head=quick(), out=out)
    with zipfile.ZipFile(made[0]) as one, zipfile.ZipFile(out) as two:
        assert one.read("handful.json") == two.read("handful.json")
        assert one.read("state.safetensors") != two.read("state.safetensors")


def test_what_is_withheld_is_listed_everywhere(made: tuple[Path, Path]) -> None:
    found = inspect(made[0])
    page = made[1].read_text(encoding="utf-8")
    assert found["private"]["epsilon"] == pytest.approx(4, rel=2e-3)
    assert found["private"]["delta"] == pytest.approx(1 / 71)
    assert found["private"]["relation"] == "one example added or removed"
    assert "dp-accounting" in found["private"]["accountant"]
    assert len(found["private"]["withheld"]) >= 8
    for line in (*found["private"]["withheld"], "Differentially private with epsilon"):
        assert line in page
    assert found["accuracy"] is None and "un-noised" in found["method"]
    assert "items given in memory" not in page and "(0)" not in page
    personal = found["personal"]
    assert (personal["paths"], personal["items"], personal["example_tensors"]) == ([], [], [])


def test_it_predicts_and_is_measured_on_other_items(made: tuple[Path, Path], tmp_path: Path) -> None:
    model = Model.load(made[0])
    new = {"refund": ["money back please"], "login": ["I cannot sign in"], "delivery": ["my parcel is late again"]}
    assert evaluate(model, new).n == 3
    inbox = tmp_path / "in.csv"
    inbox.write_text("message\nmoney back\n", encoding="utf-8")
    assert len(list(predict(model, inbox))) >= 1


def test_every_fit_draws_anew(source: Path) -> None:
    how: dict[str, Any] = {"text": "message", "label": "queue", "private": 4.0}
    one, two = (fit(source, head=quick(), **how).head.state_["weight"].numpy() for _ in range(2))
    assert not np.array_equal(one, two)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"seed": 0}, "--seed does not go with --private: noise that a seed repeats"),
        ({"head": "gda"}, "--head gda is not private"),
        ({"head": PrivateLogistic(noise="seeded")}, "not private"),
        ({"test": "t.csv"}, "--test does not go"),
        ({"shots": 3}, "--shots does not go"),
        ({"group": "customer"}, "--group does not go"),
        ({"class_names": "names.csv"}, "--class-names does not go"),
        ({"class_prior": "uniform"}, "--class-prior does not go"),
        ({"target_precision": 0.9}, "--target-precision does not go"),
        ({"cost": "c.csv"}, "--cost does not go"),
        ({"time_limit": 5.0}, "--time-limit does not go"),
        ({"private": 0.0}, "--private must be a finite number above 0"),
        ({"private": float("inf")}, "--private must be a finite number"),
    ],
)
def test_what_would_look_at_the_examples_is_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        fit({"a": ["x", "y"], "b": ["z", "w"]}, **{"private": 1.0, **asked})


def test_a_missing_accountant_is_told_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dp_accounting.rdp", None)
    with pytest.raises(BadInput, match="handful\\[private\\]"):
        fit("no-such-file.csv", private=1.0)


def test_the_private_head_without_private_is_pointed_to_it() -> None:
    with pytest.raises(BadInput, match="handful fit --private EPSILON"):
        fit({"a": ["x one", "y two"], "b": ["z three", "w four"]}, head="private-logistic")


def test_auto_becomes_the_fixed_head() -> None:
    rows = np.random.default_rng(0).normal(size=(6, 4))
    model = fit(rows, ["a", "b"] * 3, private=1.0)
    assert model.head.key == "private-logistic"
    assert "choosing among heads would spend privacy" in model.card["head"]["why"]
    assert model.card["private"]["private"]


@pytest.fixture(scope="module")
def searched(source: Path) -> tuple[Path, Path]:
    """A private model whose hyper-parameters were searched, and its report."""
    out, report = source.with_name("searched.handful"), source.with_name("searched.html")
    fit(source, text="message", label="queue", private=8.0, head="private-search", out=out, report=report)
    return out, report


class TestSearch:
    """Hyper-parameters are searched, and the budget pays."""

    def test_nothing_un_noised_is_in_it_and_it_answers(self, searched: tuple[Path, Path], source: Path) -> None:
        digest = hashlib.sha256(source.read_bytes()).hexdigest()
        for data in (content(searched[0]), searched[1].read_bytes()):
            for trace in ("secretword", "unlabelledword", "money back", "springfield", "person1", digest):
                assert trace.encode() not in data, trace
        assert evaluate(Model.load(searched[0]), {"refund": ["money back"], "login": ["I cannot sign in"]}).n == 2

    def test_the_card_says_what_was_spent_and_chosen(self, searched: tuple[Path, Path]) -> None:
        found, card = inspect(searched[0]), Model.load(searched[0]).card
        spent = card["private"]
        assert found["private"]["epsilon"] == pytest.approx(8, rel=2e-3) and spent["sampling_rate"] == 1
        assert spent["searched"]["trials"] == 8 and spent["searched"]["found"]["epochs"] == spent["steps"]
        assert "the range of each hyper-parameter" in spent["public"] and "hyper-parameters" not in spent["public"]
        assert "the budget paid for that" in card["head"]["why"]
        assert found["personal"]["example_vectors"] == 0
        assert found["private"]["searched"] == spent["searched"]
        said = " ".join(map(str, privacy(found["private"])))
        assert "50 % of the budget for 8 trials, which chose epochs" in said

    def test_what_it_cannot_is_refused(self) -> None:
        rows, labels = np.eye(4), ["a", "b"] * 2
        with pytest.raises(BadInput, match="--tune film does not go with --head private-search"):
            fit(rows, labels, private=1.0, tune="film", head="private-search")
        with pytest.raises(BadInput, match="not private"):
            fit(rows, labels, private=1.0, head=PrivateSearch(noise="seeded"))
        with pytest.raises(BadInput, match="handful fit --private EPSILON"):
            fit(rows, labels, head="private-search")


class TestCertificate:
    """In the card of a model, or the reason why it is not."""

    data: ClassVar[dict[str, list[str]]] = {
        "refund": ["money back", "refund me", "pay me back"],
        "login": ["sign in", "password", "locked out"],
    }

    def test_issued(self, tmp_path: Path) -> None:
        out, report = tmp_path / "m.handful", tmp_path / "r.html"
        model = fit(self.data, head=Steel(hypotheses_independent=True), out=out, report=report)
        said = model.card["certificate"]["statement"]
        assert "the error on new items is at most" in said
        assert inspect(out)["certificate"] == said
        assert said.split(":")[0][:60] in report.read_text(encoding="utf-8")

    def test_refused(self) -> None:
        assert "hypotheses_independent=True" in fit(self.data, head="steel").card["certificate"]["statement"]
        shifted = fit(self.data, head=Steel(hypotheses_independent=True), class_prior="uniform")
        assert "not of answers by shares" in shifted.card["certificate"]["statement"]

    def test_refused_where_items_may_be_none_of_the_classes(self) -> None:
        rows = np.random.default_rng(0).normal(size=(60, 4)) + np.repeat(3 * np.eye(2, 4), 30, 0)
        ready = Steel(hypotheses=np.eye(2, 5)[None], hypotheses_independent=True)
        labels = ["a"] * 30 + ["b"] * 30
        assert "at most" in fit(rows, labels, head=clone(ready)).card["certificate"]["statement"]
        some = fit(rows, labels, head=ready, reject="energy")
        assert "that an item is none of them" in some.card["certificate"]["statement"]

    def test_refused_for_examples_in_groups(self, tmp_path: Path) -> None:
        table = "".join(
            f"{text},{label},{i % 3}\n"
            for i, (label, text) in enumerate((label, text) for label, texts in self.data.items() for text in texts)
        )
        (tmp_path / "d.csv").write_text("text,label,customer\n" + table, encoding="utf-8")
        model = fit(tmp_path / "d.csv", group="customer", head=Steel(hypotheses_independent=True))
        assert "of one group" in model.card["certificate"]["statement"]

    def test_of_other_heads_there_is_none(self) -> None:
        assert fit(self.data, head="prototypes").card["certificate"] is None


@pytest.fixture(scope="module")
def tuned(source: Path) -> tuple[Path, Path]:
    """A private model whose encoder learnt too, and its report."""
    out, report = source.with_name("film.handful"), source.with_name("film.html")
    head = PrivateLogistic(epochs=1, batch_size=None, optimizer="sgd", lr=1.0)
    fit(source, text="message", label="queue", private=8.0, tune="film", head=head, out=out, report=report)
    return out, report


class TestFilm:
    """The encoder learns too."""

    def test_nothing_un_noised_is_in_it_and_it_answers(self, tuned: tuple[Path, Path], source: Path) -> None:
        digest = hashlib.sha256(source.read_bytes()).hexdigest()
        for data in (content(tuned[0]), tuned[1].read_bytes()):
            for trace in ("secretword", "unlabelledword", "money back", "springfield", "person1", digest):
                assert trace.encode() not in data, trace
        model = Model.load(tuned[0])
        assert model.delta is not None and model.encoder is not None
        assert model.encoder.identity != model.fingerprint  # not the base any more
        assert evaluate(model, {"refund": ["money back please"], "login": ["I cannot sign in"]}).n == 2

    def test_the_card_says_what_was_spent_on_both(self, tuned: tuple[Path, Path]) -> None:
        found = inspect(tuned[0])
        assert found["private"]["epsilon"] == pytest.approx(8, rel=2e-3) and found["private"]["steps"] == 1
        card = Model.load(tuned[0]).card
        assert card["tuning"]["changed"] == 26 * 384 and card["tuning"]["frozen"] is None
        assert "numbers learnt (0.044 % of the encoder's) with noise" in card["tuning"]["sentence"]
        assert "with noise" in tuned[1].read_text(encoding="utf-8")

    def test_other_recipes_and_features_are_refused(self) -> None:
        with pytest.raises(BadInput, match="--tune lora is not private: --private tunes with film"):
            fit({"a": ["x", "y"], "b": ["z", "w"]}, private=1.0, tune="lora")
        with pytest.raises(BadInput, match="no encoder to tune"):
            fit(np.eye(4), ["a", "b"] * 2, private=1.0, tune="film")
