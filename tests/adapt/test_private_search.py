"""A search of hyper-parameters that pays: what it spends, what it tries, and what the attack finds."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from handful.adapt.private import Descent, PrivateLogistic
from handful.adapt.private_search import PrivateSearch, best, propose
from handful.core.noise import Source
from handful.core.task import make_task
from handful.errors import BadInput
from handful.evaluate.membership import dp_bound, lira_audit, shadow_heads

dp_accounting = pytest.importorskip("dp_accounting")
FINITE: dict[str, Any] = {"optimizer": "sgd", "epochs": (1, 12), "lr": (0.1, 8.0), "max_grad_norm": (0.5, 2.0)}


@pytest.fixture(autouse=True)
def quiet() -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "not private")
        yield


@pytest.mark.paper(3, oracle="a", part="hyper-parameter-search")
@pytest.mark.parametrize(("epsilon", "trials", "share"), [(1.0, 20, 0.5), (8.0, 3, 0.2)])
def test_all_runs_together_spend_no_more_than_was_promised(epsilon: float, trials: int, share: float) -> None:
    """Every trial and the last run counted one by one, each with its own number of steps."""
    from dp_accounting.rdp import RdpAccountant

    from handful.core.accounting import ORDERS

    n, draw = 200, np.random.default_rng(0)
    _, trial, last = PrivateSearch(epsilon=epsilon, trials=trials, share=share).noises(n)
    counted = RdpAccountant(ORDERS)
    for steps, noise in [*((int(t), trial) for t in draw.integers(1, 200, trials)), (37, last)]:
        step = dp_accounting.GaussianDpEvent(noise * math.sqrt(steps))
        counted.compose(dp_accounting.SelfComposedDpEvent(step, steps))
    assert counted.get_epsilon(1 / n) == pytest.approx(epsilon, rel=2e-3)
    assert counted.get_epsilon(1 / n) <= epsilon + 1e-9
    hits = RdpAccountant(ORDERS)  # an example that is judged on instead of learnt from
    for _ in range(trials):
        hits.compose(dp_accounting.GaussianDpEvent(trial))
    step = dp_accounting.GaussianDpEvent(last * math.sqrt(37))
    hits.compose(dp_accounting.SelfComposedDpEvent(step, 37))
    assert hits.get_epsilon(1 / n) == pytest.approx(counted.get_epsilon(1 / n), rel=1e-9)


@pytest.mark.paper(3, oracle="b", part="hyper-parameter-search")
def test_without_noise_it_is_the_plain_search_and_then_all_examples(
    blobs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same coins and places drawn by hand; trials and the last run by the head that does not search."""
    x, y = blobs(shots=15, noise=2.0)
    monkeypatch.setattr("handful.adapt.private_search.propose", lambda tried, scores, noise, rng: rng.random(3))
    found = PrivateSearch(epsilon=None, noise="seeded", random_state=5, trials=6, **FINITE).fit(x, y)
    source = Source.seeded(5)
    rng = np.random.default_rng(np.frombuffer(source.take(32), dtype=np.uint32))
    settings, right = [], []
    for _ in range(6):
        place = rng.random(3)
        passes, clip, rate = 1 + place[0] * 11, 0.5 + place[1] * 1.5, 0.1 + place[2] * 7.9
        setting: dict[str, Any] = {"epochs": round(passes), "max_grad_norm": clip, "lr": rate}
        first = (source.uniform(len(x)) < 0.7).numpy()
        # Its step divides by the examples there are, where the search divides by those expected: 0.7 n.
        setting_here = setting | {"lr": rate * first.sum() / (0.7 * len(x))}
        learnt = plain(setting_here).fit(x[first], y[first])
        source.normal(1)
        settings.append(setting)
        right.append((learnt.predict(x[~first]) == y[~first]).sum())
    whole = plain(settings[int(np.argmax(right))]).fit(x, y)
    torch.testing.assert_close(found.state_["weight"], whole.state_["weight"])
    torch.testing.assert_close(found.state_["bias"], whole.state_["bias"])
    assert found.searched()["found"] == pytest.approx(settings[int(np.argmax(right))])
    assert len(set(right)) > 1  # or nothing was chosen


def plain(setting: dict[str, Any]) -> PrivateLogistic:
    return PrivateLogistic(epsilon=None, noise="seeded", batch_size=None, optimizer="sgd", **setting)


@pytest.mark.paper(3, oracle="d", part="hyper-parameter-search")
def test_noise_has_the_size_that_was_counted(blobs: Any) -> None:
    """Where rows are zero there is no gradient: weights are noise of s_f sqrt(T) C a step over n. Hits move by s_t."""
    n, width, steps = 4, 2500, 4
    x = torch.zeros(n, width, dtype=torch.float64)
    x[:, 0] = 1.0
    task = make_task(x, torch.full((n, 4), 0.25))
    how: dict[str, Any] = {"epochs": (steps, steps), "lr": (1.0, 1.0), "max_grad_norm": (0.7, 0.7), "optimizer": "sgd"}
    search = PrivateSearch(epsilon=1.0, delta=1e-2, trials=2, noise="seeded", **how)
    _, trial, last = search.noises(n)
    drawn = search.adapt(task)["weight"][:, 1:].flatten().numpy()
    moved = math.sqrt(sum(((1 - 0.9**left) / 0.1) ** 2 for left in range(1, steps + 1)))  # momentum 0.9
    assert drawn.std() / (last * math.sqrt(steps) * 0.7 / n * moved) == pytest.approx(1, abs=0.03)
    assert abs(drawn.mean()) < 0.03 * drawn.std()
    source, real = Source.seeded(1), torch.ones(n, dtype=torch.bool)
    hits = [search._hits(task, x, real, (1, 0.7, 1.0), trial, source) for _ in range(300)]
    assert np.std(hits) == pytest.approx(trial, rel=0.15)


