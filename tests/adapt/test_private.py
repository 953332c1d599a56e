"""Private softmax regression: the accountant, the clipping, the noise, and what is refused."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from handful.adapt import head
from handful.adapt.private import PrivateLogistic
from handful.core.accounting import ORDERS, epsilon_of, noise_for
from handful.core.noise import Source
from handful.core.task import Query, make_task
from handful.errors import BadInput

dp_accounting = pytest.importorskip("dp_accounting")


def study(**params: Any) -> PrivateLogistic:
    return PrivateLogistic(noise="seeded", **params)


@pytest.mark.paper(3, oracle="a", part="private-head")
@pytest.mark.parametrize(("sigma", "steps", "delta"), [(30.0, 400, 1e-2), (2.0, 1, 1e-5), (5.0, 10, 1e-3)])
def test_full_batches_are_the_gaussian_mechanism(sigma: float, steps: int, delta: float) -> None:
    a = np.asarray(ORDERS)
    rdp = steps * a / (2 * sigma**2)
    tight = rdp - (np.log(delta) + np.log(a)) / (a - 1) + np.log((a - 1) / a)
    plain = rdp + np.log(1 / delta) / (a - 1)
    assert epsilon_of(sigma, 1.0, steps, delta) == pytest.approx(max(tight.min(), 0), rel=1e-9)
    assert epsilon_of(sigma, 1.0, steps, delta) < plain.min()


@pytest.mark.paper(3, oracle="a", part="private-head")
def test_sampled_batches_lie_between_no_and_the_exact_amplification() -> None:
    """Another accountant of the package, by the distribution of the privacy loss, is tighter, and not by much."""
    from dp_accounting.pld import PLDAccountant

    step = dp_accounting.PoissonSampledDpEvent(0.25, dp_accounting.GaussianDpEvent(4.0))
    exact = PLDAccountant().compose(dp_accounting.SelfComposedDpEvent(step, 40)).get_epsilon(1e-2)
    assert exact < epsilon_of(4.0, 0.25, 40, 1e-2) < min(1.4 * exact, epsilon_of(4.0, 1.0, 40, 1e-2))


def test_one_step_integer_orders_by_the_binomial_sum() -> None:
    """Mironov, Talwar, Zhang 2019, equation 5, from which the best order is taken by hand."""
    q, sigma, delta = 0.2, 1.5, 1e-3

    def rdp(a: int) -> float:
        terms = [
            math.comb(a, k) * (1 - q) ** (a - k) * q**k * math.exp((k * k - k) / (2 * sigma**2)) for k in range(a + 1)
        ]
        return math.log(sum(terms)) / (a - 1)

    whole = min(rdp(a) - (math.log(delta) + math.log(a)) / (a - 1) + math.log((a - 1) / a) for a in range(2, 30))
    assert epsilon_of(sigma, q, 1, delta) == pytest.approx(whole, rel=0.02)
    assert epsilon_of(sigma, q, 1, delta) <= whole + 1e-9


@pytest.mark.parametrize("q", [1.0, 0.25])
def test_the_noise_is_enough_and_hardly_more(q: float) -> None:
    sigma = noise_for(1.0, 0.01, q, 20)
    assert epsilon_of(sigma, q, 20, 0.01) <= 1.0 < epsilon_of(sigma / 1.002, q, 20, 0.01)


def test_an_epsilon_no_noise_is_enough_for() -> None:
    with pytest.raises(BadInput, match="too small for 400 steps"):
        noise_for(1e-4, 1e-9, 1.0, 400)


@pytest.mark.paper(3, oracle="b", part="private-head")
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_without_noise_and_clipping_it_is_plain_descent(optimizer: str, blobs: Any) -> None:
    x, y = blobs()
    got = study(
        epsilon=None, max_grad_norm=1e9, epochs=7, lr=0.1, optimizer=optimizer, normalize=False, batch_size=1000
    ).fit(x, y)
    z = torch.cat([torch.as_tensor(x), torch.ones(len(x), 1, dtype=torch.float64)], 1)
    w = torch.zeros(4, 11, dtype=torch.float64, requires_grad=True)
    first, second = torch.zeros_like(w), torch.zeros_like(w)
    for step in range(1, 8):
        (g,) = torch.autograd.grad(torch.nn.functional.cross_entropy(z @ w.T, torch.as_tensor(y)), w)
        if optimizer == "sgd":
            first = 0.9 * first + g
            moved = first
        else:
            first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g * g
            moved = first / (1 - 0.9**step) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        w = (w - 0.1 * moved).detach().requires_grad_()
    torch.testing.assert_close(got.state_["weight"], w.detach()[:, :-1], atol=1e-6, rtol=0)
    torch.testing.assert_close(got.state_["bias"], w.detach()[:, -1], atol=1e-6, rtol=0)


@pytest.mark.paper(3, oracle="c", part="private-head")
def test_one_example_moves_the_weights_by_no_more_than_the_clipping_norm(blobs: Any) -> None:
    x, y = blobs(shots=3)
    far = np.concatenate([x, 1e4 * np.ones((1, 10))])
    how: dict[str, Any] = {"epsilon": None, "epochs": 1, "lr": 1.0, "optimizer": "sgd", "normalize": False}
    clip, labels = 0.5, np.append(y, 0)
    outlier = np.zeros(len(labels))
    outlier[-1] = 1.0

    def weights(keep: np.ndarray) -> torch.Tensor:
        task = make_task(torch.as_tensor(far), torch.as_tensor(labels), ways=4, weight=torch.as_tensor(keep))
        state = study(max_grad_norm=clip, **how).adapt(task)
        return int(keep.sum()) * torch.cat([state["weight"], state["bias"][:, None]], -1)  # times B: the clipped sum

    with_it, without = weights(np.ones(len(labels))), weights(1 - outlier)
    assert float((with_it - without).norm()) == pytest.approx(clip, rel=1e-9)


def test_the_gradient_of_each_example_is_clipped_by_its_own_norm(blobs: Any) -> None:
    """Against gradients made one by one by autograd."""
    x, y = blobs(shots=3)
    clip, total = 0.3, torch.zeros(4, 11, dtype=torch.float64)
    for row, label in zip(x, y, strict=True):
        w = torch.zeros(4, 11, dtype=torch.float64, requires_grad=True)
        z = torch.as_tensor(np.append(row / np.linalg.norm(row), 1.0))
        (g,) = torch.autograd.grad(torch.nn.functional.cross_entropy((w @ z)[None], torch.tensor([label])), w)
        total += g * min(1.0, clip / float(g.norm()))
    got = study(epsilon=None, max_grad_norm=clip, epochs=1, lr=1.0, optimizer="sgd").fit(x, y).state_
    torch.testing.assert_close(torch.cat([got["weight"], got["bias"][:, None]], -1), -total / len(x))


@pytest.mark.paper(3, oracle="d", part="private-head")
@pytest.mark.parametrize("noise", ["system", "seeded"])
def test_the_noise_has_the_size_that_was_counted(noise: Any) -> None:
    """Symmetric rows have no gradient; what is left of a step is noise of sigma C / B."""
    width = 2499
    x = torch.zeros(4, width, dtype=torch.float64)
    x[:, 0] = 1.0
    task = make_task(x, torch.full((4, 4), 0.25))  # at zero weights every class is as likely as its label says
    how: dict[str, Any] = {"epsilon": 1.0, "delta": 1e-2, "epochs": 1, "lr": 1.0, "optimizer": "sgd"}
    learner = PrivateLogistic(max_grad_norm=0.7, noise=noise, **how)
    state = learner.adapt(task)
    drawn = torch.cat([state["weight"].flatten(), state["bias"]]).numpy() / (learner.plan(4).sigma * 0.7 / 4)
    assert len(drawn) == 10_000
    chi = np.square(drawn).sum()
    assert 1e-3 < stats.chi2(10_000).cdf(chi) < 1 - 1e-3 or (noise == "system" and abs(chi / 1e4 - 1) < 0.08)
    assert stats.kstest(drawn, "norm").pvalue > 1e-5


def test_numbers_out_of_bytes() -> None:
    assert Source(lambda n: b"\xff" * n).uniform(3).tolist() == [1 - 2.0**-54] * 3
    assert float(Source(bytes).uniform(1)) == 2.0**-54
    normal = Source.seeded(0).normal(3, 33_333)
    assert normal.shape == (3, 33_333)
    assert stats.kstest(normal.flatten().numpy(), "norm").pvalue > 1e-3
    assert abs(float(np.corrcoef(normal.flatten()[:49_999], normal.flatten()[50_000:])[0, 1])) < 0.02
    assert not torch.equal(Source.system().normal(4), Source.system().normal(4))


def test_examples_join_by_their_own_coins() -> None:
    """With one step and a batch of half the rows, the number of rows that count is binomial."""
    n = 4000
    x = torch.ones(n, 1, dtype=torch.float64)
    task = make_task(x, torch.zeros(n, dtype=torch.long), ways=2)
    state = study(epsilon=None, epochs=1, batch_size=n // 2, optimizer="sgd", lr=1.0, max_grad_norm=1e-3).adapt(task)
    once = study(epsilon=None, epochs=1, batch_size=n, optimizer="sgd", lr=1.0, max_grad_norm=1e-3).adapt(task)
    assert study(batch_size=n // 2, epochs=3, epsilon=None).plan(n).steps == 6
    # Two steps of about n/2 rows each with momentum 0.9: 1.9 times the first and once the second, over B = n/2.
    share = float(state["weight"][0, 0] / once["weight"][0, 0])
    assert share != pytest.approx(2.9, abs=1e-9)
    assert abs(share - 2.9) < 5 * 2.2 / math.sqrt(n)


def test_what_was_spent_is_told(blobs: Any) -> None:
    x, y = blobs(shots=5)
    spent = PrivateLogistic(epsilon=2.0, epochs=10).fit(x, y).privacy_spent_
    assert spent.private
    assert (spent.n, spent.delta, spent.steps, spent.sampling_rate) == (20, 1 / 20, 10, 1.0)
    assert 1.98 < spent.epsilon <= 2.0
    assert spent.replace_one == (2 * spent.epsilon, pytest.approx((1 + math.exp(spent.epsilon)) / 20))
    assert "dp-accounting" in spent.as_dict()["accountant"]
    assert not PrivateLogistic(epsilon=None, epochs=1).fit(x, y).privacy_spent_.private


def test_only_weights_are_kept(blobs: Any) -> None:
    x, y = blobs()
    fitted = PrivateLogistic(epochs=2).fit(x, y)
    assert {name: tuple(t.shape) for name, t in fitted.state_.items()} == {"weight": (4, 10), "bias": (4,)}


def test_two_fits_differ_and_a_seed_is_no_privacy(blobs: Any) -> None:
    x, y = blobs()
    one, two = (PrivateLogistic(epochs=2).fit(x, y).state_["weight"] for _ in range(2))
    assert not torch.equal(one, two)
    with pytest.warns(UserWarning, match="not private: the noise comes from a seed"):
        a = study(epochs=2, random_state=1).fit(x, y)
    with pytest.warns(UserWarning, match="not private"):
        b = study(epochs=2, random_state=1).fit(x, y)
    assert torch.equal(a.state_["weight"], b.state_["weight"])
    assert not a.privacy_spent_.private


def test_a_batch_of_tasks_of_different_sizes_counts_each_by_itself(blobs: Any) -> None:
    x, y = blobs(shots=5)
    keep = np.ones((2, 20))
    keep[1, [0, 1, 5, 10]] = 0
    task = make_task(
        torch.as_tensor(x).expand(2, 20, 10), torch.as_tensor(y).expand(2, 20), weight=torch.as_tensor(keep)
    )
    learner = study(epsilon=None, batch_size=16, epochs=3, optimizer="sgd", lr=1.0)
    assert [learner.plan(n).steps for n in (20, 16)] == [6, 3]
    alone = learner.adapt(make_task(torch.as_tensor(x[keep[1] > 0]), torch.as_tensor(y[keep[1] > 0])))
    torch.testing.assert_close(learner.adapt(task)["weight"][1], alone["weight"])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"epsilon": 0.0}, "epsilon must be a finite number above 0"),
        ({"epsilon": math.inf}, "epsilon must be a finite number"),
        ({"delta": 1.5}, "delta is a number between 0 and 1"),
        ({"max_grad_norm": 0.0}, "max_grad_norm"),
        ({"batch_size": 0}, "batch_size"),
        ({"optimizer": "lbfgs"}, "optimizer"),
        ({"noise": "none"}, "noise"),
        ({"random_state": 0}, "private noise takes no seed"),
    ],
)
def test_bad_parameters(params: dict[str, Any], message: str, blobs: Any) -> None:
    with pytest.raises(BadInput, match=message):
        head("private-logistic", **params).fit(*blobs())


def test_a_delta_that_allows_to_give_one_example_away_is_warned_of(blobs: Any) -> None:
    with pytest.warns(UserWarning, match="giving one example away whole"):
        PrivateLogistic(delta=0.5, epochs=1).fit(*blobs())


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch, blobs: Any) -> None:
    epsilon_of.cache_clear()
    noise_for.cache_clear()
    monkeypatch.setitem(sys.modules, "dp_accounting.rdp", None)
    with pytest.raises(BadInput, match=r'pip install "handful\[private\]"'):
        PrivateLogistic(epochs=3).fit(*blobs())


def test_more_budget_is_more_accuracy(blobs: Any) -> None:
    x, y = blobs(shots=40)
    new, labels = x[::2], y[::2]
    task = make_task(torch.as_tensor(x[1::2]), torch.as_tensor(y[1::2]), query=Query(torch.as_tensor(new)))
    right = [
        float((study(epsilon=e, epochs=100, lr=0.03).logits(task).argmax(-1).numpy() == labels).mean())
        for e in (0.02, 1.0, None)
    ]
    assert right[0] < right[1] - 0.1
    assert right[1] > 0.7
    assert right[2] > 0.9
