"""Choosing among ready classifiers, and when there is a certificate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from handful.adapt import head
from handful.adapt.base import Features
from handful.adapt.steel import Steel, clusters
from handful.core.certificate import risk_certificate
from handful.core.task import make_task
from handful.errors import BadInput
from handful.evaluate.certificate import certified_episodes

WAYS, WIDTH = 4, 10


def certified(**params: Any) -> Steel:
    return Steel(hypotheses_independent=True, **params)


@pytest.fixture
def zoo() -> np.ndarray:
    """60 linear classifiers, number 17 being the class means of the blobs."""
    weights = np.random.default_rng(1).normal(size=(60, WAYS, WIDTH + 1))
    centres = np.random.default_rng(0).normal(size=(WAYS, WIDTH))
    weights[17] = np.concatenate([centres / np.linalg.norm(centres, axis=1, keepdims=True), np.zeros((WAYS, 1))], 1)
    return weights


def test_the_best_of_a_zoo_is_chosen_and_certified(zoo: np.ndarray, blobs: Any) -> None:
    x, y = blobs(shots=20)
    fitted = certified(hypotheses=zoo).fit(x, y)
    wrong = int((fitted.predict(x) != y).sum())
    assert int(fitted.state_["index"]) == 17
    assert fitted.certificate_ == risk_certificate(wrong, 80, 60, classes=WAYS, balanced=True)
    assert not fitted.certificate_.worse_than_chance


def test_ties_go_to_the_lower_log_loss(zoo: np.ndarray, blobs: Any) -> None:
    x, y = blobs(shots=20)
    flat = zoo[[17, 17, 17]] * np.array([1.0, 8.0, 1000.0])[:, None, None]
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    logits = np.einsum("nd,mcd->mnc", np.c_[x, np.ones(len(x))], flat)
    log_p = (
        logits
        - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
        - logits.max(-1, keepdims=True)
    )
    loss = -log_p[:, np.arange(len(y)), y].mean(1)
    assert int(certified(hypotheses=flat).fit(x, y).state_["index"]) == loss.argmin()


def test_templates_times_scales(blobs: Any) -> None:
    x, y = blobs(shots=12)
    means = np.stack([x[y == c].mean(0) for c in range(WAYS)])
    draw = np.random.default_rng(2)
    text = {c: np.stack([draw.normal(size=WIDTH), means[c], draw.normal(size=WIDTH)]) for c in range(WAYS)}
    fitted = certified(text=text, scales=(1.0, 5.0)).fit(x, y)
    assert int(fitted.state_["hypotheses"]) == 8  # three templates and their mean, two scales
    assert int(fitted.state_["index"]) // 2 == 2  # the mean comes first
    assert fitted.certificate_.hypotheses == 8
    template = Steel(text={c: v[1] for c, v in text.items()}, logit_scale=float(5 if fitted.state_["index"] % 2 else 1))
    np.testing.assert_allclose(fitted.logits(x), template.fit(x, y).logits(x), atol=1e-9)


def test_a_template_that_one_class_lacks_is_none(blobs: Any) -> None:
    x, y = blobs()
    text = {c: np.eye(WIDTH)[[c, c + 4]] for c in range(WAYS)} | {0: np.eye(WIDTH)[[0]]}
    assert int(certified(text=text).fit(x, y).state_["hypotheses"]) == 2


def test_text_of_another_width_reads_the_aligned_view(blobs: Any) -> None:
    x, y = blobs()
    aligned = np.eye(3)[[0, 1, 2, 2]][y] + 0.01
    text = {0: [1.0, 0, 0], 1: [0, 1.0, 0], 2: [0, 0, 1.0], 3: [0, 0, -1.0]}
    fitted = certified(text=text).fit(Features(x, {"aligned": aligned}), y)
    assert fitted.certificate_.errors == (y == 3).sum()
    assert fitted.view_widths() == {"aligned": 3}


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"independent": False}, "hypotheses_independent=True"),
        ({"weight": True}, "different weight"),
        ({"twice": True}, "same item"),
    ],
)
def test_no_certificate_where_its_assumptions_do_not_hold(how: Any, message: str, zoo: np.ndarray, blobs: Any) -> None:
    x, y = blobs()
    rows = Features(x, {}, np.arange(len(x)) // 2) if how.get("twice") else x
    weight = np.arange(1.0, len(x) + 1) if how.get("weight") else None
    fitted = Steel(hypotheses=zoo, hypotheses_independent=how.get("independent", True)).fit(rows, y, weight)
    with pytest.raises(BadInput, match=f"no certificate: .*{message}"):
        _ = fitted.certificate_
    assert (fitted.predict(x) == y).mean() > 0.8  # the classifier is there all the same


def test_rows_of_weight_0_are_no_examples(zoo: np.ndarray, blobs: Any) -> None:
    x, y = blobs()
    weight = np.r_[0.0, np.full(len(x) - 1, 3.0)]
    plain = certified(hypotheses=zoo).fit(x[1:], y[1:]).certificate_
    assert certified(hypotheses=zoo).fit(x, y, weight).certificate_ == plain
    assert plain.n == len(x) - 1
    assert not plain.balanced
    again = Features(x, {}, np.r_[1, 1, np.arange(2, len(x))])  # the row of weight 0 shows an item that is there too
    assert certified(hypotheses=zoo).fit(again, y, weight).certificate_ == plain


class TestClusters:
    """A search of fewer, counted as all."""

    def groups(self) -> np.ndarray:
        draw = np.random.default_rng(0)
        centres = 3 * draw.normal(size=(32, WAYS, WIDTH + 1))
        return np.repeat(centres, 8, axis=0) + 0.05 * draw.normal(size=(256, WAYS, WIDTH + 1))

    def test_the_groups_are_found(self) -> None:
        middle, member = clusters(torch.as_tensor(self.groups()), 0)  # type: ignore[misc]
        assert len(middle) in (16, 32, 64)
        assert (member[middle] == torch.arange(len(middle))).all()

    def test_the_certificate_counts_all(self, zoo: np.ndarray, blobs: Any) -> None:
        x, y = blobs(shots=20)
        every = self.groups()
        every[96:104] = 3 * zoo[17] + 0.05 * np.random.default_rng(5).normal(size=(8, WAYS, WIDTH + 1))
        some = certified(hypotheses=every, search="clusters", random_state=0).fit(x, y)
        best = certified(hypotheses=every).fit(x, y)
        assert 96 <= int(some.state_["index"]) < 104
        assert some.state_["index"] == best.state_["index"]
        assert some.certificate_.hypotheses == 256

    def test_only_the_best_groups_are_looked_into(self, blobs: Any) -> None:
        x, y = blobs(shots=20)
        every = self.groups()
        one = certified(hypotheses=every, search="clusters", top_clusters=1, random_state=0).fit(x, y)
        middle, member = clusters(torch.as_tensor(every), 0)  # type: ignore[misc]
        wrong = [int((certified(hypotheses=every[[m]]).fit(x, y).predict(x) != y).sum()) for m in middle.tolist()]
        assert int(member[int(one.state_["index"])]) == int(np.argmin(wrong))

    def test_too_few_are_all_looked_at(self, zoo: np.ndarray, blobs: Any) -> None:
        x, y = blobs(shots=20)
        assert int(certified(hypotheses=zoo[10:20], search="clusters").fit(x, y).state_["index"]) == 7


def test_a_batch_of_tasks_with_a_zoo(zoo: np.ndarray, blobs: Any) -> None:
    pairs = [blobs(shots=5, seed=seed) for seed in (0, 1)]
    task = make_task(*(torch.stack([torch.as_tensor(pair[i]) for pair in pairs]) for i in (0, 1)))
    together = Steel(hypotheses=zoo).adapt(task)
    for i, (x, y) in enumerate(pairs):
        assert together["index"][i] == Steel(hypotheses=zoo).fit(x, y).state_["index"]


def test_a_restored_one_answers_without_the_zoo(zoo: np.ndarray, blobs: Any) -> None:
    x, y = blobs()
    fitted = certified(hypotheses=zoo).fit(x, y)
    back = Steel.restore(fitted.parameters(), fitted.classes_, fitted.state_, WIDTH)
    back.check_state()
    np.testing.assert_array_equal(back.logits(x), fitted.logits(x))
    with pytest.raises(BadInput, match="card of a model file"):
        _ = back.certificate_


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"hypotheses": np.zeros((2, 3, 11))}, r"shape \[M, 4, 11\], not \(2, 3, 11\)"),
        ({"hypotheses": np.full((2, 4, 11), np.nan)}, "finite"),
        ({"hypotheses": "zoo"}, "array"),
        ({}, r"needs class text: .*\(on the command line: --class-names\)"),
        ({"hypotheses": np.zeros((2, 4, 11)), "delta": 1.0}, "delta"),
        ({"hypotheses": np.zeros((2, 4, 11)), "bound": "smallest"}, "bound is one of"),
        ({"hypotheses": np.zeros((2, 4, 11)), "search": "some"}, "search is one of"),
        ({"text": dict.fromkeys(range(4), np.ones(10)), "scales": (0.0,)}, "scales"),
        ({"text": dict.fromkeys(range(4), np.ones(10)), "scales": 5.0}, "scales is a list of logit scales"),
    ],
)
def test_bad_input(params: dict[str, Any], message: str, blobs: Any) -> None:
    with pytest.raises(BadInput, match=message):
        head("steel", **params).fit(*blobs())


@pytest.mark.paper(5, oracle="a", part="selector")
def test_a_single_hypothesis_without_an_error(zoo: np.ndarray, blobs: Any) -> None:
    x, y = blobs(shots=10, noise=0.1)
    found = certified(hypotheses=zoo[[17]]).fit(x, y).certificate_
    assert found.errors == 0
    assert found.risk == pytest.approx(1 - 0.05 ** (1 / 40), abs=1e-9)


@pytest.mark.paper(5, oracle="b", part="selector")
def test_the_bounds_of_one_choice_are_in_order(zoo: np.ndarray, blobs: Any) -> None:
    x, y = blobs(shots=20, noise=1.5)
    bounds: list[Any] = ["binomial", "chernoff-kl", "hoeffding"]
    found = [certified(hypotheses=zoo, bound=bound).fit(x, y).certificate_ for bound in bounds]
    assert len({c.errors for c in found}) == 1 and found[0].errors > 0
    assert found[0].risk < found[1].risk < found[2].risk


@pytest.mark.paper(5, oracle="c", part="selector")
def test_certificates_of_the_head_hold_on_new_items(zoo: np.ndarray, blobs: Any) -> None:
    """Few-shot episodes by the head itself: the error on many new items is above the certificate as rarely as said."""
    held_x, held_y = blobs(shots=500, noise=1.5)
    like = zoo[17] + 0.3 * np.random.default_rng(9).normal(size=(300, WAYS, WIDTH + 1))  # which is best is luck
    certificates, errors = [], []
    for seed in range(60):
        pick = np.random.default_rng(seed).choice(len(held_x), 40, replace=False)
        fitted = certified(hypotheses=like, delta=0.1).fit(held_x[pick], held_y[pick])
        certificates.append(fitted.certificate_)
        errors.append(float((fitted.predict(held_x) != held_y).mean()))
    found = certified_episodes(certificates, errors)
    assert found.violated <= 0.1 + 3 * (0.1 * 0.9 / 60) ** 0.5
    assert found.gap > 0
    assert found.non_vacuous == 1
    assert found.support < found.held_out < found.certificate


def test_episodes_side_by_side() -> None:
    pair = [risk_certificate(0, 20, classes=2), risk_certificate(5, 5, classes=2)]
    found = certified_episodes(pair, [0.2, 0.9])
    assert (found.episodes, found.support, found.held_out) == (2, 0.5, 0.55)
    assert (found.non_vacuous, found.better_than_chance, found.violated) == (0.5, 0.5, 0.5)
    with pytest.raises(BadInput, match="one each"):
        certified_episodes(pair, [0.1])
    with pytest.raises(BadInput, match="0 to 1"):
        certified_episodes(pair, [0.1, 1.1])
