"""The engine: what every change, recipe and run must do, whatever the method."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import handful.tune
from handful.core.train import AdamW
from handful.errors import BadInput, HandfulError
from handful.tune import (
    BRA,
    CHANGES,
    IA3,
    Adapter,
    AsIs,
    Change,
    CrossEntropy,
    Data,
    Delta,
    DoRA,
    Intrinsic,
    Linear,
    LoRA,
    LoRMA,
    Masked,
    Minor,
    Moved,
    Others,
    Own,
    Placed,
    Recipe,
    Residual,
    Scaling,
    Scored,
    SoftSubnet,
    Stage,
    Statistics,
    Tuned,
    Where,
    load_delta,
    save_delta,
    sites,
    split_attention,
    tune,
)
from handful.tune.information import Information
from handful.tune.recipe import Closures, Seen

EVERY: list[Change] = [
    LoRA(rank=3, alpha=5), LoRA(rank=2, rs=True), DoRA(rank=2), Own(), IA3(), IA3("in"), Scaling(), Scaling(2),
    Masked(9), Others(9), Adapter(width=2), Adapter("beside", width=2, activation="gelu", scale=0.5, learn_scale=True),
    BRA(3), BRA(2, 0.5, precondition=True), LoRMA(3), LoRMA(2, side="post", alpha=3.0), LoRMA(2, inflation="shift"),
    LoRMA(3, 5.0, "post", "shift"), Scored(score=0.5), Moved(), Moved(mixout=0.2),
    SoftSubnet(1.0), Minor(9), Residual(), Intrinsic(7), Intrinsic(40, said=False), Intrinsic(5, outer=False),
]  # fmt: skip
"""One of each kind of change; a new kind belongs here."""


class Net(nn.Module):
    """Features of vectors: an affine map, a norm, another."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.fc1, self.norm, self.fc2 = nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(torch.tanh(self.norm(self.fc1(x))))


@pytest.fixture
def net() -> Net:
    return Net().eval()


@pytest.fixture
def data() -> Data:
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(24) % 3
    return Data(torch.randn(24, 6, generator=g) + 2 * torch.eye(6)[labels], labels)


def shaken(delta: Delta, seed: int = 3) -> Delta:
    """With every number moved, so that nothing is the identity any more."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in delta.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=g)
    return delta


def bits(model: nn.Module) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


def test_every_kind_of_change_is_tried_here() -> None:
    # counted instead of learnt; begin as another model; holds others' adapters; stand in front of what is read
    apart = {"statistics", "fresh", "compacter", "low-rank", "fusion", "soft-prompt", "prefix"}
    assert {change.key for change in EVERY} | apart == set(CHANGES)


def test_every_kind_of_change_can_be_loaded_by_a_program_that_imports_the_room_only() -> None:
    room = Path(handful.tune.__file__).parent
    kinds = {path.stem for path in room.glob("*.py") if "\n@register\n" in path.read_text(encoding="utf-8")}
    say = "import handful.tune, sys; print(*sys.modules)"
    seen = subprocess.run([sys.executable, "-c", say], check=True, capture_output=True, text=True).stdout.split()
    assert len(kinds) >= 14 and {f"handful.tune.{kind}" for kind in kinds} <= set(seen)


def test_what_is_drawn_in_training_is_not_merged_even_after_a_model_in_training_mode() -> None:
    net, x = Net().train(), torch.ones(2, 6)
    delta = shaken(Delta.begin(net, [Placed(Moved(mixout=0.5), Where((), sites=("fc1",)))], torch.Generator()))
    with delta.attached(net.eval(), "weight"):
        want = net(x)
    for before in (False, True):
        delta.train(before)
        with delta.attached(net.train(), "weight"):
            pass
        assert all(holder.training == before for holder in delta.holders)
        drawn, merged = torch.random.get_rng_state(), delta.merge(net)
        assert torch.equal(torch.random.get_rng_state(), drawn)
        torch.testing.assert_close(net(x), want)
        merged.undo()


class Normed(Net):
    """With a batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(8)  # type: ignore[assignment]


