"""Tuning with differential privacy: the norms that learn, clipping by example, the noise, and what is refused."""

from __future__ import annotations

import copy
import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from handful.errors import BadInput, HandfulError
from handful.tune import Data
from handful.tune.private import FromZero, PrivatelyTuned, PrivateTuning, film_parameters

pytest.importorskip("dp_accounting")
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "film_names.json").read_text(encoding="utf-8"))


class Net(nn.Module):
    """Vectors ``[n, 6]`` to features ``[n, 5]`` through a norm, whose scale and shift are no round numbers."""

    def __init__(self, norm: nn.Module | None = None) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.fc1, self.norm, self.fc2 = nn.Linear(6, 8), norm or nn.LayerNorm(8), nn.Linear(8, 5)
            with torch.no_grad():
                for parameter in self.norm.parameters():
                    parameter += 0.3 * torch.randn(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(torch.tanh(self.norm(self.fc1(x))))


@pytest.fixture
def net() -> Net:
    return Net().double().eval()


def examples(n: int = 12) -> Data:
    labels = torch.arange(n) % 3
    x = torch.randn(n, 6, generator=torch.Generator().manual_seed(0)) + 2 * torch.eye(6)[labels]
    return Data(x.double(), labels)


def study(**params: Any) -> PrivateTuning:
    how: dict[str, Any] = {"epsilon": None, "noise": "seeded", "batch_size": None, "epochs": 1, "optimizer": "sgd"}
    return PrivateTuning(**{**how, "lr": 1.0, "normalize": False, **params})


def numbers(found: PrivatelyTuned) -> Tensor:
    """All that learnt, end to end: scale, shift, then the head."""
    return torch.cat([p.detach().flatten() for p in (*found.delta.parameters(), *found.readout.parameters())])


def at_first(net: Net) -> Tensor:
    head = torch.zeros(3 * 5 + 3, dtype=torch.float64)
    return torch.cat([net.norm.weight.detach(), net.norm.bias.detach(), head])  # type: ignore[arg-type]


@pytest.mark.paper(3, oracle="b", part="film")
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("norm", [nn.LayerNorm(8), nn.BatchNorm1d(8), nn.GroupNorm(2, 8)])
def test_without_noise_and_clipping_it_is_plain_descent(norm: nn.Module, optimizer: str) -> None:
    net, data = Net(copy.deepcopy(norm)).double().eval(), examples()
    was = copy.deepcopy(net.state_dict())
    found = study(max_grad_norm=1e9, epochs=6, optimizer=optimizer, lr=0.05).fit(net, data)
    assert all(torch.equal(t, was[name]) for name, t in net.state_dict().items())
    theirs, head = copy.deepcopy(net), nn.Linear(5, 3).double()
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    learns = [*theirs.norm.parameters(), *head.parameters()]
    steps: Any = torch.optim.SGD(learns, 0.05, momentum=0.9)
    steps = torch.optim.Adam(learns, 0.05) if optimizer == "adam" else steps
    for _ in range(6):
        steps.zero_grad()
        nn.functional.cross_entropy(head(theirs(data.inputs)), data.labels).backward()
        steps.step()
    want = torch.cat([p.detach().flatten() for p in learns])
    torch.testing.assert_close(numbers(found), want, atol=1e-6, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(found.logits(data.inputs), head(theirs(data.inputs)), atol=1e-6, rtol=0)


@pytest.mark.paper(3, oracle="c", part="film")
def test_one_example_moves_everything_together_by_no_more_than_the_clipping_norm(net: Net) -> None:
    data, clip = examples(), 0.05
    far = Data(
        torch.cat([data.inputs, 100 * torch.ones(1, 6, dtype=torch.float64)]), torch.cat([data.labels, data.labels[:1]])
    )
    # From a head that is not zero, so that the gradient of the norms is not either: one free step first.
    free = study(max_grad_norm=1e9).fit(net, data)

    def moved(some: Data, step: PrivateTuning) -> Tensor:
        """The clipped sum: what one step moves, times how many there are."""
        here = copy.deepcopy(net)
        kept = free.delta.merge(here)
        readout = copy.deepcopy(free.readout)
        total = step._clipped(
            here, readout, some, torch.arange(len(some)), [*here.norm.parameters(), *readout.parameters()]
        )
        kept.undo()
        return torch.cat([g.flatten() for g in total])

    with_it, without = moved(far, study(max_grad_norm=clip)), moved(data, study(max_grad_norm=clip))
    assert float((with_it - without).norm()) == pytest.approx(clip, rel=1e-9)
    assert float((with_it - without)[:16].norm()) > 0.01 * clip
    # Each by itself, against gradients of the whole loss, one example at a time.
    want = torch.zeros(34, dtype=torch.float64)
    for row in range(len(data)):
        one = Data(data.inputs[row : row + 1], data.targets[row : row + 1])
        g = moved(one, study(max_grad_norm=1e9))
        want += g * min(1.0, clip / float(g.norm()))
    torch.testing.assert_close(without, want)


@pytest.mark.paper(3, oracle="d", part="film")
@pytest.mark.parametrize("noise", ["system", "seeded"])
def test_the_noise_has_the_size_that_was_counted(noise: Any) -> None:
    """Targets that are as likely as the head says at first have no gradient; what is left of a step is noise."""
    net = Net(nn.LayerNorm(8)).double().eval()
    wide = nn.Sequential(net, nn.Linear(5, 2480, bias=False).double()).eval()
    data = Data(examples(4).inputs, torch.full((4, 4), 0.25).double())
    tuning = study(epsilon=1.0, delta=1e-2, max_grad_norm=0.7, noise=noise)
    with pytest.warns(UserWarning, match="not private") if noise == "seeded" else nullcontext():
        found = tuning.fit(wide, data)
    assert found.spent is not None and found.spent.private == (noise == "system")
    start = torch.cat([*(p.detach() for p in net.norm.parameters()), torch.zeros(4 * 2480 + 4, dtype=torch.float64)])
    drawn = ((numbers(found) - start) / (tuning.plan(4).sigma * 0.7 / 4)).numpy()
    chi = (drawn**2).sum()
    within = 1e-3 < stats.chi2(len(drawn)).cdf(chi) < 1 - 1e-3
    assert within or (noise == "system" and abs(chi / len(drawn) - 1) < 0.08)
    assert stats.kstest(drawn, "norm").pvalue > 1e-5
    assert abs(drawn[:16]).max() > 0.5  # the norms got theirs


def test_coins_decide_who_joins(net: Net) -> None:
    tuning = study(batch_size=4, epochs=2, max_grad_norm=0.5)
    plan = tuning.plan(12)
    assert (plan.sampling_rate, plan.steps) == (1 / 3, 6)
    one, two = (tuning.fit(net, examples()) for _ in range(2))
    assert torch.equal(numbers(one), numbers(two))
    other = study(batch_size=4, epochs=2, max_grad_norm=0.5, seed=5).fit(net, examples())
    assert not torch.equal(numbers(one), numbers(other))


@pytest.mark.paper(3, oracle="b", part="film")
def test_a_step_over_some_examples_is_plain_descent_on_their_sum_by_how_many_are_expected(net: Net) -> None:
    weight = torch.linspace(0.2, 2, 12)
    data, tuning = replace(examples(), weight=weight), study(batch_size=4, max_grad_norm=1e9, lr=0.3, seed=3)
    coins, theirs, head = tuning._budget.source(3), copy.deepcopy(net), nn.Linear(5, 3).double()
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    learns = [*theirs.norm.parameters(), *head.parameters()]
    steps = torch.optim.SGD(learns, 0.3, momentum=0.9)
    for _ in range(3):
        joined = coins.uniform(12) < 1 / 3
        assert 0 < int(joined.sum()) != 4
        steps.zero_grad()
        each = nn.functional.cross_entropy(head(theirs(data.inputs)), data.labels, reduction="none")
        ((weight * each)[joined].sum() / 4).backward()
        steps.step()
    want = torch.cat([p.detach().flatten() for p in learns])
    torch.testing.assert_close(numbers(tuning.fit(net, data)), want, atol=1e-6, rtol=0)


def test_what_learns(net: Net) -> None:
    data = examples()
    counts = {kind: study(trains=kind).fit(net, data).delta.trainable() for kind in ("head", "film", "all")}
    assert counts == {"head": 0, "film": 16, "all": sum(p.numel() for p in net.parameters())}
    head = study(trains="head", epochs=5, normalize=True).fit(net, data)
    assert isinstance(head.readout, FromZero) and head.readout.normalize


def test_the_encoder_has_a_rate_of_its_own(net: Net) -> None:
    data, was = examples(), at_first(net)
    how: dict[str, Any] = {"epochs": 3, "max_grad_norm": 1e9}
    still, slow, alike = (study(encoder_lr=rate, **how).fit(net, data) for rate in (0.0, 0.1, None))
    assert torch.equal(numbers(still)[:16], was[:16])
    head = study(trains="head", **how).fit(net, data)
    torch.testing.assert_close(numbers(still)[16:], numbers(head), atol=1e-12, rtol=0)
    far = [float((numbers(found) - was)[:16].norm()) for found in (slow, alike)]
    assert 0 < far[0] < 0.5 * far[1]


def test_more_budget_is_more_accuracy(net: Net) -> None:
    data, right = examples(90), []
    for epsilon in (0.1, 20.0):
        with pytest.warns(UserWarning, match="not private"):
            found = study(epsilon=epsilon, epochs=20, lr=0.5, seed=3).fit(net, data)
        right.append(float((found.logits(data.inputs).argmax(1) == data.labels).double().mean()))
    assert right[1] > 0.7 and right[1] > right[0] + 0.1


class Named(nn.Module):
    """Modules under the names of the authors' networks."""

    def __init__(self, kinds: dict[str, list[str]]) -> None:
        super().__init__()
        for block, names in kinds.items():
            made = nn.ModuleDict(
                {n: nn.GroupNorm(1, 2) if n.startswith(("gn", "norm")) else nn.Linear(2, 2) for n in names}
            )
            self.add_module(block, made)


@pytest.mark.parametrize("case", GOLDEN["inputs"], ids=lambda case: case["network"])
def test_the_norms_are_those_of_the_authors(case: dict[str, Any]) -> None:
    net = Named(case["modules"])
    named = GOLDEN["expected"][GOLDEN["inputs"].index(case)]
    assert list(film_parameters(net, case["norms"])) == list(dict.fromkeys(named))  # theirs has some twice


def test_bad_input(net: Net) -> None:
    data = examples()
    for wrong, complaint in (
        ({"trains": "some"}, "trains is one of"),
        ({"epsilon": 0.0}, "epsilon must be a finite number above 0"),
        ({"delta": 1.5}, "delta is a number between"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"epochs": -1}, "epochs must be"),
        ({"lr": 0.0}, "lr must be"),
        ({"encoder_lr": -1.0}, "encoder_lr must not be negative"),
        ({"optimizer": "lion"}, "optimizer is one of"),
        ({"noise": "none"}, "noise is one of"),
        ({"noise": "system", "seed": 3}, "private noise takes no seed"),
    ):
        with pytest.raises(BadInput, match=complaint):
            study(**wrong)
    with pytest.raises(BadInput, match="at least two examples"):
        study().fit(net, Data(data.inputs[:1], data.targets[:1]))
    spoilt = data.inputs.clone()
    spoilt[7, 2] = torch.nan
    with pytest.raises(HandfulError, match="the gradient of example 7 is no number"):
        study().fit(net, Data(spoilt, data.labels))
    with pytest.raises(BadInput, match="no normalisation that fits 'gn'"):
        study(norms="gn").fit(net, data)
    with pytest.raises(BadInput, match="no regular expression"):
        study(norms="(").fit(net, data)
    with pytest.raises(BadInput, match="no normalisation that could learn"):
        film_parameters(nn.Sequential(nn.Linear(2, 2)))
    batch = Net(nn.BatchNorm1d(8)).double()
    with pytest.raises(BadInput, match=r"norm normalises over the batch and is in training mode: call model.eval"):
        study().fit(batch, data)
    with pytest.raises(BadInput, match="has no statistics of its own; or put a GroupNorm"):
        study().fit(Net(nn.BatchNorm1d(8, track_running_stats=False)).double().eval(), data)
    with pytest.warns(UserWarning, match="giving one example away whole"):
        PrivateTuning(delta=0.5, epochs=1).fit(net, data)
    with pytest.raises(BadInput, match="too small for"):
        PrivateTuning(epsilon=1e-4, delta=1e-9, batch_size=None).plan(10)
