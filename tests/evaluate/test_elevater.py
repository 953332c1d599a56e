"""ELEVATER: metrics against scikit-learn and by hand, the split, the search, the probe that starts from text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from handful.core.train import batches
from handful.errors import BadInput
from handful.evaluate.elevater import (
    Predictions,
    average_precision,
    knowledge_sentences,
    metric_of,
    parameter_efficiency,
    score,
    score_predictions,
    validation_split,
)
from handful.evaluate.probe import DECAYS, merge_projection, probe, search, text_start, train


@pytest.mark.paper(63, oracle="a", part="metrics")
@pytest.mark.paper(63, oracle="a", part="predictions")
def test_metrics_are_those_of_scikit_learn_and_of_a_hand(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y, scores = rng.choice(4, 200, p=[0.7, 0.1, 0.1, 0.1]), rng.random((200, 4))
    assert score(y, scores, "mean-per-class") == pytest.approx(balanced_accuracy_score(y, scores.argmax(1)))
    assert score(y, scores, "accuracy") == (scores.argmax(1) == y).mean()
    two, tied = (y > 0).astype(int), np.round(scores[:, :2], 1)
    assert score(two, tied, "roc-auc") == pytest.approx(roc_auc_score(two, tied[:, 1]))
    # Ranked 1 0 1 1 0: precision 1, 1/2, 2/3, 3/4 at recall 1/3, 1/3, 2/3, 1; best at recall 0-.3 is 1, .4-1 is 3/4.
    assert average_precision([1, 0, 1, 1, 0], [5, 4, 3, 2, 1]) == pytest.approx((4 * 1 + 7 * 0.75) / 11)
    # Items of one score are found together, whichever stands first: precision is 1/2 at recall 1.
    assert average_precision([1, 0], [0.5, 0.5]) == average_precision([0, 1], [0.5, 0.5]) == 0.5
    labels = np.array([[1, 0], [0, 1], [1, 1]])
    assert score(labels, labels + 0.0, "11point-map") == 1
    saved = Predictions("m", "oxford-flower", scores[None], 5, (0,), 10, 20, 15, 12)
    saved.save(tmp_path / "p.json")
    back = Predictions.load(tmp_path / "p.json")
    assert score_predictions(back, y)[0] == pytest.approx(balanced_accuracy_score(y, scores.argmax(1)))
    assert (back.n_shot, back.num_params, back.rnd_seeds) == (5, 20, (0,))


@pytest.mark.paper(63, oracle="d")
def test_the_first_fifth_of_each_class_chooses() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [5, 11, 20]))
    fit, val = validation_split(labels)
    assert np.bincount(labels[val]).tolist() == [1, 3, 4]
    for c in range(3):
        of = np.flatnonzero(labels == c)
        assert np.isin(of[: np.isin(of, val).sum()], val).all()
    assert sorted([*fit, *val]) == list(range(36))
    assert all((a == b).all() for a, b in zip(validation_split(labels), (fit, val), strict=True))
    many = np.array([[1, 1], [1, 0], [0, 1], [1, 0], [0, 1], [1, 1]])
    assert validation_split(many).val.tolist() == [0]  # both quotas are ceil(4 / 5) and the first item carries both


@pytest.mark.paper(63, oracle="b", part="linear probe")
@pytest.mark.paper(63, oracle="b", part="metrics")
def test_without_a_step_the_probe_is_zero_shot_and_a_projection_can_be_merged() -> None:
    rng = np.random.default_rng(0)
    x, text = rng.normal(size=(60, 16)).astype(np.float32), rng.normal(size=(5, 16))
    start = text_start(text)
    cosine = (x / np.linalg.norm(x, axis=1, keepdims=True)) @ (text / np.linalg.norm(text, axis=1, keepdims=True)).T
    stays, _ = train(start, x, np.arange(60) % 5, rate=0.1, decay=0, epochs=0)
    assert (stays(x).argmax(1) == cosine.argmax(1)).all()
    assert stays(x) == pytest.approx(100 * cosine, abs=1e-3)
    projection, pre = rng.normal(size=(24, 16)), rng.normal(size=(60, 24))
    assert pre @ merge_projection(text, projection).T == pytest.approx((pre @ projection) @ text.T, abs=1e-5)


@pytest.mark.paper(63, oracle="c", part="linear probe")
@pytest.mark.parametrize("at", [0, 1, 37, 40, 48, 90, 96])
def test_the_search_finds_the_maximum_of_a_concave_score_with_few_trials(at: int) -> None:
    tried: list[tuple[float, float]] = []

    def toy(rate: float, decay: float) -> float:
        tried.append((rate, decay))
        return -((DECAYS.index(decay) - at) ** 2) - 100 * abs(np.log10(rate) + 3)

    found = search(toy)
    assert (found.rate, found.decay) == (pytest.approx(1e-3), DECAYS[at])
    assert found.tried == len(tried) <= 6 * (7 + 8)
    assert len(set(tried)) == len(tried)


def test_training_learns_and_what_the_authors_report_is_the_best_epoch() -> None:
    rng = np.random.default_rng(0)
    means = rng.normal(size=(3, 8))
    y, test_y = np.arange(45) % 3, np.arange(300) % 3
    x, test = means[y] + 0.7 * rng.normal(size=(45, 8)), means[test_y] + 0.7 * rng.normal(size=(300, 8))
    start = text_start(rng.normal(size=(3, 8)), scale=10.0)
    found = probe(start, x, y, rates=(1e-3, 1e-1), decays=(1e-6, 1e-3, 1.0), published=(test, test_y))
    last = score(test_y, found.probe(test), "accuracy")
    assert last > score(test_y, start(test), "accuracy") + 0.3
    assert found.published is not None and found.published >= last
    again = probe(start, x, y, rates=(1e-3, 1e-1), decays=(1e-6, 1e-3, 1.0))
    assert (again.probe.weight == found.probe.weight).all() and again.published is None


def test_the_search_is_judged_by_probabilities() -> None:
    """One column of logits says nothing of a class: here it is constant, and its probability is right."""
    y = np.arange(40) % 2
    x = np.stack([1.0 - 2 * y, np.full(40, 1e-3)], axis=1)
    start, split = text_start([[1.0, 1e-6], [1e-6, 1.0]], scale=1.0), (np.arange(20), np.arange(20, 40))
    constant = start._replace(weight=np.array([[1, 0], [0, 0]], np.float32))
    found = probe(constant, x, y, metric="roc-auc", split=split, rates=(0.0,), decays=(0.0,), published=(x, y))
    assert np.ptp(constant(x)[:, 1]) == 0
    assert found.found.score == found.published == 1


def test_channels_are_scaled_and_the_scale_is_trained_as_torch_does() -> None:
    """The loop against torch.nn and torch.optim; 65 items leave a batch of one, which the authors pass over."""
    rng = np.random.default_rng(0)
    x, y = (3 + 2 * rng.normal(size=(65, 6))).astype(np.float32), np.arange(65) % 3
    start = text_start(rng.normal(size=(3, 6)), scale=2.0)
    norm, t = torch.nn.BatchNorm1d(6, affine=False), torch.nn.Parameter(torch.tensor(np.log(2.0)))
    linear = torch.nn.Linear(6, 3).double()
    linear.weight.data, linear.bias.data = torch.tensor(start.weight).double(), torch.zeros(3).double()
    step = torch.optim.SGD([*linear.parameters(), t], 0.05, momentum=0.9, weight_decay=0.01)
    for epoch in range(3):
        for seen in batches(torch.arange(65), 1, 64, seed=epoch):
            if len(seen) == 1:
                continue
            loss = torch.nn.functional.cross_entropy(
                t.exp() * linear(norm(torch.tensor(x)[seen]).double()), torch.tensor(y)[seen]
            )
            step.zero_grad()
            loss.backward()
            step.step()
    found, _ = train(start, x, y, rate=0.05, decay=0.01, epochs=3, channel_norm=True, train_scale=True)
    assert found.weight == pytest.approx(linear.weight.detach().numpy(), abs=1e-4)
    assert found.scale == pytest.approx(t.exp().item(), rel=1e-4) and found.scale != 2
    wanted = t.exp() * linear(norm.eval()(torch.tensor(x)).double())
    assert found(x) == pytest.approx(wanted.detach().numpy(), abs=1e-3)


def test_small_things() -> None:
    assert parameter_efficiency(80, 0) == 80
    assert parameter_efficiency(80, 10**8) == pytest.approx(80 * np.exp(-np.log10(2)))
    assert metric_of("Oxford-Pets") == "mean-per-class" and metric_of("EuroSAT") == "accuracy"
    assert metric_of("voc-2007-classification") == "11point-map" and metric_of("hateful-memes") == "roc-auc"
    assert knowledge_sentences("cat", ["a {}", "the {}"], ["a pet"]) == ["a cat ; cat , a pet", "the cat ; cat , a pet"]
    assert knowledge_sentences("cat", ["a {}"], [""]) == ["a cat"]
    assert knowledge_sentences("cat", ["a {}"], ["a pet", ""]) == ["a cat ; cat , a pet", "a cat"]


GOOD = np.eye(3)[None]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: score([0, 1], np.ones((3, 2)), "accuracy"), "do not fit"),
        (lambda: score([0, 5], np.ones((2, 2)), "accuracy"), "below the 2 columns"),
        (lambda: score([0, 1], [[1, np.nan], [0, 1]], "accuracy"), "row 0 of the scores is not finite"),
        (lambda: score(np.eye(2, dtype=int), np.eye(2), "accuracy"), "use 11point-map"),
        (lambda: score([1, 1], np.eye(2), "roc-auc"), "both classes"),
        (lambda: score([1, 1], np.eye(2), "f1"), "unknown metric"),
        (lambda: score([1, 0, 1], np.eye(3), "roc-auc"), "second of two columns"),
        (lambda: score([1, 0], ["a", "b"], "roc-auc"), "scores must be numbers"),
        (lambda: average_precision([1, 0], [1]), "scores \\[n\\]"),
        (lambda: average_precision([1, 0], [np.nan, 1]), "finite scores"),
        (lambda: validation_split([[0.5, 1], [1, 0]]), "0/1"),
        (lambda: knowledge_sentences("cat", ["a photo"]), "with {} for the name, not 'a photo'"),
        (lambda: knowledge_sentences("cat", "a {}"), "templates is a list"),
        (lambda: knowledge_sentences("cat", ["a {}"], "a pet"), "knowledge is a list"),
        (lambda: probe(text_start(np.eye(2)), np.eye(2), [0, 1, 1]), "do not fit"),
        (lambda: probe(text_start(np.eye(2)), np.eye(2), [0, 1], split=([0], [5])), "rows below 2"),
        (lambda: search(lambda rate, decay: 0.0, rates=(-1.0,)), "rates must be a finite number from 0"),
        (lambda: text_start([["a"]]), "class text must be numbers"),
        (lambda: text_start(np.eye(2), scale=0), "scale must be a finite number above 0"),
        (lambda: train(text_start(np.eye(2)), np.eye(2), [0, 2], rate=1, decay=0, epochs=1), "class numbers below 2"),
        (lambda: train(text_start(np.eye(2)), np.eye(2) * np.nan, [0, 1], rate=1, decay=0, epochs=1), "be finite"),
        (lambda: text_start(np.zeros((2, 2))), "without rows of zeros"),
        (lambda: validation_split([0, 0, 1]), "class '1' has a single item"),
        (lambda: score_predictions(Predictions("m", "d", GOOD, 1, (0,), 0, 0, 0, 0), [0, 1]), "for 3 items, but 2"),
        (lambda: score_predictions(Predictions("m", "d", GOOD, 1, (0,), 0, 0, 0, 0), [0, 1, 3]), "labels of 4"),
        (lambda: score_predictions(Predictions("m", "d", GOOD, 1, (0,), 0, 0, 0, 0), ["a", "b", "c"]), "class numbers"),
        (lambda: Predictions("m", "d", GOOD / 0, 1, (0,), 0, 0, 0, 0).save("x.json"), "seed 0 are not finite"),
        (lambda: Predictions("m", "d", GOOD, 1, (0, 1), 0, 0, 0, 0).save("x.json"), "with 2 seeds"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_scored_is_refused(call, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        call()