def test_batch_statistics_are_the_bases_unless_they_are_placed(data: Data, tmp_path: Path) -> None:
    net = Normed().eval()
    was, stage = bits(net), Stage(epochs=3, lr=0.01, batch=8)
    plain = tune(net, data, Recipe((Placed(LoRA(2)),), stages=(stage,), readout=Linear))
    assert bits(net) == was
    own = tuple(Placed(Statistics(), Where(("norm",), name)) for name in ("running_mean", "running_var"))
    counted = tune(net, data, Recipe((Placed(LoRA(2)), *own), stages=(stage,), readout=Linear))
    assert bits(net) == was and counted.losses != plain.losses
    mean = next(h.P for h in counted.delta.holders if h.parameter == "running_mean")
    assert mean.abs().max() > 0.05
    save_delta(counted.delta, tmp_path / "d")
    again = load_delta(tmp_path / "d", net)
    logits = counted.logits(data.inputs)
    with again.attached(net), torch.no_grad():
        torch.testing.assert_close(counted.readout(net(data.inputs), net), logits)
    kept = counted.delta.merge(net)
    assert torch.equal(net.norm.running_mean, mean)  # type: ignore[arg-type]
    kept.undo()
    assert bits(net) == was


def test_a_change_that_is_not_needed_may_have_no_site(net: Net) -> None:
    placed = [Placed(LoRA(2)), Placed(Own(), Where(("gate",)), needed=False)]
    assert len(Delta.begin(net, placed, torch.Generator()).holders) == 2


@pytest.mark.parametrize("change", EVERY, ids=lambda c: repr(c))
def test_a_change_begins_as_none_and_its_executions_agree(net: Net, change: Change) -> None:
    x = torch.randn(7, 6, generator=torch.Generator().manual_seed(5))
    before, was = net(x), bits(net)
    delta = Delta.begin(net, [Placed(change)], torch.Generator().manual_seed(0))
    with delta.attached(net):
        torch.testing.assert_close(net(x), before, atol=1e-6, rtol=0)
    shaken(delta)
    with delta.attached(net):
        branch = net(x)
    assert (branch - before).abs().max() > 1e-3
    if "weight" not in change.modes:
        with pytest.raises(BadInput, match="no weight form"):
            delta.merge(net)
        with pytest.raises(BadInput, match="no weight form"), delta.attached(net, "weight"):
            pass
        assert bits(net) == was
        return
    with delta.attached(net, "weight"):
        weight = net(x)
    torch.testing.assert_close(branch, weight, atol=1e-5, rtol=0)
    assert bits(net) == was
    kept = delta.merge(net)
    torch.testing.assert_close(net(x), branch, atol=1e-5, rtol=0)
    kept.undo()
    assert bits(net) == was


@pytest.mark.parametrize("change", EVERY, ids=lambda c: repr(c))
@pytest.mark.parametrize("mode", ["branch", "weight"])
def test_only_the_delta_and_the_readout_learn(net: Net, data: Data, change: Change, mode: str) -> None:
    if mode not in change.modes and mode == "weight":
        pytest.skip("changes what a module gives, not its weight")
    was = bits(net)
    recipe = Recipe((Placed(change),), stages=(Stage(epochs=4, lr=0.02),), readout=Linear)
    tuned = tune(net, data, recipe, mode=mode)  # type: ignore[arg-type]
    assert bits(net) == was
    assert all(p.requires_grad for p in net.parameters())
    assert tuned.losses[-1] < tuned.losses[0]
    logits = tuned.logits(data.inputs)
    if "weight" in change.modes:
        torch.testing.assert_close(tuned.logits(data.inputs, mode="weight"), logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64])
def test_a_model_of_any_precision_is_read_out(net: Net, data: Data, kind: torch.dtype) -> None:
    other, inputs = copy.deepcopy(net).to(kind), torch.as_tensor(data.inputs)
    recipe = Recipe((Placed(LoRA(2)),), stages=(Stage(steps=4, lr=0.01, batch=24),), readout=Linear)
    found = tune(other, Data(inputs.to(kind), data.targets), recipe)
    wanted = tune(net, data, recipe)
    assert found.losses == pytest.approx(wanted.losses, abs=1e-5 if kind == torch.float64 else 0.02)
    assert {p.dtype for p in found.readout.parameters()} == {torch.promote_types(kind, torch.float32)}


