"""Power laws, the meta-learnt forest of paper 069, and forecasts from curves seen before."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from handful.errors import BadInput
from handful.evaluate.forecast import (
    CENTRE,
    FARTHEST,
    LEVEL,
    SLOPE,
    Curve,
    Pilot,
    Seen,
    binomial_spread,
    card_spread,
    curves_seen,
    error_of,
    forecast,
    learn,
    logit_of,
    posterior,
    slope_of,
)
from handful.evaluate.laws import fit_law, required
from handful.evaluate.meta_forest import MetaForest, Rising, Whole, fit_meta, score

SIZES = 2.0 ** np.arange(9)


def piecewise(n: np.ndarray, theta: tuple[float, float, float], knee: float) -> np.ndarray:
    """Accuracy of the law as the paper writes it: a parabola, then its tangent."""
    x = np.log(n)
    a, b, c = theta
    y = np.where(x <= knee, a + b * x + c * x**2, (b + 2 * c * knee) * x + a - c * knee**2)
    return 1 - np.exp(y)


@pytest.mark.paper(69, oracle="a")
def test_noise_free_points_give_their_parameters_back() -> None:
    theta, knee = (-0.3, -0.05, -0.06), math.log(20)
    accuracy = piecewise(SIZES, theta, knee)
    given = fit_law(SIZES, accuracy, knee=knee)
    np.testing.assert_allclose(given.theta, theta, atol=1e-6)
    found = fit_law(SIZES, accuracy)
    np.testing.assert_allclose([*found.theta, float(found.knee)], [*theta, knee], atol=1e-3)


@pytest.mark.paper(69, oracle="b")
def test_without_a_bend_it_is_linear_regression_of_logarithms() -> None:
    accuracy = 1 - np.array([0.5, 0.41, 0.3, 0.27, 0.2])
    line = stats.linregress(np.log(SIZES[:5]), np.log(1 - accuracy))
    law = fit_law(SIZES[:5], accuracy, "power")
    np.testing.assert_allclose(law.theta, [line.intercept, line.slope, 0], atol=1e-12)
    exact = 1 - np.exp(-0.4 - 0.3 * np.log(SIZES))
    np.testing.assert_allclose(fit_law(SIZES, exact, knee=2.0).theta, [-0.4, -0.3, 0], atol=1e-9)


@pytest.mark.paper(69, oracle="c")
def test_value_and_slope_are_continuous_at_the_knee() -> None:
    law = fit_law(SIZES, piecewise(SIZES, (-0.2, -0.02, -0.05), math.log(30)))
    knee, h = float(law.knee), 1e-5
    y = law.log_error(np.exp(knee + h * np.array([-2, -1, 0, 1, 2])))
    slopes = np.diff(y) / h
    np.testing.assert_allclose(slopes, slopes[0], atol=1e-4)
    assert float(law.final_slope) == pytest.approx(slopes[-1], abs=1e-4)


def laws_drawn(count: int, noise: float, seed: int, families: int = 20) -> list[Whole]:
    """Curves of one known law of laws: errors fall slowly at first, then faster beyond a knee, more so the flatter."""
    rng = np.random.default_rng(seed)
    out = []
    for i in range(count):
        early = rng.uniform(-0.25, -0.05)
        bend = -0.02 - 0.2 * (early + 0.25)  # what starts flat bends more
        knee = math.log(4) + rng.uniform(1.2, 1.6)
        y = np.log(1 - piecewise(SIZES, (rng.uniform(-0.6, -0.1), early, bend), knee))
        accuracy = 1 - np.exp(np.minimum(y + noise * rng.normal(size=len(y)), -1e-3))
        out.append(Whole(f"family {i % families}", 10, tuple(SIZES), tuple(accuracy)))
    return out


@pytest.fixture(scope="module")
def forest() -> MetaForest:
    return fit_meta(laws_drawn(200, 0.01, 0), 4, trees=60)


@pytest.mark.paper(69, oracle="d")
def test_the_forest_beats_the_power_law_and_its_band_holds(forest: MetaForest) -> None:
    better, held = [], []
    for curve in laws_drawn(100, 0.01, 1):
        n, accuracy, true = curve.n[:4], curve.accuracy[:4], np.array(curve.accuracy[4:])
        told = forest.forecast(n, accuracy, curve.ways, curve.n[4:])
        plain = fit_law(n, accuracy, "power").accuracy(curve.n[4:])
        better.append(np.abs([e.value for e in told] - true).mean() < np.abs(plain - true).mean())
        held += [e.low <= t <= e.high for e, t in zip(told, true, strict=True)]
    assert np.mean(better) >= 0.8
    assert 0.85 <= np.mean(held) <= 0.95


@pytest.mark.paper(69, oracle="e")
def test_what_a_size_reaches_requires_that_size(forest: MetaForest) -> None:
    law = fit_law(SIZES, piecewise(SIZES, (-0.2, -0.02, -0.05), math.log(30)))
    for n in (3.0, 30.0, 300.0):
        assert required(law, float(law.accuracy([n])[0])) == pytest.approx(n, rel=1e-6)
    curve = laws_drawn(1, 0.0, 2)[0]
    target = forest.forecast(curve.n[:4], curve.accuracy[:4], 10, [40.0])[0].value
    assert forest.required(curve.n[:4], curve.accuracy[:4], 10, target) == pytest.approx(40, rel=1e-5)


def test_an_asymptote_is_found_and_never_passed() -> None:
    accuracy = 1 - (0.5 * SIZES**-0.7 + 0.1)
    law = fit_law(SIZES, accuracy, "offset")
    assert float(law.offset) == pytest.approx(0.1, abs=1e-3)
    assert required(law, 0.95) == math.inf
    assert law.accuracy([64.0])[0] == pytest.approx(accuracy[6], abs=1e-4)


def test_the_final_slope_never_rises() -> None:
    law = fit_law(SIZES, 1 - np.array([0.5, 0.4, 0.35, 0.33, 0.34, 0.36, 0.39, 0.42, 0.46]))
    assert float(law.final_slope) <= 1e-9


def test_horizon_narrows_with_the_width(forest: MetaForest) -> None:
    curve = laws_drawn(1, 0.01, 3)[0]
    wide, narrow = (forest.horizon(curve.n[:4], curve.accuracy[:4], 10, w) for w in (1.0, 1e-6))
    assert narrow == curve.n[3] < wide


@pytest.mark.parametrize(
    ("n", "accuracy", "says"),
    [
        ([1, 2], [0.5, 0.6], "3 different sizes"),
        ([1, 2, 0], [0.5, 0.6, 0.7], "above 0"),
        ([1, 2, 4], [50, 60, 70], "percent"),
        ([1, 2, 4], [0.5, 0.6, 1.0], "below 1"),
        ([1, 2, 4], [0.5, 0.6], "one length"),
    ],
)
def test_what_is_no_curve_is_refused(n: list[float], accuracy: list[float], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        fit_law(n, accuracy, "power")


def test_too_few_families_are_refused() -> None:
    with pytest.raises(BadInput, match="3 families"):
        fit_meta(laws_drawn(8, 0.0, 0, families=2), 4)


def test_pilots_that_a_forest_cannot_read_are_refused(forest: MetaForest) -> None:
    n, accuracy = (1.0, 2.0, 4.0, 8.0), (0.5, 0.6, 0.65, 0.7)
    with pytest.raises(BadInput, match="ascend"):
        forest.forecast(n[::-1], accuracy, 10, [16.0])
    with pytest.raises(BadInput, match="ways must be a whole number from 2, not 1"):
        forest.forecast(n, accuracy, 1, [16.0])
    for sizes in ([0.0], [math.nan], [[16.0]]):
        with pytest.raises(BadInput, match="sizes to forecast at"):
            forest.forecast(n, accuracy, 10, sizes)
    with pytest.raises(BadInput, match="sizes must be numbers"):
        forest.forecast(n, accuracy, 10, "many")
    with pytest.raises(BadInput, match="accuracies must be numbers"):
        forest.forecast(n, ["a"] * 4, 10, [16.0])
    with pytest.raises(BadInput, match="width must be a finite number from 0"):
        forest.horizon(n, accuracy, 10, math.nan)
    with pytest.raises(BadInput, match=r"between 0 and 1, not 0\.9%"):
        forest.required(n, accuracy, 10, "0.9%")
    with pytest.raises(BadInput, match="trees must be a whole number from 1"):
        fit_meta(laws_drawn(8, 0.0, 0), 4, trees=0)
    with pytest.raises(BadInput, match="curves are a list of Whole"):
        fit_meta([1, 2, 3], 4)
    with pytest.raises(BadInput, match="ascend"):
        fit_meta([Whole(f"family {k}", 10, (1, 2, 2, 4, 8, 16), (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)) for k in range(4)], 3)
    with pytest.raises(BadInput, match=r"beyond 1\.25 times"):
        short = (1.0, 1.01, 1.02, 1.03, 1.04)
        fit_meta([Whole(f"family {k}", 10, short, (0.1, 0.2, 0.3, 0.4, 0.5)) for k in range(4)], 3, trees=20)


def test_weights_that_do_not_fit_are_refused() -> None:
    with pytest.raises(BadInput, match="one for each"):
        fit_law([1, 2, 4], [0.1, 0.2, 0.3], "power", weights=np.ones(2))
    with pytest.raises(BadInput, match="not all 0"):
        fit_law([1, 2, 4], [0.1, 0.2, 0.3], "power", weights=np.zeros(3))
    with pytest.raises(BadInput, match="knee must be a finite number"):
        fit_law([1, 2, 4], [0.1, 0.2, 0.3], knee=math.nan)


def test_errors_that_grow_require_no_finite_number(forest: MetaForest) -> None:
    n, accuracy = (1.0, 2.0, 4.0, 8.0), (0.6, 0.58, 0.55, 0.5)
    with pytest.warns(Rising):
        assert forest.required(n, accuracy, 10, 0.55) == math.inf
    assert required(fit_law(n, accuracy, "power"), 0.55) == math.inf
    with pytest.raises(BadInput, match="between 0 and 1"):
        required(fit_law(n, accuracy, "power"), 90)


def test_what_is_collected_over_what_is_needed(forest: MetaForest) -> None:
    plain = Whole("power", 10, tuple(SIZES), tuple(1 - 0.6 * SIZES**-0.3))
    found = score(plain, 4, 0.85)
    assert found == (pytest.approx(0, abs=1e-12), pytest.approx(1), pytest.approx(1))
    with pytest.raises(BadInput, match="within the pilot"):
        score(plain, 4, 0.5)
    with pytest.raises(BadInput, match="nowhere"):
        score(plain, 4, 0.99)
    curves = laws_drawn(60, 0.003, 4)
    targets = [float(1 - np.sqrt((1 - c.accuracy[6]) * (1 - c.accuracy[7]))) for c in curves]
    by_law = np.array([score(c, 4, t) for c, t in zip(curves, targets, strict=True)])
    by_forest = np.array([score(c, 4, t, forest, width=0.1) for c, t in zip(curves, targets, strict=True)])
    assert by_forest[:, 0].mean() < 0.67 * by_law[:, 0].mean()  # the paper: 37 % less
    assert (by_forest[:, 1] != by_forest[:, 2]).all()  # the horizon is nearer than the target
    off = np.abs(np.log(by_forest[:, 1:])).mean(axis=0)
    assert off.max() < 0.25 * np.log(by_law[:, 1]).mean()  # the paper: 76 % less


# --- curves seen before ----------------------------------------------------------------------------------------------


def some_curves(count: int, seed: int) -> list[Curve]:
    """Power laws of random level and slope, 12 families, each with a noisy pilot and a good one."""
    rng = np.random.default_rng(seed)
    out = []
    for i in range(count):
        error = 0.5 * rng.uniform(0.5, 1) * SIZES ** -rng.uniform(0.1, 0.5)
        first = SIZES[:4]
        noisy = np.clip(1 - error[:4] + 0.08 * rng.normal(size=4), 0, 1)
        good = 1 - error[:4] + 0.003 * rng.normal(size=4)
        pilots = (
            Pilot(tuple(first), tuple(noisy), (0.08,) * 4, 2, True),
            Pilot(tuple(first), tuple(good), (0.003,) * 4, 2, False),
        )
        out.append(Curve(f"curve {i}", f"family {i % 12}", 2, tuple(map(int, SIZES)), tuple(1 - error), pilots))
    return out


@pytest.fixture(scope="module")
def seen() -> Seen:
    return learn(some_curves(120, 0))


def test_a_noisy_pilot_is_drawn_to_what_is_usual_and_a_good_one_is_followed(seen: Seen) -> None:
    ours, power, held = {True: [], False: []}, {True: [], False: []}, []
    for curve in some_curves(120, 1):
        for pilot in curve.pilots:
            told, true = forecast(pilot, seen).at(32), curve.accuracy[5]
            ours[pilot.own].append(abs(told.value - true))
            capped = np.minimum(pilot.accuracy, 0.99)
            power[pilot.own].append(abs(float(fit_law(pilot.shots, capped, "power").accuracy([32])[0]) - true))
            held.append(told.low <= true <= told.high)
    assert np.mean(ours[True]) < 0.7 * np.mean(power[True])
    assert np.mean(ours[False]) < 0.02
    assert 0.84 <= np.mean(held) <= 0.96


def test_a_card_is_compared_with_the_mean_of_draws_and_a_test_set_with_each() -> None:
    """All curves are alike but for draws that are above and below by turns."""
    error = 0.6 * SIZES**-0.3
    curves = [
        Curve(f"curve {k}", f"family {k}", 10, tuple(map(int, SIZES)), tuple(1 - error * (1 + off)), ())
        for k in range(4)
        for off in (-0.1, 0.1, -0.1, 0.1)
    ]
    known = learn(curves)
    apart = (logit_of(1.1 * error, 10) - logit_of(0.9 * error, 10)) / 2
    x = np.arange(len(SIZES)) - CENTRE
    np.testing.assert_allclose(np.diag(known.covariance[True]), LEVEL + SLOPE * x**2, atol=1e-3)
    np.testing.assert_allclose(np.diag(known.covariance[False] - known.covariance[True]), apart**2, rtol=0.03)


def test_logits_go_there_and_back_and_their_slope_is_theirs() -> None:
    error = np.array([0.0, 0.01, 0.3, 0.7, 0.9])
    np.testing.assert_allclose(error_of(logit_of(error, 10), 10), error, atol=1e-12)
    step = 1e-6
    slope = (logit_of(error[1:4] + step, 10) - logit_of(error[1:4] - step, 10)) / (2 * step)
    np.testing.assert_allclose(slope_of(error[1:4], 10), slope, rtol=1e-6)


def test_a_hard_task_is_not_said_to_learn_fast() -> None:
    """Near chance with five classes what little is learnt goes on; cube roots expected 38 % in place of 33."""
    pilot = Pilot((1.0, 2.0, 4.0, 8.0), (0.22, 0.23, 0.25, 0.27), (0.02,) * 4, 5, True)
    ahead = forecast(pilot).accuracy([16.0, 32.0])[:, 0]
    assert 0.27 < ahead[0] < ahead[1] < 0.36


def test_less_noise_is_less_doubt() -> None:
    shots, accuracy = (1.0, 2.0, 4.0, 8.0), (0.5, 0.6, 0.68, 0.75)
    widths = []
    for spread in (0.1, 0.03, 0.005):
        told = forecast(Pilot(shots, accuracy, (spread,) * 4, 10, False)).at(16)
        widths.append(told.high - told.low)
    assert widths[0] > widths[1] > widths[2]


def test_points_known_exactly_are_met() -> None:
    pilot = Pilot((1.0, 2.0, 4.0, 8.0), (0.5, 0.6, 0.68, 0.75), (1e-6,) * 4, 10, False)
    u, deviation = posterior(pilot, np.array([1.0, 2.0, 4.0, 8.0]), curves_seen())
    np.testing.assert_allclose(1 - error_of(u, 10), pilot.accuracy, atol=1e-4)
    assert deviation.max() < 1e-3


@pytest.mark.parametrize("ways", [2, 5, 10])
def test_luck_does_not_look_like_certainty(ways: int) -> None:
    """Noise and slope at the error that was found would trust lucky points more: two points too little error."""
    seen, rng = curves_seen(), np.random.default_rng(0)
    shots = np.array([1.0, 2.0, 4.0, 8.0])
    usual = seen.mean[:4] @ np.array([1.0, math.log(ways)])
    true = error_of(usual, ways)
    found = []
    for accuracy in 1 - rng.binomial(16, true, (300, 4)) / 16:
        spread = binomial_spread(accuracy, np.full(4, 16))
        u, _ = posterior(Pilot(tuple(shots), tuple(accuracy), tuple(spread), ways, True), shots[-1:], seen)
        found.append(error_of(u, ways)[0])
    assert np.mean(found) == pytest.approx(true[-1], abs=0.012)


def test_what_is_required_is_within_the_horizon_or_not_said(seen: Seen) -> None:
    pilot = some_curves(1, 5)[0].pilots[1]
    told = forecast(pilot, seen)
    assert pilot.shots[-1] <= told.horizon <= FARTHEST * pilot.shots[-1]
    target = told.at(math.sqrt(told.horizon * 8)).value
    need = told.required(target)
    assert need.low <= need.value <= told.horizon
    assert need.value == pytest.approx(math.sqrt(told.horizon * 8), rel=0.02)
    assert told.required(0.9999).value == math.inf
    with pytest.raises(BadInput, match="between 0 and 1"):
        told.required(1.0)


def test_more_labels_are_never_said_to_need_fewer(seen: Seen) -> None:
    told = forecast(some_curves(1, 6)[0].pilots[1], seen)
    needs = [told.required(t).value for t in (0.5, 0.6, 0.7, 0.8, 0.9)]
    assert needs == sorted(needs)


def test_what_the_package_knows_is_whole() -> None:
    known = curves_seen()
    assert known.families >= 11
    assert min(np.linalg.eigvalsh(s).min() for s in known.covariance.values()) > 0
    assert known.covariance[False][0, 0] > 1.2 * known.covariance[True][0, 0]  # single draws of one shot vary more
    for low, high in known.tails.values():
        assert -5 < low < 0 < high < 5
    assert np.all(np.diff(known.mean @ [1, math.log(2)]) < 0.1)  # errors of two classes fall


def test_spreads_of_cards_and_of_test_sets() -> None:
    np.testing.assert_allclose(card_spread(np.array([0.4]), np.array([0.6])), 0.2 / 3.92)
    alone = binomial_spread(np.array([1.0, 0.5]), np.array([100, 100]))
    assert 0 < alone[0] < alone[1] == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"shots": (1.0, 2.0)}, "2 numbers of shots"),
        ({"shots": (2.0, 1.0, 4.0)}, "ascending"),
        ({"accuracy": (50.0, 60.0, 70.0)}, "percent"),
        ({"spread": (0.1, 0.0, 0.1)}, "above 0"),
        ({"ways": 1}, "two or more classes"),
    ],
)
def test_pilots_that_are_none_are_refused(change: dict, says: str) -> None:
    usual = {"shots": (1.0, 2.0, 4.0), "accuracy": (0.5, 0.6, 0.7), "spread": (0.1,) * 3, "ways": 2, "own": True}
    with pytest.raises(BadInput, match=says):
        Pilot(**{**usual, **change})
