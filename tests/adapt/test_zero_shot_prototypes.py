"""Prototypes from signatures: the authors' loss, scikit-learn's centroids, planted maps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestCentroid

from handful.adapt import head
from handful.adapt.zero_shot_prototypes import episode_loss
from handful.errors import BadInput

PART = "zero-shot-map"
QUICK = {"width": 16, "episodes": 200, "lr": 1e-2}


@pytest.fixture(scope="module")
def world() -> tuple[np.ndarray, np.ndarray, dict[int, np.ndarray]]:
    """Items around a linear image of the signature of their class: 24 classes, the signatures of six more."""
    draw = np.random.default_rng(1)
    s, y = draw.normal(size=(30, 8)), np.repeat(np.arange(30), 8)
    s /= np.linalg.norm(s, axis=1, keepdims=True)
    return s[y] @ draw.normal(size=(8, 20)) + 0.1 * draw.normal(size=(240, 20)), y, dict(enumerate(s))


def fitted(world: Any, **params: Any) -> Any:
    x, y, text = world
    return head("zero-shot-prototypes", text=text, **{**QUICK, **params}).fit(x[y < 24], y[y < 24])


NEW = list(range(24, 30))


@pytest.mark.paper(92, oracle="f", part=PART)
def test_the_loss_of_an_episode_is_the_authors(golden: Any) -> None:
    _, expected = golden("protonet")
    draw = np.random.default_rng(0)
    x, v, s, w = (torch.as_tensor(draw.normal(size=size)) for size in ((12, 6), (6, 5), (4, 3), (3, 5)))
    y = torch.eye(4, dtype=torch.float64).repeat_interleave(3, 0)
    assert float(episode_loss(v, w, x, s, y, torch.ones(4, dtype=torch.bool))) == pytest.approx(expected, abs=1e-6)


@pytest.mark.paper(92, oracle="a", part=PART)
@pytest.mark.filterwarnings("ignore:self.within_class_std_dev_", "ignore:divide by zero")  # one prototype has no spread
def test_answers_are_those_of_the_nearest_centroid(world: Any) -> None:
    x, _, text = world
    made = fitted(world, episodes=20)
    prototypes = np.stack([text[c] for c in NEW]) @ made.state_["words"].numpy()
    prototypes /= np.linalg.norm(prototypes, axis=1, keepdims=True)
    near = NearestCentroid().fit(np.repeat(prototypes, 2, 0), np.repeat(NEW, 2))
    assert np.array_equal(made.predict(x, NEW), near.predict(x @ made.state_["image"].numpy()))


@pytest.mark.paper(92, oracle="b", part=PART)
def test_the_linear_form_is_the_same_up_to_a_constant_a_query(world: Any) -> None:
    x, _, text = world
    made = fitted(world, episodes=20)
    c = np.stack([text[c] for c in NEW]) @ made.state_["words"].numpy()
    c /= np.linalg.norm(c, axis=1, keepdims=True)
    q = x @ made.state_["image"].numpy()
    gap = np.asarray(made.logits(x, NEW)) - (2 * q @ c.T - np.square(c).sum(1))
    np.testing.assert_allclose(gap, -np.square(q).sum(1, keepdims=True) @ np.ones((1, 6)), atol=1e-5)


def test_a_planted_map_is_found_for_classes_without_examples(world: Any) -> None:
    x, y, _ = world
    new = y >= 24
    right = [float((fitted(world, **more).predict(x[new], NEW) == y[new]).mean()) for more in ({"episodes": 0}, {})]
    assert right[0] < 0.6 and right[1] > 0.95, right
    small = fitted(world, ways=5, queries=2, random_state=3)
    assert (small.predict(x[new], NEW) == y[new]).mean() > 0.9


def test_held_out_classes_say_when_to_stop(world: Any) -> None:
    """Signatures that say nothing teach nothing that lasts: the start is best on classes held out."""
    x, y, text = world
    noise = {c: np.random.default_rng(100 + c).normal(size=8) for c in text}
    made = {held: fitted((x, y, noise), held_out=held, episodes=400, lr=0.02) for held in (0.0, 0.2)}
    start = fitted((x, y, noise), episodes=0).state_["image"]
    far = {held: float((m.state_["image"] - start).norm()) for held, m in made.items()}
    assert far[0.2] < 0.5 * far[0.0], far


def test_what_an_episode_does_not_ask_for_need_not_be_there(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step looks at its own rows and classes only, and gets what it would from all with the others masked."""
    quick = {"ways": 5, "queries": 2, "episodes": 60}
    few = fitted(world, **quick)
    everything = "handful.adapt.zero_shot_prototypes._present"
    monkeypatch.setattr(everything, lambda real: torch.arange(real.shape[-1]).expand(real.shape))
    for name in ("image", "words"):
        torch.testing.assert_close(few.state_[name], fitted(world, **quick).state_[name], atol=1e-6, rtol=1e-6)


def test_few_classes_are_learnt_to_the_end(world: Any) -> None:
    """Two of eight, held out, would say to stop at the start, where answers are chance."""
    x, y, text = world
    few, noise = y < 8, {c: np.random.default_rng(100 + c).normal(size=8) for c in text}
    made = head("zero-shot-prototypes", text=noise, **QUICK).fit(x[few], y[few])
    assert (made.predict(x[few]) == y[few]).mean() > 0.9


@pytest.mark.parametrize(
    "bad",
    [{"width": 0}, {"episodes": -1}, {"ways": 1}, {"queries": 0}, {"held_out": 0.9}, {"lr": 0.0}, {"scaling": "max"}],
    ids=str,
)
def test_parameters_that_make_no_sense_are_refused(world: Any, bad: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=f"^{next(iter(bad))} "):
        fitted(world, **bad)


def test_classes_without_a_signature_are_refused(world: Any) -> None:
    x, y, text = world
    with pytest.raises(BadInput, match="class 31 is not known"):
        fitted(world).predict(x, [24, 31])
    with pytest.raises(BadInput, match="no class text for 3"):
        fitted((x, y, {c: v for c, v in text.items() if c != 3}))