def test_a_part_of_the_model_stays_in_the_mode_it_was_in(data: Data) -> None:
    """A tower that is used as it is (dropout off) inside of a module that is being trained."""
    net = Net().train()
    net.norm.eval()
    recipe = Recipe((Placed(LoRA(2)),), stages=(Stage(steps=2),), readout=Linear)
    tuned = tune(net, data, recipe)
    Information().diagonal(net, tuned.readout, data, {"fc1": net.fc1.weight})
    assert [net.training, net.fc1.training, net.norm.training] == [True, True, False]


def test_what_training_draws_is_not_merged(net: Net) -> None:
    """After a run as weights in training mode the changes are merged as they answer, not as they were drawn."""
    delta = shaken(Delta.begin(net, [Placed(SoftSubnet(0.5), Where(names="fc"))], torch.Generator()))
    x = torch.randn(3, 6)
    with delta.attached(net, "weight"):
        answers = net(x)
    net.train()
    with delta.attached(net, "weight"):
        net(x)
    kept = delta.merge(net.eval())
    torch.testing.assert_close(net(x), answers)
    kept.undo()


def test_gradients_are_those_of_both_executions(net: Net) -> None:
    net = net.double()
    x = torch.randn(4, 6, dtype=torch.float64)
    delta = shaken(Delta.begin(net, [Placed(LoRA(rank=2))], torch.Generator()))
    holder = delta.holders[0]

    def through(a: Tensor, b: Tensor) -> Tensor:
        w = holder.change.weight(net.fc1.weight, {"A": a, "B": b})
        return torch.nn.functional.linear(x, w, net.fc1.bias)

    def beside(a: Tensor, b: Tensor) -> Tensor:
        return holder.change.branch(x, net.fc1(x), net.fc1, {"A": a, "B": b})

    a, b = holder.A.detach().double().requires_grad_(), holder.B.detach().double().requires_grad_()
    for form in (through, beside):
        assert torch.autograd.gradcheck(form, (a, b))
    torch.testing.assert_close(
        torch.autograd.grad(through(a, b).square().sum(), a), torch.autograd.grad(beside(a, b).square().sum(), a)
    )


@pytest.mark.parametrize("rs", [False, True])
def test_lora_is_pefts(bert: nn.Module, rs: bool) -> None:
    from peft import LoraConfig, get_peft_model

    ids = torch.tensor([[2, 7, 9, 4, 3], [2, 8, 1, 6, 3]])
    names = ["query", "value", "intermediate.dense"]
    theirs = get_peft_model(
        copy.deepcopy(bert), LoraConfig(r=4, lora_alpha=6, target_modules=names, use_rslora=rs, lora_dropout=0.0)
    ).eval()
    delta = shaken(Delta.begin(bert, [Placed(LoRA(4, 6, rs=rs), Where(("q", "v", "up")))], torch.Generator()))
    ours = {h.site: h for h in delta.holders}
    copied = 0
    for name, module in theirs.named_modules():
        if hasattr(module, "lora_A"):
            holder = ours[name.removeprefix("base_model.model.")]
            module.lora_A["default"].weight.data = holder.A.data
            module.lora_B["default"].weight.data = holder.B.data
            copied += 1
    assert copied == len(ours) == 6
    with delta.attached(bert), torch.no_grad():
        mine = bert(ids).last_hidden_state
    with torch.no_grad():
        torch.testing.assert_close(mine, theirs(ids).last_hidden_state, atol=1e-6, rtol=0)
    assert delta.trainable() == sum(p.numel() for n, p in theirs.named_parameters() if "lora_" in n)


def test_lora_begins_as_kaiming_and_zero(bert: nn.Module) -> None:
    delta = Delta.begin(bert, [Placed(LoRA(4), Where(("up",)))], torch.Generator().manual_seed(1))
    for holder in delta.holders:
        bound = 16**-0.5  # Kaiming with a = sqrt 5 over 16 inputs
        assert holder.A.abs().max() <= bound and holder.A.abs().max() > 0.8 * bound
        assert not holder.B.any()


