"""SetFit's head learnt by gradient, and a student taught by a teacher (167)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.errors import BadInput
from handful.tune import Data, Linear, Stage, tune
from handful.tune.fillers import CrossEntropy, Shuffled
from handful.tune.loop import rate_at
from handful.tune.recipe import Seen
from handful.tune.recipes import recipe
from handful.tune.setfit import synthetic
from handful.tune.setfit_head import EachLabel, EveryPair, GradientHead, SetFitGradient, Taught, TaughtPairs


class Words(nn.Module):
    """The mean of word vectors, through a map."""

    def __init__(self, seed: int, width: int = 6) -> None:
        super().__init__()
        self.embed_tokens, self.fc1 = nn.Embedding(20, 6), nn.Linear(6, width)
        g = torch.Generator().manual_seed(seed)
        for p in self.parameters():
            p.data = torch.randn(p.shape, generator=g)

    def forward(self, sentences: list[list[int]]) -> Tensor:
        return self.fc1(torch.stack([self.embed_tokens(torch.tensor(s)).mean(0) for s in sentences]))  # type: ignore[no-any-return]


@pytest.fixture
def data() -> Data:
    g = torch.Generator().manual_seed(3)
    labels = [0, 1] * 8
    return Data([[c, *torch.randint(2, 20, (3,), generator=g).tolist()] for c in labels], torch.tensor(labels))


def test_the_head_is_the_authors(data: Data) -> None:
    model, g = Words(0).eval(), torch.Generator().manual_seed(5)
    head = GradientHead(2.0)
    head.begin(model, data, torch.Generator().manual_seed(1))
    bound = math.sqrt(6 / (6 + 2))  # Xavier: of what goes in and what comes out
    assert 0.5 * bound < float(head.weight.detach().abs().max()) <= bound and (head.bias == 0.01).all()
    x = torch.randn(3, 6, generator=g)
    torch.testing.assert_close(head(x, model), (x @ head.weight.mT + head.bias) / (2.0 + 1e-5))
    own = head.ships(model)
    torch.testing.assert_close(x @ own.weight.mT + own.bias, head(x, model))
    assert own.reading is None


def test_the_rate_is_halved_every_five_passes() -> None:
    stage = SetFitGradient().recipe().stages[1]
    assert (stage.lr, stage.batch, stage.epochs, stage.weight_decay) == (1e-2, 2, 16, 0.01)
    update = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-2)
    schedule = torch.optim.lr_scheduler.StepLR(update, step_size=5, gamma=0.5)
    for epoch in range(16):
        for step in range(7):
            assert rate_at(stage, 16 * 7, epoch * 7 + step) == pytest.approx(schedule.get_last_lr()[0])
        update.step()
        schedule.step()
    with pytest.raises(BadInput, match="needs epochs, not steps"):
        Stage(steps=3, rate="halved")


def test_stages_have_objectives_of_their_own(data: Data) -> None:
    made = SetFitGradient(epochs=0).recipe()
    assert made.stages[1].objectives == (CrossEntropy(),) and made.stages[1].sampler == Shuffled()
    assert made.stages[1].trains == ("readout",) and made.stages[0].trains == ("delta",)
    model = Words(0).eval()
    tuned = tune(model, data, made, seed=1)
    with tuned.delta.attached(model):
        assert torch.equal(model(data.inputs), Words(0)(data.inputs))  # frozen while the head learns
    assert tuned.delta.trainable() == sum(p.numel() for p in model.parameters())
    # The head alone is a linear classifier of the encoder's vectors: as good as one that is learnt on them.
    probe = nn.Linear(6, 2)
    update = torch.optim.LBFGS(probe.parameters(), max_iter=200)
    x = model(data.inputs).detach()

    def loss() -> Tensor:
        update.zero_grad()
        found = functional.cross_entropy(probe(x), data.labels)
        found.backward()
        return found

    update.step(loss)
    right = float((probe(x).argmax(1) == data.labels).float().mean())
    assert float((tuned.logits(data.inputs).argmax(1) == data.labels).float().mean()) >= right - 0.13


def test_end_to_end_moves_the_encoder_too(data: Data) -> None:
    made = SetFitGradient(epochs=0, end_to_end=True, body_lr=1e-2).recipe()
    stage = made.stages[1]
    assert stage.trains == ("delta", "readout") and (stage.lr, stage.readout_lr) == (1e-2, 1e-2)
    model = Words(0).eval()
    tuned = tune(model, data, made)
    with tuned.delta.attached(model):
        assert not torch.allclose(model(data.inputs), Words(0)(data.inputs))
    assert (tuned.logits(data.inputs).argmax(1) == data.labels).all()
    assert SetFitGradient().body_lr == 1e-5


def seen(features: Tensor, targets: Tensor, rows: Tensor, readout: nn.Module) -> Seen:
    n = len(features)
    return Seen(nn.Identity(), readout, rows, features, targets, torch.ones(n), 0, 1, torch.Generator())  # type: ignore[arg-type]


def test_several_labels_are_told_one_by_one() -> None:
    g = torch.Generator().manual_seed(0)
    head = Linear()
    head.weight, head.bias = nn.Parameter(torch.randn(3, 4, generator=g)), nn.Parameter(torch.randn(3, generator=g))
    x, y = torch.randn(5, 4, generator=g), torch.randint(0, 2, (5, 3), generator=g).float()
    want = nn.BCEWithLogitsLoss()(functional.linear(x, head.weight, head.bias), y)
    torch.testing.assert_close(EachLabel()(seen(x, y, torch.arange(5), head)), want)
    assert SetFitGradient(several=True).recipe().stages[1].objectives == (EachLabel(),)


def test_a_teacher_of_itself_has_nothing_to_teach(data: Data) -> None:
    x = Words(0)(data.inputs).detach()
    rows = torch.tensor([0, 1, 2, 2, 5, 9])
    unit = functional.normalize(x, dim=1)
    same = TaughtPairs(unit @ unit.mT)(seen(x[rows], data.targets[rows], rows, GradientHeadless()))
    assert float(same) == pytest.approx(0, abs=1e-12)
    other = torch.zeros(16, 16)
    found = TaughtPairs(other)(seen(x[rows], data.targets[rows], rows, GradientHeadless()))
    cosines = functional.cosine_similarity(x[rows[0::2]], x[rows[1::2]])
    torch.testing.assert_close(found, cosines.square().mean())


class GradientHeadless(nn.Module):
    """Looks at what it is given."""

    def look(self, model: nn.Module, inputs: Tensor) -> Tensor:
        return inputs


def test_every_pair_is_taught_once_or_in_turn(data: Data) -> None:
    pairs = EveryPair().pairs(data)
    assert {tuple(p) for p in pairs.tolist()} == {(i, j) for i in range(16) for j in range(i, 16)}
    assert EveryPair().steps(data, 1, 16) == math.ceil(16 * 17 / 2 / 16)
    assert len(EveryPair(iterations=20).pairs(data)) == 20 * 16
    rows = next(EveryPair().draws(data, 4, torch.Generator().manual_seed(0))).view(4, 2)
    assert (rows[:, 0] <= rows[:, 1]).all()


def test_a_student_learns_what_the_teacher_says(data: Data) -> None:
    teacher, student = Words(0).eval(), Words(7, width=4).eval()
    vectors = teacher(data.inputs).detach()
    said = (vectors @ torch.randn(6, generator=torch.Generator().manual_seed(9)) > 0).long()
    taught = Data(data.inputs, said, ("no", "yes"))
    made = Taught(teacher=vectors, epochs=20, lr=1e-2, end_to_end=True, body_lr=1e-3).recipe()

    def apart(model: nn.Module) -> float:
        a, b = (functional.normalize(m(data.inputs).detach(), dim=1) for m in (teacher, model))
        return float((a @ a.mT - b @ b.mT).square().mean())

    before = apart(student)
    tuned = tune(student, taught, made)
    with tuned.delta.attached(student):
        assert apart(student) < 0.4 * before
    assert float((tuned.logits(data.inputs).argmax(1) == said).float().mean()) > 0.9


def test_texts_from_names_alone() -> None:
    texts, labels = synthetic(["joy", "fear"], each=2)
    assert texts == ["This sentence is joy"] * 2 + ["This sentence is fear"] * 2
    assert labels == ["joy", "joy", "fear", "fear"]
    with pytest.raises(BadInput, match=r"needs \{\} once"):
        synthetic(["joy"], "nothing")
    with pytest.raises(BadInput, match="names of the classes"):
        synthetic([])


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(BadInput, match="must be above 0, not 0"):
        GradientHead(0)
    with pytest.raises(BadInput, match="vectors of 2 items, but there is an item 4"):
        TaughtPairs(torch.zeros(2, 2))(seen(torch.eye(2), torch.eye(2), torch.tensor([0, 4]), GradientHeadless()))
    assert recipe("setfit-gradient").readout is not None
