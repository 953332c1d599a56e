"""A card for every head, advice from what is at hand, and the two parts of a classifier's risk."""

from __future__ import annotations

import importlib
import importlib.util
import json
import pkgutil
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import handful.adapt
from handful.adapt import HEADS, head_class
from handful.adapt.base import Head
from handful.errors import BadInput
from handful.evaluate.cards import HAVE, PLACES, TAXONOMY, WORDS, cards, measurements, recommend, search
from handful.evaluate.risk import risk_decomposition, squared

ROOT = Path(__file__).parents[2]


@pytest.mark.paper(38, oracle="a", part="cards")
def test_every_head_has_one_card_and_every_card_a_head() -> None:
    found = cards()
    assert [card.key for card in found[: len(HEADS)]] == list(HEADS)
    assert len({card.key for card in found}) == len(found)
    for card in found:
        assert head_class(card.key).needs == card.needs
        assert card.place in TAXONOMY
    every = {}
    for module in pkgutil.walk_packages(handful.adapt.__path__, "handful.adapt."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, type) and issubclass(value, Head) and value.__module__.startswith("handful."):
                every[f"{value.__module__}:{name}"] = value
    finished = {path for path, value in every.items() if not value.__subclasses__()}
    assert finished <= set(HEADS.values()) <= set(every)  # no head without a card
    assert set(PLACES) <= set(HEADS) and set(PLACES.values()) <= set(TAXONOMY)
    assert {need for needs in HAVE.values() for need in needs} == set(WORDS)


def test_cards_are_found_by_place_need_and_cost() -> None:
    frozen = search(place="algorithm/refine-existing", needs_not=["gradient"])
    assert {"kernel-ridge", "proker"} <= {card.key for card in frozen} and all(not c.needs.gradient for c in frozen)
    assert "pt-map" in {card.key for card in search(needs=["transductive"])}
    assert all(card.cost == "gradient" for card in search(cost="gradient"))
    with pytest.raises(BadInput, match="no place 'data/unlabeled'; did you mean 'data/unlabelled'"):
        search(place="data/unlabeled")
    with pytest.raises(BadInput, match="no need 'gradients'; did you mean 'gradient'"):
        search(needs_not=["gradients"])


@pytest.mark.paper(38, oracle="a", part="cards")
def test_advice_names_only_what_can_run() -> None:
    """The cards' needs decide: a head that is named runs with what was said to be there."""
    plain = recommend((), 5)
    assert plain[0].card.key == "auto" and plain[0].behind is not None
    assert not [a.card.key for a in plain if a.card.wants]
    named = {a.card.key for a in recommend(["class-names"], 5)}
    assert "tip-adapter" in named and "pt-map" not in named and "wca" not in named
    assert "pt-map" in {a.card.key for a in recommend(["unlabelled"], 5)}
    assert "wca" in {a.card.key for a in recommend(["class-names", "crops"], 5)}
    behind = [a.behind for a in plain if a.behind is not None]
    assert behind == sorted(behind) and all(a.behind is None for a in plain[len(behind) :])
    cheap = {a.card.key for a in recommend(["class-names"], 5, "closed form")}
    assert cheap == {a.card.key for a in recommend(["class-names"], 5) if a.card.cost == "closed form"} != named
    assert recommend((), 5, "one by one") == plain
    with pytest.raises(BadInput, match="no cost 'closed'"):
        recommend((), 5, "closed")
    with pytest.raises(BadInput, match="'class-name'; did you mean 'class-names'"):
        recommend(["class-name"])
    with pytest.raises(BadInput, match="at least 1"):
        recommend([], 0)


def test_the_measurements_in_the_package_are_those_of_the_benchmark() -> None:
    path = ROOT / "benchmarks" / "advice.py"
    if not path.exists():
        pytest.skip("no benchmarks here")
    spec = importlib.util.spec_from_file_location("advice", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    regret = json.loads((ROOT / "benchmarks" / "results" / "regret.json").read_text(encoding="utf-8"))
    assert module.measured(regret) == measurements()


class Threshold:
    """A threshold on a line, by least training error; or, crippled, one that stays at a place."""

    def __init__(self, fixed: float | None = None) -> None:
        self.at = fixed
        self.fixed = fixed is not None

    def fit(self, x, y):
        if not self.fixed:
            low, high = x[y == 0].max(initial=0.0), x[y == 1].min(initial=1.0)
            self.at = (low + high) / 2
        return self

    def predict(self, x):
        return (x[:, 0] > self.at).astype(int)


@pytest.mark.paper(38, oracle="b")
def test_a_family_that_holds_the_truth_errs_by_estimation_only_and_less_with_more() -> None:
    x = np.random.default_rng(0).random((2000, 1))
    y = (x[:, 0] > 0.4).astype(int)
    sizes = (4, 8, 16, 32, 64)
    found = risk_decomposition(Threshold, x, y, sizes, 150, seed=1)
    estimation = [risk.estimation.value for risk in found]
    assert all(abs(risk.approximation) <= 0.01 for risk in found)
    assert stats.spearmanr(sizes, estimation).statistic < -0.9
    slope = np.polyfit(np.log(sizes), np.log(estimation), 1)[0]
    assert slope == pytest.approx(-1, abs=0.2)
    wrong = risk_decomposition(lambda: Threshold(0.6), x, y, (1, 5), 5)
    assert wrong[0].approximation == pytest.approx(0.2, abs=0.02) and wrong[0].estimation.value == 0


class Least:
    """Least squares."""

    def fit(self, x, y):
        self.w = np.linalg.lstsq(x, y, rcond=None)[0]
        return self

    def predict(self, x):
        return x @ self.w


@pytest.mark.paper(38, oracle="c", part="risk")
def test_least_squares_has_its_closed_form() -> None:
    rng, d, size = np.random.default_rng(0), 5, 25
    x = rng.normal(size=(8000, d))
    y = x @ rng.normal(size=d) + 0.5 * rng.normal(size=8000)
    (found,) = risk_decomposition(Least, x, y, (size,), 300, loss=squared, by_class=False, bayes=0.25)
    assert found.estimation.value == pytest.approx(0.25 * d / (size - d - 1), rel=0.1)
    assert found.approximation == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize(
    ("y", "sizes", "message"), [([0] * 9, (1,), "one class only"), ([0, 1, 1] * 3, (4,), "from 1 to 3")]
)
def test_risks_that_cannot_be_taken_apart(y: list[int], sizes: tuple[int, ...], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        risk_decomposition(Threshold, np.zeros((9, 1)), y, sizes)