def test_a_killed_run_ends_as_it_would_have(net: Net, data: Data, tmp_path: Path) -> None:
    @dataclass
    class Killed:
        """Breaks off after some steps."""

        left: int

        def __call__(self, at: int, total: int, loss: float, seconds: float) -> None:
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt

    recipe = Recipe(
        (Placed(LoRA(rank=2, dropout=0.3)),),
        stages=(Stage(epochs=3, lr=0.01, batch=5, trains=("readout",)), Stage(epochs=3, lr=0.02, batch=7)),
        readout=Linear,
    )
    whole = tune(net, data, recipe, seed=4)
    for after in (3, 15, 20):
        file = tmp_path / f"{after}.safetensors"
        with pytest.raises(KeyboardInterrupt):
            tune(net, data, recipe, seed=4, checkpoint=file, every=0, told=Killed(after))
        again = tune(net, data, recipe, seed=4, checkpoint=file, every=0)
        assert again.losses == whole.losses
        assert bits(again.delta) == bits(whole.delta) and bits(again.readout) == bits(whole.readout)
        assert not file.exists()


def test_another_process_goes_on_with_a_run(net: Net, data: Data, tmp_path: Path) -> None:
    def made() -> Recipe:
        stage = Stage(epochs=3, update=lambda decay: AdamW(weight_decay=decay))  # lies elsewhere each time
        return Recipe((Placed(LoRA(rank=2)),), stages=(stage,), readout=Linear)

    whole, calls = tune(net, data, made()), iter([None, None])
    recipes = [made(), made()]
    assert len({repr(recipe.stages) for recipe in recipes}) == 2
    with pytest.raises(StopIteration):
        tune(net, data, recipes[0], checkpoint=tmp_path / "c", every=0, told=lambda *_: next(calls))
    assert tune(net, data, recipes[1], checkpoint=tmp_path / "c").losses == whole.losses


def test_a_checkpoint_of_another_run_is_refused(net: Net, data: Data, tmp_path: Path) -> None:
    recipe = Recipe((Placed(LoRA(rank=2)),), stages=(Stage(epochs=3),), readout=Linear)
    file = tmp_path / "c.safetensors"

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(net, data, recipe, checkpoint=file, every=0, told=stop)
    # The first step is kept after it was told: a second one is needed for a file to be there.
    calls = iter([None])
    with pytest.raises(StopIteration):
        tune(net, data, recipe, checkpoint=file, every=0, told=lambda *_: next(calls))
    with pytest.raises(BadInput, match="another run"):
        tune(net, data, recipe, seed=1, checkpoint=file)
    file.write_bytes(b"nonsense")
    with pytest.raises(BadInput, match="not a whole checkpoint"):
        tune(net, data, recipe, checkpoint=file)


def test_the_best_state_is_kept_through_a_kill(net: Net, data: Data, tmp_path: Path) -> None:
    recipe = Recipe(
        (Placed(LoRA(rank=2)),), stages=(Stage(steps=7, lr=0.05, batch=5), Stage(steps=6, lr=0.5)), readout=Linear
    )
    states: list[dict[str, bytes]] = []

    def judge(now: Tuned) -> float:
        """Highest at the third of five looks, and once more at the fourth."""
        states.append(bits(now.delta))
        return [0.1, 0.2, 0.9, 0.9, 0.3][(len(states) - 1) % 5]

    whole = tune(net, data, recipe, judge=judge, judge_every=3)
    assert len(states) == 5  # after 3, 6, 7 steps of the first stage, 3, 6 of the second
    assert bits(whole.delta) == states[2] != states[4]
    assert len(whole.losses) == 13
    file, calls = tmp_path / "c.safetensors", []

    def stop(*_: object) -> None:
        calls.append(0)
        if len(calls) == 12:
            raise KeyboardInterrupt

    states.clear()
    with pytest.raises(KeyboardInterrupt):
        tune(net, data, recipe, judge=judge, judge_every=3, checkpoint=file, every=0, told=stop)
    assert len(states) == 4
    again = tune(net, data, recipe, judge=judge, judge_every=3, checkpoint=file, every=0)
    assert bits(again.delta) == bits(whole.delta) and again.losses == whole.losses