def test_every_run_has_its_noise(blobs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[Descent] = []
    plain_run = Descent.weights

    def note(self: Descent, *args: Any) -> torch.Tensor:
        runs.append(self)
        return plain_run(self, *args)

    monkeypatch.setattr(Descent, "weights", note)
    search = PrivateSearch(epsilon=2.0, trials=3, **FINITE).fit(*blobs())
    _, trial, last = search.noises(24)
    for run, noise, size in zip(runs, (trial, trial, trial, last), (16.8, 16.8, 16.8, 24), strict=True):
        assert float(run.sigma) == pytest.approx(noise * math.sqrt(float(run.steps)))
        assert (float(run.q), float(run.size)) == (1.0, pytest.approx(size))


@pytest.mark.paper(3, oracle="f", part="hyper-parameter-search")
def test_the_attack_stays_below_the_bound() -> None:
    draw = np.random.default_rng(3)
    x, y = draw.normal(size=(40, 60)), np.arange(40) % 4
    made = {"delta": 0.01, "noise": "seeded", "random_state": 0, "trials": 4, **FINITE}
    found = lira_audit(shadow_heads(PrivateSearch(epsilon=1.0, **made)), x, y, 24)
    fpr, tpr = found.rates()
    bound, members = dp_bound(fpr, 1.0, 0.01), 24 * len(x) / 2
    assert (tpr <= bound + 3 * np.sqrt(bound * (1 - bound) / members) + 3 / members).all()
    assert lira_audit(shadow_heads(PrivateSearch(epsilon=None, **made)), x, y, 24).auc > found.auc + 0.1


def test_it_finds_a_rate_that_works(blobs: Any) -> None:
    """One half of the rates does nothing; hits are noisy, and the budget is kept."""
    x, y = blobs(shots=300)
    how: dict[str, Any] = {"optimizer": "sgd", "epochs": (5, 5), "max_grad_norm": (1.0, 1.0), "lr": (1e-4, 4.0)}
    learnt = PrivateSearch(epsilon=8.0, **how).fit(x, y)
    assert learnt.searched()["found"]["lr"] > 0.3 and learnt.score(x, y) > 0.8
    spent = learnt.privacy_spent_
    assert spent.private and 7.9 < spent.epsilon <= 8.0
    assert (spent.n, spent.steps, spent.sampling_rate, spent.max_grad_norm) == (1200, 5, 1.0, 1.0)
    s, trial, last = learnt.noises(1200)
    assert spent.sigma == pytest.approx(last * math.sqrt(5))
    assert 20 / trial**2 + 1 / last**2 == pytest.approx(1 / s**2)


def test_the_process_goes_where_hits_were_many() -> None:
    draw = np.random.default_rng(0)
    tried = draw.random((15, 3))
    scores = 1 - np.square(tried - 0.5).sum(1)
    near = np.array([propose(tried, scores, 0.01, np.random.default_rng(i)) for i in range(5)])
    assert np.abs(near - 0.5).mean() < 0.15
    scores[3] += 0.6  # luck, by the noise that is known
    assert best(tried, scores, 0.5) != 3 and best(tried, scores, 0.0) == 3


@pytest.mark.parametrize(("trials", "asked"), [(1, 0), (5, 2), (20, 10)])
def test_the_first_half_of_the_trials_is_drawn_at_random(
    blobs: Any, monkeypatch: pytest.MonkeyPatch, trials: int, asked: int
) -> None:
    seen: list[int] = []

    def note(tried: np.ndarray, scores: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
        seen.append(len(tried))
        return rng.random(3)

    monkeypatch.setattr("handful.adapt.private_search.propose", note)
    PrivateSearch(trials=trials, **FINITE).fit(*blobs())
    assert seen == list(range(trials - asked, trials))


def test_two_searches_differ_and_a_seed_is_no_privacy(blobs: Any) -> None:
    x, y = blobs()
    one, two = (PrivateSearch(trials=2, **FINITE).fit(x, y) for _ in range(2))
    assert not torch.equal(one.state_["weight"], two.state_["weight"])
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with pytest.warns(UserWarning, match="not private"):
            seeded = PrivateSearch(noise="seeded", trials=2, **FINITE).fit(x, y)
    assert not seeded.privacy_spent_.private


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"trials": 0}, "trials must"),
        ({"share": 0.0}, "share must"),
        ({"share": 1.0}, "leaves no budget for the last run"),
        ({"epochs": 20}, "epochs of a search are two numbers"),
        ({"epochs": (0, 5)}, "epochs must be a whole number from 1"),
        ({"lr": (0.1, math.inf)}, "lr must be a finite number above 0"),
        ({"max_grad_norm": (2.0, 1.0)}, "the least comes first"),
        ({"epsilon": 0.0}, "epsilon must be"),
        ({"epsilon": 1e-7, "delta": 1e-9}, "too small for 1 step"),
        ({"delta": 1.5}, "delta is a number"),
        ({"optimizer": "lbfgs"}, "optimizer is one of"),
        ({"random_state": 0}, "private noise takes no seed"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(blobs: Any, bad: dict[str, Any], said: str) -> None:
    x, y = blobs()
    with pytest.raises(BadInput, match=said):
        PrivateSearch(**bad).fit(x, y)
