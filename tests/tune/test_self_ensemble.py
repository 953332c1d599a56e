"""018, step 6: what a classifier thinks over a run, and which written texts it believes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_lm
import torch

from handful.errors import BadInput, HandfulError
from handful.tune.fillers import AsIs
from handful.tune.lm_bff import PromptClassifier
from handful.tune.recipe import Data, Seen
from handful.tune.self_ensemble import Consistent, Ensemble, Passes, SelfEnsemble

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "fewgen.json").read_text(encoding="utf-8"))


@pytest.mark.paper(18, oracle="d")
@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.999])
def test_who_always_thinks_the_same_is_believed_from_the_start(momentum: float) -> None:
    p = torch.tensor([[0.7, 0.2, 0.1], [0.0, 0.5, 0.5]])
    ensemble = Ensemble(torch.tensor([0, 1]), 3, momentum)
    for _ in range(30):
        ensemble.add(p)
        torch.testing.assert_close(ensemble.q, p, atol=1e-6, rtol=0)
    ensemble.add(torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.5, 0.5]]))
    if momentum == 0.9:
        share = 0.1 / (1 - 0.9**31)
        assert float(ensemble.q[0, 0]) == pytest.approx(0.7 * (1 - share), abs=1e-6)


@pytest.mark.paper(18, oracle="e")
def test_a_text_is_kept_by_label_and_certainty() -> None:
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    p = torch.tensor([0.9, 0.81, 0.8, 0.1, 0.05, 0.15, 0.3, 0.95])
    ensemble = Ensemble(labels, 2, momentum=0.0, threshold=0.8, fewest=2)
    ensemble.add(torch.stack([p, 1 - p], 1))
    # Not 2 (0.8 is not above), not 3 (the other class), not 6 (0.7), not 7 (the other class).
    assert ensemble.kept().nonzero()[:, 0].tolist() == [0, 1, 4, 5]
    # A class with fewer than three: those above the value at rank 4 // 2 of its own are added: 0.9, 0.81 of 0; of 1
    # the probabilities of 1 are 0.95 0.85 0.7 0.05, so that 0.7 is the value and 4 and 5 are above it.
    few = Ensemble(labels, 2, momentum=0.0, threshold=0.94, fewest=3)
    few.add(torch.stack([p, 1 - p], 1))
    assert few.kept().nonzero()[:, 0].tolist() == [0, 1, 4, 5]
    strict = Ensemble(labels, 2, momentum=0.0, threshold=0.94, fewest=0)
    strict.add(torch.stack([p, 1 - p], 1))
    assert strict.kept().nonzero()[:, 0].tolist() == [4]


@pytest.mark.paper(18, oracle="e")
def test_passes_are_those_of_the_authors_code() -> None:
    labels = torch.arange(60) % 3
    ensemble = Ensemble(labels, 3)
    for logits, expected in zip(torch.tensor(GOLDEN["logits"]), GOLDEN["chosen"], strict=True):
        ensemble.add(logits.double().softmax(-1))
        assert sorted(ensemble.next(12).tolist()) == sorted(expected)
    np.testing.assert_allclose(ensemble.q.numpy(), GOLDEN["q"], atol=1e-6)


def test_the_rest_and_the_first_once_all_were_seen() -> None:
    ensemble = Ensemble(torch.zeros(5, dtype=torch.long), 2, momentum=0.0, threshold=0.5)
    ensemble.add(torch.tensor([[0.9, 0.1]]).expand(5, -1))
    assert ensemble.next(3).tolist() == [0, 1, 2]
    assert ensemble.next(3).tolist() == [3, 4, 0]  # two are left, and the first again
    assert ensemble.next(3).tolist() == [1, 2, 3]  # 0 counts as seen
    assert ensemble.next(9).tolist() == [4, 0, 1, 2, 3]  # never more than there are


def test_consistency_is_the_divergence_from_what_it_thought() -> None:
    ensemble = Ensemble(torch.tensor([0, 1, 0]), 2)
    ensemble.add(torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]]))
    data = Data(torch.tensor([[2.0, 0.0], [1.0, 3.0]]), torch.tensor([0, 1]))
    seen = Seen(
        torch.nn.Identity(), AsIs(), torch.tensor([0, 2]), data.inputs, data.targets, torch.ones(2), 0, 1,
        torch.Generator(),
    )  # fmt: skip
    q = torch.tensor([[0.9, 0.1], [0.5, 0.5]])
    expected = torch.nn.functional.kl_div(data.inputs.log_softmax(-1), q, reduction="batchmean")
    torch.testing.assert_close(Consistent(ensemble, 20.0)(seen), 20 * expected)


REAL = [f"{a} {b} {c}" for c in ("great", "terrible") for a in ("the", "a") for b in ("film", "plot")]
TRUE = ["pos"] * 4 + ["neg"] * 4
WRITTEN = [f"{a} {b} {c}" for c in ("great", "terrible") for a in ("the", "a", "it", "long") for b in ("film", "plot")]


def fitted() -> PromptClassifier:
    classifier = PromptClassifier(
        tiny_lm.tiny("masked"), "*cls**sent_0*_it_was*mask*.*sep+*", {"neg": "bad", "pos": "good"}, steps=80, lr=5e-3,
        batch=8, smoothing=0.15, warmup=0.1,
    )  # fmt: skip
    return classifier.fit(REAL, TRUE)


def test_the_first_classifier_smooths_labels_and_warms_up() -> None:
    settings = {"steps": 4, "batch": 8, "lr": 1e-4, "warmup": 0.5, "smoothing": 0.15}
    words = {"neg": "bad", "pos": "good"}
    classifier = PromptClassifier(tiny_lm.tiny("masked"), "*cls**sent_0*_it_was*mask*.*sep+*", words, **settings)  # type: ignore[arg-type]
    asked = classifier.model.mask_logits([f"{one} it was [MASK]." for one in REAL])[:, classifier.ids]
    classifier.fit(REAL, TRUE)
    expected = torch.nn.functional.cross_entropy(asked, torch.tensor([1] * 4 + [0] * 4), label_smoothing=0.15)
    assert classifier.tuned is not None and classifier.tuned.losses[0] == pytest.approx(float(expected), abs=1e-5)
    at_once = replace(classifier, warmup=0.0).fit(REAL, TRUE)
    # The first step of a warm-up is shorter: the loss after it has changed less.
    assert at_once.tuned is not None
    first = [abs(one.losses[1] - one.losses[0]) for one in (classifier.tuned, at_once.tuned)]
    assert first[0] < 0.7 * first[1]


def test_wrong_labels_are_not_learnt() -> None:
    classifier = fitted()
    right = ["pos"] * 8 + ["neg"] * 8
    wrong = list(right)
    wrong[0], wrong[9] = "neg", "pos"
    assert list(classifier.predict(WRITTEN)) == right
    weights = {name: p.clone() for name, p in classifier.model.tower.named_parameters()}
    first = classifier.logits(WRITTEN)
    trainer = SelfEnsemble(classifier, fewest=2, lr=1e-3, batch=4, steps=20, interval=3)
    assert trainer.fit(WRITTEN, wrong, REAL, TRUE) is classifier
    assert list(classifier.predict(WRITTEN)) == right and classifier.score == 1
    assert not torch.allclose(classifier.logits(WRITTEN), first)
    for name, p in classifier.model.tower.named_parameters():
        assert torch.equal(p, weights[name])
    gullible = SelfEnsemble(fitted(), threshold=0.0, reg=0.0, smooth=0.0, lr=5e-3, batch=4, steps=160, interval=3)
    assert list(gullible.fit(WRITTEN, wrong).predict(WRITTEN)) == wrong


def test_without_a_step_it_answers_as_before() -> None:
    classifier = fitted()
    before = classifier.logits(WRITTEN)
    SelfEnsemble(classifier, steps=1, lr=0.0, interval=1, fewest=2).fit(WRITTEN, ["pos"] * 8 + ["neg"] * 8)
    torch.testing.assert_close(classifier.logits(WRITTEN), before)


def test_a_run_looks_at_all_texts_once_a_pass() -> None:
    asked = []

    def ask() -> torch.Tensor:
        asked.append(True)
        return torch.tensor([[0.9, 0.1]]).expand(12, -1)

    data = Data(torch.zeros(12, 1), torch.zeros(12, dtype=torch.long), ("a", "b"))
    passes = Passes(Ensemble(data.labels, 2), ask, interval=2)
    draws = passes.draws(data, 3, torch.Generator().manual_seed(0))
    seen = [next(draws) for _ in range(4)]
    assert len(asked) == 2 and sorted(torch.cat(seen).tolist()) == list(range(12))
    assert passes.steps(data, 3, 3) == 6


def test_bad_input() -> None:
    with pytest.raises(BadInput, match="from 0 to below 1"):
        Ensemble(torch.zeros(2, dtype=torch.long), 2, threshold=1.0)
    unfitted = PromptClassifier(tiny_lm.tiny("masked"), "*sent_0*mask*", {"neg": "bad", "pos": "good"})
    with pytest.raises(BadInput, match="has not been fitted"):
        SelfEnsemble(unfitted).fit(REAL, TRUE)
    nothing = Ensemble(torch.tensor([0, 0]), 2, fewest=0)
    nothing.add(torch.tensor([[0.5, 0.5], [0.5, 0.5]]))
    with pytest.raises(HandfulError, match="believes none"):
        nothing.next(2)
    assert math.isclose(float(nothing.q.sum()), 2)