def test_a_stage_ends_when_the_held_out_score_no_longer_rises(net: Net, data: Data) -> None:
    recipe = Recipe((Placed(LoRA(rank=2)),), stages=(Stage(steps=20), Stage(steps=12)), readout=Linear)
    scores = iter([0.1, 0.5, 0.4, 0.5, 0.3, 0.2])  # two without a higher one; then the next stage has its own two
    tuned = tune(net, data, recipe, judge=lambda now: next(scores), judge_every=2, judge_patience=2)
    assert len(tuned.losses) == 8 + 4 and list(scores) == []


def test_a_loss_that_is_no_number_stops_before_anything_moves(net: Net, data: Data) -> None:
    inputs = torch.as_tensor(data.inputs).clone()
    inputs[5, 2] = float("nan")
    recipe = Recipe((Placed(LoRA(rank=2)),), stages=(Stage(epochs=3),), readout=Linear)
    with pytest.raises(HandfulError, match=r"the loss is nan at step \d+ of 6, on rows \[.*5"):
        tune(net, Data(inputs, data.targets), recipe)


def test_too_little_memory_halves_the_batch_and_changes_no_number(data: Data) -> None:
    class Tight(Net):
        most = 8

        def forward(self, x: Tensor) -> Tensor:
            if len(x) > self.most:
                raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes")
            return super().forward(x)

    recipe = Recipe((Placed(LoRA(rank=2)),), stages=(Stage(epochs=3, lr=0.01, batch=24),), readout=Linear)
    tight = tune(Tight().eval(), data, recipe)
    roomy = tune(Net().eval(), data, recipe)
    assert tight.losses == pytest.approx(roomy.losses, abs=1e-6)
    none = Tight().eval()
    none.most = 0
    with pytest.raises(HandfulError, match="memory does not suffice for a single item"):
        tune(none, data, Recipe((Placed(LoRA(rank=2)),), stages=(Stage(epochs=1),)))


def test_stages_train_what_they_name(net: Net, data: Data) -> None:
    probe = Stage(epochs=2, lr=0.05, trains=("readout",))
    first = tune(net, data, Recipe((Placed(Own()),), stages=(probe,), readout=Linear))
    assert all(torch.equal(h.P, getattr(net.get_submodule(h.site), h.parameter)) for h in first.delta.holders)
    then = tune(net, data, Recipe((Placed(Own()),), stages=(probe, Stage(epochs=2, lr=0.01)), readout=Linear))
    assert then.losses[: len(first.losses)] == first.losses
    assert not any(torch.equal(h.P, net.get_submodule(h.site).weight) for h in then.delta.holders)


def test_a_step_gets_every_objective_by_name(net: Net, data: Data) -> None:
    @dataclass(frozen=True)
    class Small:
        name = "small"
        separable = True

        def __call__(self, seen: Seen) -> Tensor:
            return seen.features.square().mean()

    seen: list[tuple[float, float, float]] = []

    class Watch:
        def __call__(self, closures: Closures, parameters: Sequence[Tensor], update: object) -> Tensor:
            values = [closures[name]().detach() for name in ("cross-entropy", "small", "loss")]
            seen.append(tuple(map(float, values)))  # type: ignore[arg-type]
            return values[-1]

    recipe = Recipe(
        (Placed(LoRA(2)),), (CrossEntropy(), Small()), (Stage(steps=2),), readout=Linear, step=Watch()
    )  # fmt: skip
    tune(net, data, recipe)
    for ce, small, loss in seen:
        assert ce + small == pytest.approx(loss, abs=1e-6)


def test_recipes_join_and_name_what_conflicts() -> None:
    lora = Recipe((Placed(LoRA(2)),), stages=(Stage(epochs=1),), readout=Linear)
    both = lora | Recipe((Placed(Own(), Where(("norm",))),), (CrossEntropy(),))
    assert [one.change.key for one in both.changes] == ["lora", "own"]
    assert both.readout is Linear and both.stages == lora.stages
    from handful.tune import Prototypes

    with pytest.raises(BadInput, match="'readout': Linear and Prototypes"):
        lora | Recipe(readout=Prototypes)
    with pytest.raises(BadInput, match="two objectives are called 'cross-entropy'"):
        Recipe(objectives=(CrossEntropy(), CrossEntropy(0.1)))


