"""Scores of models that were not run, from those of a few."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import pearsonr, spearmanr

from handful.errors import BadInput
from handful.evaluate.rasch import fit_rasch, forecast_scores, most_telling

GOLDEN = Path(__file__).parents[1] / "golden" / "livexiv.json"


def answers(models: int, questions: int, seed: int = 0, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Answers by the model itself ``[M, Q]``, and the abilities."""
    draw = np.random.default_rng(seed)
    theta, beta = draw.normal(0, spread, models), draw.normal(0, 1, questions)
    return (draw.random((models, questions)) < expit(theta[:, None] - beta)).astype(float), theta


@pytest.mark.paper(173, oracle="a")
@pytest.mark.parametrize("seed", range(3))
def test_abilities_and_scores_are_found_again(seed: int) -> None:
    """About as many questions as LiveXiv has, and models closer to each other than the questions are."""
    y, theta = answers(20, 6000, seed, spread=0.7)
    first = forecast_scores([y[:, :2000]], [range(20)], solver="exact")
    assert pearsonr(first.ability, theta).statistic > 0.98
    assert len(first.rerun) == 5
    again = forecast_scores([y[:, :2000], y[list(first.rerun), 2000:]], [range(20), first.rerun], solver="exact")
    left = ~np.array(again.measured[1])
    assert left.sum() == 15
    assert 100 * np.abs(np.array(again.scores[1]) - y[:, 2000:].mean(axis=1))[left].mean() < 2


@pytest.mark.paper(173, oracle="b")
@pytest.mark.parametrize("solver", ["adam", "exact"])
def test_what_was_run_is_not_predicted(solver: str) -> None:
    y = np.random.default_rng(1).random((6, 30))
    seen = forecast_scores([y[:, :10], y[:, 10:]], [list("abcdef")] * 2, solver=solver)  # type: ignore[arg-type]
    assert np.array(seen.scores[0]) == pytest.approx(y[:, :10].mean(axis=1))
    assert np.array(seen.scores[1]) == pytest.approx(y[:, 10:].mean(axis=1))
    assert np.array(seen.measured).all() and set(seen.rerun) <= set("abcdef")
    assert json.loads(json.dumps(seen.as_dict()))["models"] == list("abcdef")


@pytest.mark.paper(173, oracle="c")
def test_only_differences_count() -> None:
    fit = fit_rasch(answers(6, 40)[0], solver="exact")
    moved = type(fit)(fit.ability + 3, fit.difficulty + 3, fit.loss, ())
    assert moved.proba == pytest.approx(fit.proba)
    assert most_telling(moved.ability, moved.difficulty, 3) == most_telling(fit.ability, fit.difficulty, 3)


@pytest.mark.paper(173, oracle="d")
@pytest.mark.parametrize("suite", ["tqa", "vqa"])
def test_livexiv(shared_data: Path, suite: str) -> None:
    """Errors of at most 2.5 points on models that were not run; matrices of NimrodShabtay/LiveXiv (Apache-2.0)."""
    with np.load(shared_data / "livexiv.npz", allow_pickle=False) as file:
        y = [file[f"{suite}/version{i}"].astype(float) for i in range(3)]
    run = [list(range(15))]  # two models come with the second version
    forecast = forecast_scores([y[0][run[0]]], run, solver="exact")
    published = {"tqa": [1.39, 1.81], "vqa": [1.93, 1.30]}[suite]
    for version, error in zip((1, 2), published, strict=True):
        run.append([*forecast.rerun, *([15, 16] if version == 1 else [])])  # type: ignore[list-item]
        forecast = forecast_scores([table[rows] for table, rows in zip(y, run, strict=False)], run, solver="exact")
        truth, got, left = (
            y[version].mean(axis=1),
            np.array(forecast.scores[version]),
            ~np.array(forecast.measured[version]),
        )
        mistaken = 100 * np.abs(truth - got)[left].mean()
        assert mistaken < 2.5 and mistaken == pytest.approx(error, abs=0.05)
        assert spearmanr(truth, got).statistic > 0.95


