"""MerA (041): units are matched across adapters, merged, and learn on from there; fusion beside it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment, linprog
from torch import Tensor, nn

from handful.errors import BadInput
from handful.tune import Adapter, Data, Delta, Linear, LoRA, Placed, Recipe, Stage, Where, tune
from handful.tune.fusion import Fused, Fusion
from handful.tune.mera import MerA, merge_adapters, transport, unit_activations
from handful.tune.zoo import From, Zoo

PLACED = {
    "after": Placed(Adapter(width=6), Where(names="fc")),
    "beside": Placed(Adapter("beside", width=6, activation="gelu"), Where(names="fc")),
    "lora": Placed(LoRA(4), Where(names="fc")),
}


class Net(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.fc1, self.fc2 = nn.Linear(6, width), nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(torch.tanh(self.fc1(x)))  # type: ignore[no-any-return]


@pytest.fixture
def net() -> Net:
    return Net().eval()


X = torch.randn(30, 6, generator=torch.Generator().manual_seed(9))


def random(net: nn.Module, kind: str, seed: int) -> Delta:
    delta, draw = Delta.begin(net, [PLACED[kind]], torch.Generator()), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in delta.parameters():
            parameter.copy_(0.7 * torch.randn(parameter.shape, generator=draw))
    return delta


def permuted(net: nn.Module, delta: Delta, seed: int = 5) -> Delta:
    """The same function with its hidden units in another order."""
    made = Delta.begin(net, delta.placed(), torch.Generator())
    made.load_state_dict(delta.state_dict())
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for holder in made.each():
            t = holder.tensors
            order = torch.randperm(len(t["A"] if "A" in t else t["D"]), generator=draw)
            for name, tensor in t.items():
                if name in "DcA":
                    tensor.copy_(tensor[order])
                elif name in "UB":
                    tensor.copy_(tensor[:, order])
    return made


def answers(net: nn.Module, delta: Delta) -> Tensor:
    with torch.no_grad(), delta.attached(net):
        return net(X)  # type: ignore[no-any-return]


def apart(one: Delta, other: Delta) -> float:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs)


@pytest.mark.paper(41, oracle="a")
@pytest.mark.parametrize("kind", ["after", "beside"])
@pytest.mark.parametrize("align", ["weights", "activations"])
def test_an_adapter_and_its_permuted_copy_are_one(net: Net, kind: str, align: str) -> None:
    one = random(net, kind, 0)
    other = permuted(net, one)
    torch.testing.assert_close(answers(net, other), answers(net, one), atol=1e-5, rtol=0)
    assert apart(one, merge_adapters([one, other], net, align, inputs=X)) < 1e-6  # type: ignore[arg-type]
    assert apart(other, merge_adapters([one, other], net, align, inputs=X, reference=1)) < 1e-6  # type: ignore[arg-type]
    assert apart(one, merge_adapters([one, other], net, "none")) > 0.1


@pytest.mark.paper(41, oracle="f")
@pytest.mark.parametrize("align", ["weights", "activations"])
def test_lora_and_its_permuted_copy_are_one(net: Net, align: str) -> None:
    one = random(net, "lora", 0)
    other = permuted(net, one)
    torch.testing.assert_close(answers(net, other), answers(net, one), atol=1e-5, rtol=0)
    assert apart(one, merge_adapters([one, other], net, align, inputs=X)) < 1e-6  # type: ignore[arg-type]
    assert apart(one, merge_adapters([one, other], net, "none")) > 0.1


@pytest.mark.paper(41, oracle="b")
def test_the_plan_is_the_best_there_is() -> None:
    g = torch.Generator().manual_seed(2)
    one, other = torch.randn(5, 7, generator=g), torch.randn(5, 7, generator=g)
    plan, cost = transport(one, other), torch.cdist(one.double(), other.double()).square()
    sums = np.concatenate([np.kron(np.eye(5), np.ones(5)), np.kron(np.ones(5), np.eye(5))])
    best = linprog(cost.flatten().numpy(), A_eq=sums, b_eq=np.full(10, 0.2))
    assert float((plan * cost).sum()) == pytest.approx(best.fun, abs=1e-9)
    assert plan.argmax(1).tolist() == linear_sum_assignment(cost.numpy())[1].tolist()


@pytest.mark.paper(41, oracle="c")
@pytest.mark.parametrize("align", ["none", "weights", "activations"])
def test_merging_the_same_is_the_identity(net: Net, align: str) -> None:
    one = random(net, "after", 0)
    merged = merge_adapters([one] * 3, net, align, inputs=X, weights=[1, 2, 3])  # type: ignore[arg-type]
    assert apart(one, merged) < 1e-6
    doubled = merge_adapters([one] * 2, net, align, inputs=X, combine="sum")  # type: ignore[arg-type]
    for a, b in zip(one.parameters(), doubled.parameters(), strict=True):
        torch.testing.assert_close(2 * a, b, atol=1e-6, rtol=1e-6)


@pytest.mark.paper(41, oracle="d")
@pytest.mark.parametrize("kind", ["after", "lora"])
def test_moving_units_keeps_the_function_only_one_to_one(net: Net, kind: str) -> None:
    one, other = random(net, kind, 0), random(net, kind, 1)
    moved = {reg: merge_adapters([one, other], net, "weights", weights=[0, 1], reg=reg) for reg in (0.0, 20.0)}
    assert apart(moved[0.0], other) > 0.1
    torch.testing.assert_close(answers(net, moved[0.0]), answers(net, other), atol=1e-5, rtol=0)
    assert (answers(net, moved[20.0]) - answers(net, other)).abs().max() > 0.1


@pytest.mark.paper(41, oracle="e")
@pytest.mark.parametrize("reg", [0.0, 0.5, 5.0])
def test_marginals_of_the_plan_are_uniform(reg: float) -> None:
    g = torch.Generator().manual_seed(2)
    plan = transport(torch.randn(6, 4, generator=g), torch.randn(6, 4, generator=g), reg)
    for side in (0, 1):
        torch.testing.assert_close(plan.sum(side), torch.full((6,), 1 / 6, dtype=plan.dtype), atol=1e-9, rtol=0)
    assert bool((plan > 0).all()) == (reg > 0)


@pytest.mark.paper(41, oracle="e")
def test_marginals_are_kept_where_all_costs_of_a_unit_are_far_above_its_entropy() -> None:
    g = torch.Generator().manual_seed(5)
    one = 3 * torch.randn(4, 5, generator=g, dtype=torch.float64)
    plan = transport(one, one[:1].expand(4, 5) + 9, 0.1)  # alike for every unit of the other: nothing is preferred
    torch.testing.assert_close(plan, torch.full((4, 4), 1 / 16, dtype=plan.dtype), atol=1e-9, rtol=0)
    far, other = (2e4 * torch.randn(4, 5, generator=g, dtype=torch.float64) for _ in range(2))
    with pytest.raises(BadInput, match=r"no plan was found for costs up to \S+ with reg=1e-06; raise it, or give 0"):
        transport(far, other, 1e-6)


@pytest.mark.paper(41, oracle="g")
def test_matched_adapters_are_the_better_start_for_few_shots() -> None:
    """Two tasks share their solution up to the order of units and a little noise."""
    won = 0
    for seed in range(20):
        net, g = Net().eval(), torch.Generator().manual_seed(seed)
        truth = random(net, "after", 100 + seed)
        with torch.no_grad():
            for p in truth.parameters():
                p *= 3  # what the adapters add decides
        direction = torch.randn(5, generator=g)
        x = torch.randn(1040, 6, generator=g)
        with torch.no_grad(), truth.attached(net):
            z = net(x) @ direction
        few, test = Data(x[:40], (z > z.median()).long()[:40]), Data(x[40:], (z > z.median()).long()[40:])
        zoo = [truth, permuted(net, truth, seed)]
        with torch.no_grad():
            for delta in zoo:
                for p in delta.parameters():
                    p += 0.05 * torch.randn(p.shape, generator=g)
        found = []
        for align in ("activations", "none"):
            start = merge_adapters(zoo, net, align, inputs=few.inputs)  # type: ignore[arg-type]
            stage = Stage(steps=60, lr=1e-3, readout_lr=0.1, batch=40)
            tuned = tune(net, few, Recipe(tuple(start.placed()), stages=(stage,), readout=Linear, start=From(start)))
            found.append(float((tuned.logits(test.inputs).argmax(1) == test.labels).float().mean()))
        won += found[0] >= found[1]
    assert won >= 18


def test_what_goes_into_the_units_is_what_the_adapter_sees(net: Net) -> None:
    for kind, tensor in (("after", "D"), ("beside", "D"), ("lora", "A")):
        delta = random(net, kind, 0)
        first, second = unit_activations(delta, net, X)
        h = net.fc1(X) if kind == "after" else X
        t = next(iter(delta.each())).tensors
        torch.testing.assert_close(first, h @ t[tensor].mT + t.get("c", torch.zeros(())))
        assert second.shape == (30, 4 if kind == "lora" else 6)


def test_units_that_do_not_react_are_matched_by_their_weights(net: Net) -> None:
    one = random(net, "after", 0)
    other = permuted(net, one)
    with pytest.warns(UserWarning, match="no unit reacts"):
        merged = merge_adapters([one, other], net, inputs=X[:1].repeat(4, 1))
    assert apart(one, merged) < 1e-6


def test_merges_that_make_no_sense_are_refused(net: Net) -> None:
    one, other = random(net, "after", 0), random(net, "after", 1)
    scaled = Delta.begin(net, [Placed(Fusion(), Where(names="fc"))], torch.Generator())
    broken = random(net, "after", 2)
    with torch.no_grad():
        next(iter(broken.parameters()))[0, 0] = float("nan")
    twice = Delta.begin(net, [PLACED["after"], PLACED["after"]], torch.Generator())
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: merge_adapters([one], net, "none"), "2 or more"),
        (lambda: merge_adapters([one, random(net, "beside", 1)], net, "none"), "of another kind"),
        (lambda: merge_adapters([one, other], net), "give inputs"),
        (lambda: merge_adapters([one, broken], net, "none"), "holds NaN"),
        (lambda: merge_adapters([one, broken], net, "weights"), "not finite"),
        (lambda: merge_adapters([one, other], net, "weights", reg=-1.0), "reg at least 0"),
        (lambda: merge_adapters([one, other], net, "weights", reference=2), "reference is 0 to 1"),
        (lambda: merge_adapters([one, other], net, "units"), "align is"),  # type: ignore[arg-type]
        (lambda: merge_adapters([scaled, scaled], net, "weights"), "only adapters and LoRA"),
        (lambda: unit_activations(twice, net, X), "two changes are at one site"),
        (lambda: Fused((random(net, "lora", 0),)), "no plain adapter"),
        (lambda: Fused(()), "1 or more"),
    ]
    for bad, match in cases:
        with pytest.raises(BadInput, match=match):
            bad()


def test_a_zoo_is_chosen_from_by_track_and_by_nearness(net: Net) -> None:
    zoo = Zoo()
    vectors = {"snli": [1.0, 0.1], "mnli": [1.0, 0.9], "qqp": [0.0, 1.0]}
    for seed, (name, vector) in enumerate(vectors.items()):
        track = "pairs" if name == "qqp" else "inference"
        zoo.add(name, random(net, "after", seed), track=track, vector=torch.tensor(vector))
    near = torch.tensor([1.0, 1.0])
    assert [m.name for m in zoo.chosen()] == ["snli", "mnli", "qqp"]
    assert [m.name for m in zoo.chosen("inference")] == ["snli", "mnli"]
    assert [m.name for m in zoo.chosen(near=near, k=2)] == ["mnli", "snli"]
    single = MerA(track="pairs").merged(net, zoo, X)
    assert single is zoo["qqp"].delta
    with pytest.raises(BadInput, match="no member of the zoo is of track 'infrence'; did you mean 'inference'"):
        zoo.chosen("infrence")
    with pytest.raises(BadInput, match="already"):
        zoo.add("qqp", random(net, "after", 0))
    with pytest.raises(BadInput, match="of another kind"):
        zoo.add("rte", random(net, "lora", 0))
    with pytest.raises(BadInput, match="no member 'snl'"):
        zoo["snl"]


def test_a_zoo_trains_merges_and_learns_on(bert: nn.Module) -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = bert

        def forward(self, ids: Tensor) -> Tensor:
            return self.bert(ids).last_hidden_state.mean(1)  # type: ignore[no-any-return]

    model, mera = Pooled().eval(), MerA(reduction=8, epochs=2, batch=4, lr=1e-2)
    g = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 60, (12, 5), generator=g)
    data = Data(ids, ids[:, 0] % 2)
    zoo = Zoo()
    for seed in range(2):
        zoo.add(str(seed), tune(model, Data(ids, ids[:, seed + 1] % 2), mera.recipe(), seed=seed).delta)
    assert [h.site for h in zoo["0"].delta.each()] == [f"bert.encoder.layer.{i}.output.dense" for i in range(2)]
    tuned = mera.fit(model, data, zoo)
    assert tuned.delta.trainable() == zoo["0"].delta.trainable()  # no more than a single one
    assert apart(tuned.delta, mera.merged(model, zoo, ids)) > 1e-3  # and it learns
    for name, recipe in mera.baselines(zoo).items():
        losses = tune(model, data, recipe).losses
        assert len(losses) == 6, name


def test_fusion_is_attention_over_what_adapters_add(net: Net) -> None:
    sources = tuple(random(net, "after", seed) for seed in range(3))
    fused = Fused(sources)
    delta = Delta.begin(net, fused.changes(), torch.Generator().manual_seed(0))
    was = net(X)
    torch.testing.assert_close(answers(net, delta), was)  # nothing yet
    fused(delta, net, Linear(), Data(X, torch.zeros(30).long()), lambda rows: rows)
    assert delta.trainable() == 3 * (8**2 + 5**2)

    y = net.fc1(X)
    added = []
    for source in sources:
        t = next(iter(source.each())).tensors
        added.append(torch.relu(y @ t["D"].mT + t["c"]) @ t["U"].mT + t["e"])
    u, t = torch.stack(added, 1), next(iter(delta.each())).tensors
    attention = torch.stack([((y @ t["Q"].mT) * (one @ t["K"].mT)).sum(-1) for one in added], 1).softmax(1)
    wanted = y + (attention[..., None] * u).sum(1)  # V is the identity at first
    seen: list[Tensor] = []
    with torch.no_grad(), delta.attached(net):
        handle = net.fc1.register_forward_hook(lambda module, args, out: seen.append(out))
        net(X)
        handle.remove()
    torch.testing.assert_close(seen[0], wanted)

    mean = Fused(sources, attends=False)
    plain = Delta.begin(net, mean.changes(), torch.Generator())
    mean(plain, net, Linear(), Data(X, torch.zeros(30).long()), lambda rows: rows)
    assert plain.trainable() == 0
    branch = next(iter(plain.each()))
    torch.testing.assert_close(branch.change.branch(X, y, net.fc1, branch.tensors), y + u.mean(1))