ORDERS: list[tuple[Change, ...]] = [
    (LoRA(2), LoRA(3)), (LoRA(2), IA3()), (IA3(), LoRA(2)), (IA3("in"), LoRA(2)), (LoRA(2), IA3("in")),
    (LoRA(2), Own()), (Own(), LoRA(2)), (IA3(), DoRA(2)), (DoRA(2), IA3("in"), LoRA(1)), (Scaling(), DoRA(2)),
    (Masked(5), IA3()), (LoRA(2), LoRMA(2)), (IA3(), LoRMA(2, inflation="shift"), LoRA(1)),
    (BRA(2), LoRMA(2, side="post")),
]  # fmt: skip


@pytest.mark.parametrize("changes", ORDERS, ids=lambda c: repr(c))
def test_changes_on_one_site_apply_in_order(net: Net, changes: tuple[Change, ...]) -> None:
    x = torch.randn(3, 6)
    delta = shaken(Delta.begin(net, [Placed(change) for change in changes], torch.Generator()))
    w, b = net.fc1.weight.detach(), net.fc1.bias.detach()
    for holder in delta.holders:
        if holder.site == "fc1":
            w, b = holder.change.weight(w, holder.tensors), holder.change.bias(b, holder.tensors)
    by_hand = net.fc2(torch.tanh(net.norm(torch.nn.functional.linear(x, w, b))))
    only = Delta([h for h in delta.holders if h.site == "fc1"], "")
    for mode in ("branch", "weight"):
        with only.attached(net, mode):  # type: ignore[arg-type]
            torch.testing.assert_close(net(x), by_hand, atol=1e-5, rtol=0)
    with delta.attached(net):
        branch = net(x)
    with delta.attached(net, "weight"):
        weight = net(x)
    torch.testing.assert_close(branch, weight, atol=1e-5, rtol=0)
    kept = delta.merge(net)
    torch.testing.assert_close(net(x), branch, atol=1e-5, rtol=0)
    kept.undo()
    with pytest.raises(BadInput, match="changed already"), delta.attached(net, "weight"):
        Delta.begin(net, [Placed(LoRA(2))], torch.Generator())


def test_what_is_no_linear_map_is_changed_as_a_weight() -> None:
    torch.manual_seed(0)
    net = nn.ModuleDict({"fc1": nn.Conv2d(3, 4, 3), "shared": nn.Embedding(9, 4), "norm": nn.LayerNorm(4)}).eval()
    image, ids = torch.randn(2, 3, 5, 5), torch.tensor([[1, 4]])
    delta = shaken(Delta.begin(net, [Placed(LoRA(2), Where(("up", "embedding")))], torch.Generator()))
    w, table = (h.change.scale * (h.B @ h.A) for h in delta.holders)
    with delta.attached(net):
        found = net["fc1"](image), net["shared"](ids)
    conv = net["fc1"]
    by_hand = torch.nn.functional.conv2d(image, conv.weight + w.reshape(4, 3, 3, 3), conv.bias)
    torch.testing.assert_close(found, (by_hand, (net["shared"].weight + table)[ids]))


def test_a_site_that_is_changed_twice_alike_is_kept_twice(net: Net, tmp_path: Path) -> None:
    delta = shaken(Delta.begin(net, [Placed(LoRA(2)), Placed(LoRA(2))], torch.Generator()))
    save_delta(delta, tmp_path / "d")
    again = load_delta(tmp_path / "d", net)
    assert [h.site for h in again.holders] == [h.site for h in delta.holders] == ["fc1", "fc2"] * 2
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), delta.parameters(), strict=True))


