"""LoRA-SB (148): the start, what the gradient of R is, and the authors' code."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.errors import BadInput
from handful.tune import BRA, Data, Delta, FirstStep, Linear, LoRA, Placed, Recipe, Seen, Stage, Where, tune
from handful.tune.lora_sb import LoRASB, factors
from handful.tune.pace import rate_at
from handful.tune.recipes import recipe

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "lora_sb.json").read_text(encoding="utf-8"))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.fc1, self.fc2 = nn.Linear(8, 12), nn.Linear(12, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(torch.tanh(self.fc1(x)))  # type: ignore[no-any-return]


@pytest.fixture
def net() -> Net:
    return Net().eval()


@pytest.fixture
def data() -> Data:
    x = torch.randn(10, 8, generator=torch.Generator().manual_seed(0))
    return Data(x, torch.arange(10) % 7)


def started(net: nn.Module, data: Data, change: BRA, start: FirstStep) -> Delta:
    recipe = Recipe((Placed(change),), stages=(Stage(steps=1, lr=0.0, batch=len(data)),), start=start)
    return tune(net, data, recipe).delta


def signs(net: Net, data: Data) -> dict[str, Tensor]:
    loss = functional.cross_entropy(net(data.inputs), data.labels)
    return {
        name: g.sign()
        for name, g in zip(("fc1", "fc2"), torch.autograd.grad(loss, [net.fc1.weight, net.fc2.weight]), strict=True)
    }


@pytest.mark.paper(148, oracle="a")
@pytest.mark.parametrize("rank", [1, 3, 5])
def test_the_start_is_the_best_of_its_rank(net: Net, data: Data, rank: int) -> None:
    stage = Stage(steps=100, lr=0.2, warmup=0.1)
    delta = started(net, data, BRA(rank, 0.5), FirstStep(stage, examples=10, batch=3))
    eta = 0.2 / (0.1 * 100)  # lr over the steps of the warm-up
    for name, sign in signs(net, data).items():
        h = next(h for h in delta.holders if h.site == name)
        left = (-eta * sign - 0.5 * h.B @ h.R @ h.A).double().square().sum()
        tail = torch.linalg.svdvals(eta * sign.double())[rank:].square().sum()
        torch.testing.assert_close(left, tail, atol=1e-7, rtol=1e-4)


@pytest.mark.paper(148, oracle="b")
def test_the_bases_are_orthonormal(net: Net, data: Data) -> None:
    before = Delta.begin(net, [Placed(BRA(4))], torch.Generator().manual_seed(2))
    for delta in (before, started(net, data, BRA(4), FirstStep(Stage(steps=9), 10))):
        for h in delta.holders:
            torch.testing.assert_close(h.B.mT @ h.B, torch.eye(4), atol=1e-5, rtol=0)
            torch.testing.assert_close(h.A @ h.A.mT, torch.eye(4), atol=1e-5, rtol=0)


@pytest.mark.paper(148, oracle="c")
@pytest.mark.parametrize("scale", [1.0, 2.0])
@pytest.mark.parametrize("orthonormal", [True, False])
def test_a_gradient_of_r_is_the_best_fit_to_that_of_w(scale: float, orthonormal: bool) -> None:
    g = torch.Generator().manual_seed(3)
    b, a, full = (torch.randn(*shape, generator=g, dtype=torch.float64) for shape in ((6, 2), (2, 5), (6, 5)))
    if orthonormal:
        b, a = torch.linalg.qr(b)[0], torch.linalg.qr(a.mT)[0].mT
    r = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    w = torch.randn(6, 5, generator=g, dtype=torch.float64)
    plain = scale == 1 and orthonormal
    change = BRA(2, scale, precondition=not plain)
    (x,) = torch.autograd.grad((full * change.weight(w, {"B": b, "R": r, "A": a})).sum(), r)
    design = torch.kron((scale * b).contiguous(), a.mT.contiguous())  # vec of s B X A is this times vec X, rows first
    best = torch.linalg.lstsq(design, full.flatten()[:, None]).solution.reshape(2, 2)
    torch.testing.assert_close(x, best, atol=1e-9, rtol=0)


@pytest.mark.paper(148, oracle="d")
def test_at_full_rank_the_first_loss_is_that_after_a_full_step(net: Net, data: Data) -> None:
    eta = 0.02
    recipe = Recipe(
        (Placed(BRA(7), Where(names="fc2")),),
        stages=(Stage(steps=1, batch=10),),
        start=FirstStep(Stage(steps=1), examples=10, eta=eta),
    )
    first = tune(net, data, recipe).losses[0]
    sign = signs(net, data)["fc2"]
    with torch.no_grad():
        net.fc2.weight -= eta * sign
        assert first == pytest.approx(float(functional.cross_entropy(net(data.inputs), data.labels)), abs=1e-5)


@pytest.mark.paper(148, oracle="e")
def test_the_scale_does_not_matter_once_the_gradient_is_right() -> None:
    g = torch.Generator().manual_seed(4)
    b, a, w, goal, r = (torch.randn(*s, generator=g) for s in ((6, 2), (2, 5), (6, 5), (6, 5), (2, 2)))
    found = []
    for scale in (1.0, 2.0):
        change, core = BRA(2, scale, precondition=True), (r / scale).requires_grad_()
        for _ in range(20):
            loss = (change.weight(w, {"B": b, "R": core, "A": a}) - goal).square().sum()
            (x,) = torch.autograd.grad(loss, core)
            core = (core - 0.05 * x).detach().requires_grad_()
        found.append(change.weight(w, {"B": b, "R": core, "A": a}).detach())
    torch.testing.assert_close(*found, atol=1e-4, rtol=1e-4)


@pytest.mark.paper(148, oracle="f")
def test_a_quadratic_loss_ends_at_its_minimum_within_the_bases(net: Net) -> None:
    g = torch.Generator().manual_seed(5)
    change = BRA(3)
    begun = change.begin(torch.zeros(6, 5), g)
    b, a = begun.fixed["B"], begun.fixed["A"]
    w, goal, r = torch.randn(6, 5, generator=g), torch.randn(6, 5, generator=g), begun.trained["R"].requires_grad_()
    for _ in range(200):
        loss = (change.weight(w, {**begun.fixed, "R": r}) - goal).square().sum() / 2
        r = (r - 0.2 * torch.autograd.grad(loss, r)[0]).detach().requires_grad_()
    found = change.weight(w, {**begun.fixed, "R": r})
    torch.testing.assert_close(found, w + b @ b.mT @ (goal - w) @ a.mT @ a, atol=1e-5, rtol=0)


@pytest.mark.paper(148, oracle="g")
def test_the_start_is_that_of_the_authors_code() -> None:
    given, expected = GOLDEN["inputs"], GOLDEN["expected"]
    net = Net().eval()
    net.load_state_dict({name: torch.tensor(value) for name, value in given.items() if name.startswith("fc")})
    data = Data(torch.tensor(given["x"]), torch.tensor(given["labels"]))
    start = FirstStep(Stage(steps=1), examples=10, batch=4, eta=given["eta"])
    delta = started(net, data, BRA(given["rank"]), start)
    for h in delta.holders:
        theirs = torch.tensor(expected[h.site])
        # Their randomised decomposition is right to three digits in float32 (to seven in float64).
        assert (h.B @ h.R @ h.A - theirs).norm() < 3e-3 * theirs.norm()
    with delta.attached(net), torch.no_grad():
        torch.testing.assert_close(net(data.inputs), torch.tensor(expected["logits"]), atol=3e-4, rtol=0)


@pytest.mark.paper(148, oracle="h")
def test_it_learns_rank_squared_numbers_a_map(bert: nn.Module) -> None:
    delta = Delta.begin(bert, LoRASB(rank=5).recipe().changes, torch.Generator())
    assert len(delta.holders) == 2 * 4 and delta.trainable() == 8 * 5**2


def test_lora_xs_begins_at_the_weights_own_bases(net: Net) -> None:
    delta = Delta.begin(net, [Placed(BRA(7, basis="weight"), Where(names="fc2"))], torch.Generator())
    h = delta.holders[0]
    torch.testing.assert_close(h.B @ h.A, net.fc2.weight.data, atol=1e-5, rtol=0)
    assert 0.5e-5 < float(h.R.detach().std()) < 2e-5


def test_a_whole_run_learns_and_beats_its_start(data: Data, net: Net) -> None:
    made = recipe("lora-sb", rank=3, epochs=40, batch=5, lr=0.02, roles=("up", "down"))
    was = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    tuned = tune(net, data, made)
    assert tuned.losses[-1] < 0.7 * tuned.losses[0]
    assert all(torch.equal(tensor, was[name]) for name, tensor in net.state_dict().items())
    assert tuned.delta.trainable() == 2 * 9
    stage = made.stages[0]
    assert rate_at(stage, 80, 0) == pytest.approx(0.02 / round(0.06 * 80))


def test_the_first_step_can_be_given_a_length(data: Data, net: Net) -> None:
    """It then does not depend on the rate, which is 0 here, so that the start is all that is seen."""

    def product(eta: float) -> Tensor:
        made = recipe(f"lora-sb:rank=3,lr=0,epochs=1,roles=down,eta={eta}")
        (holder,) = tune(net, data, made, seed=1).delta.holders
        return (holder.B @ holder.R @ holder.A).detach()  # type: ignore[no-any-return, operator]

    short, long = product(0.01), product(0.03)
    assert float(short.norm()) > 0.01
    torch.testing.assert_close(long, 3 * short)


def test_what_does_not_fit_is_refused(net: Net, data: Data) -> None:
    def dead(seen: Seen) -> Tensor:
        return seen.logits.sum() * 0

    dead.name, dead.separable = "dead", True  # type: ignore[attr-defined]
    start = FirstStep(Stage(steps=9))
    one = Recipe((Placed(BRA(2)),), (dead,), (Stage(steps=1),), start=start)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="the gradient of fc1 is zero"):
        tune(net, data, one)

    def broken(seen: Seen) -> Tensor:
        return (seen.logits * 0).sum().clamp_min(0).sqrt()  # 0, and its slope is none

    broken.name, broken.separable = "broken", True  # type: ignore[attr-defined]
    with pytest.raises(BadInput, match="the gradient of fc1 holds NaN"):
        tune(net, data, replace(one, objectives=(broken,)))  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="no change 'bra'"):
        tune(net, data, Recipe((Placed(LoRA(2)),), stages=(Stage(steps=1),), start=start))
    with pytest.raises(BadInput, match="first learning rate is 0"):
        started(net, data, BRA(2), FirstStep(Stage(steps=9, lr=0.0)))
    with pytest.raises(BadInput, match="must be positive"):
        FirstStep(Stage(steps=1), eta=0.0)
    with pytest.raises(BadInput, match="rank 9 does not fit"):
        started(net, data, BRA(9), start)
    assert Linear is LoRASB().recipe().readout
    assert len(factors(torch.randn(4, 3), 2)[1]) == 2