@pytest.mark.paper(173, oracle="d")
def test_livexiv_with_the_authors_optimiser(shared_data: Path) -> None:
    with np.load(shared_data / "livexiv.npz", allow_pickle=False) as file:
        first, second = (file[f"vqa/version{i}"].astype(float) for i in range(2))
    start = forecast_scores([first[:15]], [range(15)])
    run = [*start.rerun, 15, 16]
    forecast = forecast_scores([first[:15], second[run]], [range(15), run])  # type: ignore[list-item]
    left, truth = ~np.array(forecast.measured[1]), second.mean(axis=1)
    assert 100 * np.abs(truth - np.array(forecast.scores[1]))[left].mean() < 2.5
    assert spearmanr(truth, forecast.scores[1]).statistic > 0.95


def test_the_authors_optimiser_number_for_number() -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    fit = fit_rasch(golden["answers"], golden["seen"])
    assert fit.ability == pytest.approx(golden["theta"], abs=2e-3)
    assert fit.difficulty == pytest.approx(golden["beta"], abs=2e-3)


def test_exact_is_the_optimum() -> None:
    y = answers(8, 60)[0]
    exact, adam = fit_rasch(y, solver="exact"), fit_rasch(y)
    assert exact.loss < adam.loss
    # sums of the answers are the sums expected: the condition of the maximum
    assert exact.proba.sum(axis=1) == pytest.approx(y.sum(axis=1), abs=1e-3)
    inside = (y.mean(axis=0) > 0) & (y.mean(axis=0) < 1)
    assert exact.proba.sum(axis=0)[inside] == pytest.approx(y.sum(axis=0)[inside], abs=1e-3)
    assert np.abs(exact.proba.mean(axis=0) - y.mean(axis=0))[~inside].max(initial=0) < 1e-3


def test_a_model_that_answered_nothing_is_average() -> None:
    y = answers(5, 30)[0]
    seen = np.ones(y.shape, bool)
    seen[2] = False
    with pytest.warns(UserWarning, match=r"models \[2\] answered nothing"):
        fit = fit_rasch(y, seen, solver="exact")
    assert fit.unseen == (2,) and fit.ability[2] == pytest.approx(np.delete(fit.ability, 2).mean())


def test_models_that_coincide_are_filled_up_with_the_most_different() -> None:
    ability = np.array([0.0, 0.1, 5.0, -9.0])
    assert most_telling(ability, np.zeros(10), 2) == [0, 3]


def test_refusals() -> None:
    y = answers(4, 10)[0]
    with pytest.raises(BadInput, match="no model answered question 3"):
        fit_rasch(np.where(np.arange(10) == 3, np.nan, y))
    with pytest.raises(BadInput, match="answer of model 1 to question 2 is 40, not from 0 to 1"):
        fit_rasch(np.where((np.arange(4)[:, None] == 1) & (np.arange(10) == 2), 40, y))
    with pytest.raises(BadInput, match="answer of model 1 to question 2 is inf, not from 0 to 1"):
        fit_rasch(np.where((np.arange(4)[:, None] == 1) & (np.arange(10) == 2), np.inf, y))
    for wrong in ([["yes", "no"]], [[1, 0], [1]]):
        with pytest.raises(BadInput, match="answers must be numbers"):
            fit_rasch(wrong)
        with pytest.raises(BadInput, match="answers must be numbers"):
            forecast_scores([wrong], [range(2)])
    with pytest.raises(BadInput, match="of one shape"):
        fit_rasch(y, np.ones(10, bool))
    with pytest.raises(BadInput, match="unknown solver"):
        fit_rasch(y, solver="newton")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="1 tables of answers and 2 lists"):
        forecast_scores([y], [range(4), range(4)])
    with pytest.raises(BadInput, match="of 3 models: one row for each"):
        forecast_scores([y], [range(3)])
    with pytest.raises(BadInput, match=r"version 1: answers .* and no version empty"):
        forecast_scores([y, y[:, :0]], [range(4), range(4)])
    assert forecast_scores([y], [["a", 3, ("b", 1), 2]], 2).models == ("a", 3, ("b", 1), 2)
    with pytest.raises(BadInput, match="stands there twice"):
        forecast_scores([y], [[0, 1, 2, 2]])
    with pytest.raises(BadInput, match=r"m=2\.5 models to run next"):
        forecast_scores([y], [range(4)], 2.5)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="by 0 questions"):
        most_telling(np.zeros(3), np.zeros(0), 2)
    with pytest.raises(BadInput, match="m=5 models to run next, of 4"):
        forecast_scores([y], [range(4)])