def test_a_delta_is_attached_once(net: Net) -> None:
    x, delta = torch.randn(3, 6), shaken(Delta.begin(net, [Placed(LoRA(2))], torch.Generator()))
    before = net(x)
    with delta.attached(net):
        inside = net(x)
        with pytest.raises(BadInput, match="they would count twice"), delta.attached(net):
            pass
        assert torch.equal(net(x), inside)
    assert torch.equal(net(x), before)
    tuned = Tuned(net, delta, AsIs(), tuple("abcde"))
    wanted = tuned.logits(x)
    kept = tuned.merge()
    with pytest.raises(BadInput, match="in the weight of fc1 already; undo the merge first"):
        tuned.logits(x)
    other = copy.deepcopy(net)
    kept.undo()
    assert torch.equal(tuned.logits(x), wanted)
    torch.testing.assert_close(other(x), wanted)


def test_a_delta_fits_its_base_only(net: Net) -> None:
    delta = Delta.begin(net, [Placed(LoRA(2))], torch.Generator())
    other = copy.deepcopy(net)
    with torch.no_grad():
        other.fc1.weight[0, 0] += 1e-3
    with pytest.raises(BadInput, match="belong to a model with the fingerprint"):
        delta.merge(other)


def test_what_cannot_be_changed_is_refused(net: Net, llama: nn.Module, data: Data) -> None:
    def begin(model: nn.Module, change: Change, where: Where) -> None:
        Delta.begin(model, [Placed(change, where)], torch.Generator())

    with pytest.raises(BadInput, match=r"of 3 classes, but logits of shape \(16, 5\): give the recipe a readout"):
        tune(net, data, Recipe((Placed(LoRA(2)),), stages=(Stage(steps=1),)))
    with pytest.raises(BadInput, match=r"roles are a tuple of names, not 'qkv': give \('qkv',\)"):
        Where("qkv")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=r"fc1: rank 7 does not fit a weight of shape \(8, 6\); it is 1 to 6"):
        begin(net, LoRA(7), Where())
    with pytest.raises(BadInput, match="rank is 0"):
        LoRA(0)
    with pytest.raises(BadInput, match="did you mean 'fc1'"):
        begin(net, LoRA(1), Where(names="fc11"))
    with pytest.raises(BadInput, match="no role 'query'"):
        Where(("query",))
    with pytest.raises(BadInput, match="no tower 'text'"):
        begin(net, LoRA(1), Where(towers=("text",)))
    with pytest.raises(BadInput, match="tied"):
        begin(llama, LoRA(1), Where(("embedding",)))
    with pytest.raises(BadInput, match="needs a matrix"):
        begin(net, LoRA(1), Where(("norm",)))
    broken = copy.deepcopy(net)
    broken.fc1.weight.data[0, 0] = float("inf")
    with pytest.raises(BadInput, match="NaN or infinity"):
        begin(broken, LoRA(1), Where())
    recipe = Recipe((Placed(LoRA(2, dropout=0.2)),), stages=(Stage(epochs=1),), readout=Linear)
    with pytest.raises(BadInput, match="dropout on the branch has no weight form"):
        tune(net, data, recipe, mode="weight")
    with pytest.raises(BadInput, match="nothing would learn"):
        tune(net, data, Recipe(stages=(Stage(epochs=1),)))
    with pytest.raises(BadInput, match="no stage"):
        tune(net, data, Recipe((Placed(LoRA(2)),)))


def test_a_tied_weight_is_changed_once_for_all(llama: nn.Module, tmp_path: Path) -> None:
    ids, was = torch.tensor([[3, 4, 5, 6]]), bits(llama)
    delta = Delta.begin(llama, [Placed(Own(), Where(names="", tied=True))], torch.Generator())
    sites_of = [h.site for h in delta.holders]
    assert "model.embed_tokens" in sites_of and "lm_head" not in sites_of
    assert delta.trainable() == sum(p.numel() for p in llama.parameters())
    shaken(delta)
    with delta.attached(llama), torch.no_grad():
        attached = llama(ids).logits
        assert torch.equal(llama.lm_head.weight, llama.model.embed_tokens.weight)
    assert bits(llama) == was and llama.lm_head.weight is llama.model.embed_tokens.weight
    save_delta(delta, tmp_path / "d.safetensors")
    kept = load_delta(tmp_path / "d.safetensors", llama).merge(llama)
    with torch.no_grad():
        torch.testing.assert_close(llama(ids).logits, attached, atol=1e-6, rtol=0)
    kept.undo()
    assert bits(llama) == was and llama.lm_head.weight is llama.model.embed_tokens.weight


