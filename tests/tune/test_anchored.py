"""Fine-tuning held where it began (072)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_lm
import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.core.anchored import AnchoredAdamW
from handful.core.train import AdamW
from handful.errors import BadInput
from handful.tune import Data, tune
from handful.tune.anchored import Anchored
from handful.tune.lm_bff import PromptClassifier
from handful.tune.recipes import recipe

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "recadam.json").read_text(encoding="utf-8"))


@pytest.mark.paper(72, oracle="a")
def test_without_a_pull_it_is_adamw() -> None:
    g = torch.Generator().manual_seed(0)
    start = torch.randn(4, 3, generator=g, dtype=torch.float64)
    theirs = nn.Parameter(start.clone())
    optimiser = torch.optim.AdamW([theirs], lr=1e-2, eps=0.0, weight_decay=0.0)
    mine, update = start.clone(), AnchoredAdamW(10, gamma=0.0, schedule="constant", eps=0.0)
    for _ in range(50):
        theirs.grad = torch.randn(4, 3, generator=g, dtype=torch.float64)
        optimiser.step()
        update([mine], (theirs.grad,), 1e-2)
    torch.testing.assert_close(mine, theirs.data, atol=1e-7, rtol=0)


@pytest.mark.paper(72, oracle="b")
def test_without_a_slope_it_goes_back_evenly() -> None:
    p0 = torch.randn(5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p = p0 + 1
    update = AnchoredAdamW(float("inf"), gamma=30.0, schedule="linear", anchors=[p0])
    for step in range(1, 8):
        update([p], (torch.zeros_like(p),), 1e-2)
        torch.testing.assert_close(p - p0, torch.full_like(p, (1 - 1e-2 * 30) ** step))


@pytest.mark.paper(72, oracle="c")
@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda c: f"{c['schedule']}-{c['weight']}-{c['gamma']}")
def test_steps_are_the_authors(case: dict[str, object]) -> None:
    g = torch.Generator().manual_seed(0)
    draw = lambda: torch.randn(2, 3, generator=g, dtype=torch.float64)  # noqa: E731
    p, anchor = draw(), draw()
    settings = {name: case[name] for name in ("t0", "gamma", "k", "schedule", "weight", "weight_decay")}
    update = AnchoredAdamW(**settings, anchors=[anchor])  # type: ignore[arg-type]
    for step in range(12):
        if step == 5:  # broken off and gone on with
            kept = update.memory()
            update = AnchoredAdamW(**settings)  # type: ignore[arg-type]
            update.recall([t.clone() for t in kept])
        update([p], (draw(),), 1e-3)
    torch.testing.assert_close(p, torch.tensor(case["after"], dtype=torch.float64), atol=1e-12, rtol=1e-9)


def test_it_is_let_go_in_the_middle() -> None:
    update = AnchoredAdamW(600)
    assert update.share(600) == pytest.approx(0.5) and update.share(1) < 0.003 and update.share(1200) > 0.997
    assert AnchoredAdamW(10, schedule="linear").share(4) == pytest.approx(0.4)
    assert AnchoredAdamW(10, schedule="linear").share(40) == AnchoredAdamW(10, schedule="constant").share(1) == 1
    assert AnchoredAdamW(1e6, k=1.0).share(1) >= 0


class Words(nn.Module):
    """The mean of word vectors, through a map."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens, self.fc1 = nn.Embedding(12, 6), nn.Linear(6, 6)
        g = torch.Generator().manual_seed(0)
        for p in self.parameters():
            p.data = torch.randn(p.shape, generator=g)

    def forward(self, ids: Tensor) -> Tensor:
        return functional.normalize(self.fc1(self.embed_tokens(ids).mean(1)), dim=1)


@pytest.fixture
def data() -> Data:
    g, labels = torch.Generator().manual_seed(0), torch.arange(16) % 2
    return Data(torch.cat([labels[:, None], torch.randint(2, 12, (16, 3), generator=g)], 1), labels)


