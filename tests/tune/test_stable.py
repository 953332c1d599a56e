"""Fine-tuning that does not collapse on few examples (172)."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from handful.core.train import AdamW
from handful.errors import BadInput
from handful.tune import Data, Delta, Linear, Placed, Recipe, Stage, Where, tune
from handful.tune.delta import Holder
from handful.tune.groups import groups_of
from handful.tune.loop import _Run
from handful.tune.moved import Fresh, Moved
from handful.tune.recipe import Seen
from handful.tune.recipes import recipe
from handful.tune.stable import Stable, instability


@pytest.mark.paper(172, oracle="a")
@pytest.mark.parametrize(("t", "ratio"), [(1, 3.1623), (10, 6.53), (100, 3.24), (1000, 1.26)])
def test_without_correction_steps_are_longer(t: int, ratio: float) -> None:
    lengths = []
    for debias in (False, True):
        update, p = AdamW(eps=0.0, weight_decay=0.0, debias=debias), torch.zeros(1, dtype=torch.float64)
        for _ in range(t):
            before = p.clone()
            update([p], (torch.ones(1, dtype=torch.float64),), 1.0)
        lengths.append(float((p - before).abs()))
    assert lengths[0] / lengths[1] == pytest.approx((1 - 0.9**t) / math.sqrt(1 - 0.999**t), rel=1e-9)
    assert lengths[0] / lengths[1] == pytest.approx(ratio, rel=2e-3)


class Wide(nn.Module):
    """Two blocks wide enough for a standard deviation to be measured."""

    def __init__(self) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(9, 64)
        self.layer = nn.ModuleList(nn.ModuleDict({"fc1": nn.Linear(64, 256), "norm": nn.LayerNorm(256),
                                                  "fc2": nn.Linear(256, 64)}) for _ in range(2))  # fmt: skip

    def forward(self, ids: Tensor) -> Tensor:
        h = self.word_embeddings(ids).mean(1)
        for layer in self.layer:
            h = h + layer["fc2"](torch.tanh(layer["norm"](layer["fc1"](h))))  # type: ignore[index, operator]
        return h


@pytest.fixture
def wide() -> Wide:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Wide().eval()


@pytest.fixture
def data() -> Data:
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(20) % 2
    return Data(torch.cat([labels[:, None], torch.randint(2, 9, (20, 3), generator=g)], 1), labels)


@pytest.mark.paper(172, oracle="b")
def test_top_blocks_begin_anew_and_the_others_do_not(wide: Wide) -> None:
    delta = Delta.begin(wide, Stable(reinit=1).recipe().changes, torch.Generator().manual_seed(1))
    before = {name: p.clone() for name, p in wide.named_parameters()}
    delta.merge(wide)
    for name, p in wide.named_parameters():
        if not name.startswith("layer.1"):
            assert torch.equal(p, before[name]), name
        elif p.dim() == 2:
            assert float(p.std()) == pytest.approx(0.02, rel=0.02) and abs(float(p.mean())) < 5e-4, name
        else:
            assert (p == float("norm.weight" in name)).all(), name
    assert delta.trainable() == sum(p.numel() for p in before.values())


def mixed(mixout: float, mask: str, w: Tensor, d: Tensor, draws: int = 1) -> Tensor:
    change = Moved(mixout, mask)  # type: ignore[arg-type]
    g = torch.random.fork_rng()
    with g:
        torch.manual_seed(0)
        return torch.stack([change.weight_in_training(w, {"D": d}) for _ in range(draws)])


@pytest.mark.paper(172, oracle="c")
@pytest.mark.parametrize("mask", ["element", "column"])
def test_mixout_is_unbiased_and_mixes_with_the_beginning(mask: str) -> None:
    g = torch.Generator().manual_seed(0)
    w, d = torch.randn(3, 4, generator=g), torch.randn(3, 4, generator=g)
    found = mixed(0.3, mask, w, d, 10_000)
    spread = d.abs() * math.sqrt(0.3 / 0.7 / 10_000)
    assert ((found.mean(0) - (w + d)).abs() < 4 * spread).all()
    one = found[0]  # either as it began, or beyond where it is
    assert ((one - w).abs().lt(1e-6) | (one - w - d / 0.7).abs().lt(1e-6)).all()
    assert torch.equal(mixed(0.0, mask, w, d)[0], w + d)
    assert torch.equal(mixed(0.3, mask, w, torch.zeros_like(d))[0], w)
    assert torch.equal(Moved(0.3).weight(w, {"D": d}), w + d)
    dropped = mixed(0.3, mask, torch.zeros_like(w), d)[0]
    assert (dropped.eq(0) | (dropped - d / 0.7).abs().lt(1e-6)).all()
    if mask == "column":
        assert (dropped.eq(0).all(0) | dropped.ne(0).all(0)).all()


@pytest.mark.paper(172, oracle="c")
def test_mixout_is_of_linear_maps_alone_those_of_fresh_blocks_too(wide: Wide) -> None:
    delta = Delta.begin(wide, Stable(reinit=1, mixout=0.5).recipe().changes, torch.Generator().manual_seed(0))
    begun = Delta.begin(wide, Stable(reinit=1).recipe().changes, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for p in delta.parameters():
            p += 0.1
    delta.train()
    with torch.no_grad(), begun.attached(wide, "weight"):
        first = {name: p.clone() for name, p in named(wide)}
    with torch.no_grad(), torch.random.fork_rng(), delta.attached(wide, "weight"):
        torch.manual_seed(0)
        for name, p in named(wide):
            steps = {round(one, 4) for one in (p - first[name]).flatten().tolist()}
            assert steps == ({0.0, 0.2} if "fc" in name and p.dim() > 1 else {0.1}), name


@pytest.mark.paper(172, oracle="c")
def test_mixout_acts_in_a_run_though_dropout_is_off(wide: Wide, data: Data) -> None:
    plain, mixed_in = (tune(wide, data, recipe("stable", steps=4, lr=1e-3, mixout=p)).losses for p in (0.0, 0.5))
    assert plain[0] == mixed_in[0] and plain[1:] != mixed_in[1:]  # nothing has moved before the first step


def named(model: Wide) -> list[tuple[str, Tensor]]:
    """Weights as the model has them now."""
    parts = [(name, part) for name, part in model.named_modules() if hasattr(part, "weight")]
    return [(f"{name}.{kind}", getattr(part, kind)) for name, part in parts for kind in ("weight", "bias")
            if isinstance(getattr(part, kind, None), Tensor)]  # fmt: skip


@pytest.mark.paper(172, oracle="d")
def test_fresh_blocks_are_drawn_to_where_they_began_and_the_head_is_not(wide: Wide, data: Data) -> None:
    """Without a slope nothing moves: neither shrinks towards 0."""
    made = Stable(reinit=1, steps=5, lr=0.1, prior_decay=0.5).recipe()
    still = replace(made, objectives=(Flat(),))
    tuned = tune(wide, data, still, seed=3)
    assert all(not p.any() for p in tuned.delta.parameters())
    begun = Linear()
    begun.begin(wide, data, torch.Generator().manual_seed(3))
    assert torch.equal(tuned.readout.weight, begun.weight)  # type: ignore[arg-type]


class Flat:
    """A loss without a slope."""

    name, separable = "flat", True

    def __call__(self, seen: Seen) -> Tensor:
        return seen.logits.sum() * 0


def test_mixout_acts_in_training_only(wide: Wide) -> None:
    delta = Delta.begin(wide, [Placed(Moved(0.5))], torch.Generator())
    with torch.no_grad():
        for p in delta.parameters():
            p += 0.1
    ids = torch.tensor([[1, 2]])
    with delta.attached(wide):
        assert torch.equal(wide(ids), wide(ids))
        delta.train()
        assert not torch.equal(wide(ids), wide(ids))


@pytest.mark.paper(172, oracle="d")
def test_prior_decay_draws_to_the_beginning(wide: Wide, data: Data) -> None:
    class Still:
        """A loss without a slope."""

        name, separable = "still", True

        def __call__(self, seen: object) -> Tensor:
            return sum((p.sum() * 0 for p in run.delta.parameters()), torch.zeros(()))

    stage = Stage(steps=5, lr=0.1, weight_decay=0.5, rate="linear", update=lambda decay: AdamW(weight_decay=decay))
    made = Recipe((Placed(Moved()),), (Still(),), (stage,))
    delta = Delta.begin(wide, made.changes, torch.Generator())
    with torch.no_grad():
        for p in delta.parameters():
            p += 1
    run = _Run(wide, data, made, Linear(), delta, 0)
    from handful.tune.checkpoint import Checkpoint

    run.go("branch", Checkpoint(None, 1, ""), None, None, None, None, 1)
    left = math.prod(1 - 0.1 * (1 - t / 5) * 0.5 for t in range(5))
    for p in delta.parameters():
        torch.testing.assert_close(p.data, torch.full_like(p, left))


@pytest.mark.paper(172, oracle="e")
def test_rates_fall_from_block_to_block(bert: nn.Module) -> None:
    made = Stable(reinit=0, block_decay=0.9).recipe()
    delta = Delta.begin(bert, made.changes, torch.Generator())
    readout = Linear()
    readout.weight, readout.bias = nn.Parameter(torch.zeros(2, 16)), nn.Parameter(torch.zeros(2))
    groups = groups_of(made.stages[0], bert, delta, readout)
    everything = [id(p) for group in groups for p in group.parameters]
    assert sorted(everything) == sorted({id(p) for m in (delta, readout) for p in m.parameters()})
    factor = {id(p): group.factor for group in groups for p in group.parameters}
    assert all(factor[id(p)] == 1 for p in readout.parameters())
    for holder in delta.holders:
        assert isinstance(holder, Holder)
        below = {"0": 2, "1": 1}.get(holder.site.split(".")[2] if "layer" in holder.site else "", 3)
        for p in holder.parameters():
            assert factor[id(p)] == pytest.approx(0.9**below), holder.site


def test_the_recipe_learns_and_its_settings_are_the_papers(wide: Wide, data: Data) -> None:
    stage = Stable().recipe().stages[0]
    assert (stage.lr, stage.batch, stage.warmup, stage.clip, stage.rate) == (2e-5, 32, 0.1, 1.0, "linear")
    tuned = tune(wide, data, recipe("stable", reinit=1, steps=40, lr=3e-3, mixout=0.1))
    assert (tuned.logits(data.inputs).argmax(1) == data.labels).float().mean() > 0.9


def test_instability_counts_what_learnt_nothing() -> None:
    scores = [0.9, 0.5, 0.7, 0.4]
    found = instability(lambda seed: scores[seed], range(4), majority=0.5)
    assert found.failed == 0.5 and found.best == 0.9
    assert found.mean == pytest.approx(0.625) and found.std == pytest.approx(0.2217, abs=1e-4)


def test_what_cannot_be_is_refused(bert: nn.Module) -> None:
    with pytest.raises(BadInput, match="mixout is a share below 1"):
        Stable(mixout=1.0).recipe()
    with pytest.raises(BadInput, match="'adamw' or 'bertadam'"):
        Stable(optimiser="adam").recipe()  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="block_decay is a factor"):
        Stable(block_decay=0.0).recipe()
    with pytest.raises(BadInput, match="reinit is a number of blocks"):
        Stable(reinit=-1).recipe()
    with pytest.raises(BadInput, match="top9 has 9 blocks, the model 2"):
        Where(("q",), blocks="top9").find(bert)
    with pytest.raises(BadInput, match="begins 'normal'"):
        Fresh("ones", std=0.0)
    with pytest.raises(BadInput, match="at least one seed"):
        instability(lambda seed: 0.0, [], 0.5)