def test_sites_of_every_family(bert: nn.Module, llama: nn.Module, t5: nn.Module, clip: nn.Module) -> None:
    def count(model: nn.Module, tower: str = "") -> dict[str, int]:
        found = [site.role for site in sites(model) if not tower or site.tower == tower]
        return {role: found.count(role) for role in set(found)}

    for role in ("q", "k", "v", "o", "up", "down"):
        assert count(bert)[role] == 2, role
        assert count(clip, "image")[role] == count(clip, "text")[role] == 2, role
        assert count(llama)[role] == 2, role
        assert count(t5, "encoder")[role] == 2, role
    assert count(llama)["gate"] == 2 and count(t5)["gate"] == 4
    assert count(t5, "decoder")["q"] == 4  # of its own states, and of the encoder's
    assert count(bert)["norm"] == 5 and count(clip)["projection"] == 2
    assert [s.block for s in Where(("q",), blocks="top1").find(bert)] == [1]
    assert [s.tower for s in Where(("q",), blocks="half-bottom").find(clip)] == ["text", "image"]


def test_blocks_are_thirds_and_halves_of_a_tower() -> None:
    model = nn.Module()
    model.layers = nn.ModuleList(nn.ModuleDict({"q_proj": nn.Linear(2, 2)}) for _ in range(12))

    def blocks(which: str | tuple[int, ...]) -> list[int | None]:
        return [site.block for site in Where(("q",), blocks=which).find(model)]

    assert blocks("bottom") == [0, 1, 2, 3] and blocks("mid") == [4, 5, 6, 7] and blocks("up") == [8, 9, 10, 11]
    assert blocks("half-bottom") == list(range(6)) and blocks("half-up") == list(range(6, 12))
    assert blocks("top3") == [9, 10, 11] and blocks((0, 5)) == [0, 5] and blocks("all") == list(range(12))


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("mask", ["none", "causal", "boolean", "padding"])
def test_split_attention_is_the_fused_one(batch_first: bool, mask: str) -> None:
    torch.manual_seed(0)
    fused = nn.ModuleDict({"attn": nn.MultiheadAttention(8, 2, batch_first=batch_first)}).eval()
    x = torch.randn(3, 5, 8) if batch_first else torch.randn(5, 3, 8)
    causal = torch.triu(torch.full((5, 5), float("-inf")), 1)
    options = {
        "none": {},
        "causal": {"attn_mask": causal},
        "boolean": {"attn_mask": causal.isinf()},
        "padding": {"key_padding_mask": torch.tensor([[False] * 5, [False] * 3 + [True] * 2, [False] * 4 + [True]])},
    }[mask]
    whole = fused["attn"](x, x, x, need_weights=False, **options)[0]
    apart = split_attention(fused)["attn"]  # type: ignore[index]
    torch.testing.assert_close(apart(x, x, x, need_weights=False, **options)[0], whole, atol=1e-6, rtol=0)
    assert [s.role for s in sites(fused)] == ["q", "k", "v", "o"]
    assert not apart.training


def test_a_map_that_attention_reads_without_calling_is_changed_as_a_weight() -> None:
    torch.manual_seed(0)
    fused = nn.ModuleDict({"attn": nn.MultiheadAttention(8, 2, batch_first=True)}).eval()
    x = torch.randn(3, 5, 8)
    delta = shaken(Delta.begin(fused, [Placed(LoRA(2), Where(("o",)))], torch.Generator()))
    whole = split_attention(copy.deepcopy(fused))
    apart = Delta.begin(whole, [Placed(LoRA(2), Where(("o",)))], torch.Generator())
    apart.load_state_dict(delta.state_dict())
    with delta.attached(fused), apart.attached(whole):
        found = [model["attn"](x, x, x, need_weights=False)[0] for model in (fused, whole)]  # type: ignore[index]
    torch.testing.assert_close(*found, atol=1e-6, rtol=0)
    assert (found[0] - fused["attn"](x, x, x, need_weights=False)[0]).abs().max() > 1e-3