def moved(data: Data, gamma: float, schedule: str) -> tuple[float, float]:
    """How far the encoder went, and how far the head did."""
    model = Words().eval()
    tuned = tune(model, data, recipe("anchored", steps=60, lr=1e-2, gamma=gamma, schedule=schedule, k=0.2))
    found = dict(tuned.delta.named_parameters())
    far = 0.0
    for holder in tuned.delta.each():
        before = getattr(model.get_submodule(holder.site), holder.parameter)
        far += float((holder.tensors["P"].detach() - before).square().sum())
    assert found
    return far**0.5, float(tuned.readout.weight.detach().norm())  # type: ignore[operator, union-attr]


def test_the_encoder_is_held_and_the_head_is_not(data: Data) -> None:
    free, held = moved(data, 0.0, "constant"), moved(data, 90.0, "sigmoid")
    assert 0 < held[0] < 0.7 * free[0]
    stage = Anchored().recipe().stages[0]
    assert stage.readout_update is not None and isinstance(stage.readout_update(0.0), AdamW)
    update = stage.update(0.0)
    assert isinstance(update, AnchoredAdamW)
    assert (update.t0, update.gamma, update.k, update.schedule, update.weight) == (600, 5000, 0.01, "sigmoid", 1)
    assert update.eps == 1e-8
    assert (stage.lr, stage.batch, stage.steps, stage.rate, stage.weight_decay) == (1e-5, 8, 1000, "linear", 0.0)


def test_a_prompted_model_is_held_with_its_head_for_words() -> None:
    """What began pre-trained is held, and the head for words is: its anchor is where it was."""
    texts = ["a great film", "it was great", "a terrible film", "it was terrible"]

    def went(**options: object) -> tuple[float, float]:
        model = tiny_lm.tiny("masked")
        was = {name: t.clone() for name, t in model.tower.state_dict().items()}
        classifier = PromptClassifier(
            model, "*cls**sent_0*_._it_was*mask*.*sep+*", {"neg": "not", "pos": "very"}, steps=30, lr=0.01, batch=4,
            **options,  # type: ignore[arg-type]
        )  # fmt: skip
        kept = classifier.fit(texts, ["pos", "pos", "neg", "neg"]).tuned.merge()  # type: ignore[union-attr]
        far = {name: float((t - was[name]).norm()) for name, t in model.tower.state_dict().items()}
        kept.undo()
        head, body = (sum(d for name, d in far.items() if ("cls." in name) == own) for own in (True, False))
        return head, body

    free = went()
    held = went(update=Anchored(steps=30, lr=0.01, gamma=90.0, k=0.2).update)
    assert min(free) > 0 and held[0] < 0.6 * free[0] and held[1] < 0.6 * free[1]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(BadInput, match=r"gamma 5000 times lr 0\.001 is above 1"):
        Anchored(lr=1e-3).recipe()
    with pytest.raises(BadInput, match="overshoots"):
        AnchoredAdamW(10)([torch.zeros(1)], (torch.zeros(1),), 1e-3)
    with pytest.raises(BadInput, match="from number 1 of 2 on"):
        AnchoredAdamW(10, anchors=[torch.zeros(2), torch.zeros(3)])([torch.zeros(2), torch.zeros(2)], (), 1e-5)
    with pytest.raises(BadInput, match="from number 1 of 2 on"):
        AnchoredAdamW(10, anchors=[torch.zeros(2)])([torch.zeros(2), torch.zeros(2)], (), 1e-5)
    with pytest.raises(BadInput, match="schedule is one of"):
        AnchoredAdamW(10, schedule="cosine")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="t0 must be above 0"):
        AnchoredAdamW(0)
    for wrong in ("t0=0", "k=nan", "gamma=-1"):
        with pytest.raises(BadInput, match="t0 must be above 0"):
            recipe(f"anchored:{wrong}")
    with pytest.raises(BadInput, match="schedule is one of"):
        recipe("anchored:schedule=cosine")
