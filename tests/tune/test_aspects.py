"""SetFit for aspects (167): which spans something is said of, and what."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from handful.errors import BadInput
from handful.tune.aspects import Aspect, AspectClassifier, Parsed, Said, examples, nouns, words
from handful.tune.setfit import SetFit

THINGS = ("food", "wine", "table", "staff", "street", "monday")
SAID = [
    Said(f"the {a} was {how} on {b}", a, polarity)
    for a in THINGS[:4]
    for b in THINGS[4:]
    for how, polarity in (("great", "good"), ("awful", "bad"))
]


def spans(text: str) -> list[tuple[int, int]]:
    """Where the words above stand."""
    found, at = [], 0
    for word in text.split(" "):
        if word.strip(".,") in THINGS:
            found.append((at, at + len(word.strip(".,"))))
        at += len(word) + 1
    return found


class Bag(nn.Module):
    """The mean of word vectors, the first one three times over."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens, self.fc1 = nn.Embedding(400, 24), nn.Linear(24, 24)
        for n, p in enumerate(self.parameters()):
            p.data = torch.randn(p.shape, generator=torch.Generator().manual_seed(n)) / 3

    def forward(self, sentences: Sequence[Sequence[int]]) -> Tensor:
        rows = [torch.cat([3 * x[:1], x[1:]]).mean(0) for x in (self.embed_tokens(torch.tensor(s)) for s in sentences)]
        return self.fc1(torch.stack(rows))


class Tiny:
    """An encoder that can be tuned."""

    name = "tiny"

    def __init__(self, tower: Bag | None = None) -> None:
        self._tower = tower or Bag()
        self.vocabulary: dict[str, int] = {}

    def tower(self) -> Bag:
        made = Bag()
        made.load_state_dict(self._tower.state_dict())
        return made

    def inputs(self, items: Sequence[str]) -> list[list[int]]:
        cut = [item.replace(":", " : ").split() for item in items]
        return [[sum(map(ord, word)) * 7 % 400 for word in some] for some in cut]

    def encode(self, items: Sequence[str]) -> np.ndarray:
        with torch.no_grad():
            return np.asarray(self._tower(self.inputs(items)).numpy())

    def retuned(self, tower: Bag, mark: str, reading: None = None) -> Tiny:
        other = Bag()
        other.load_state_dict(tower.state_dict())
        return Tiny(other)


def classifier(**options: Any) -> AspectClassifier:
    settings = {"encoder": Tiny(), "recipe": SetFit(lr=1e-2, epochs=1).recipe()} | options
    return AspectClassifier(words(spans), **settings)


def test_candidates_that_touch_no_annotation_are_what_is_no_aspect() -> None:
    text = "The food at the street bar, and the food again."
    read = words(lambda _: [(4, 8), (16, 22), (23, 26), (36, 40)])
    said = [
        Said(text, "street bar", "good"),
        Said(text, "food", "bad", 1),
        Said(text, "foo", "bad"),
        Said(text, "food", "x", 2),
    ]
    found = examples(said, read)
    assert found.left_out == 2
    # "street" and "bar" lie within an annotated span; the first food touches none.
    assert found.aspects == [f"street bar:{text}", f"food:{text}", f"food:{text}"]
    assert found.aspect_labels == [True, True, False]
    assert found.polarities == [f"food at the street bar, and the:{text}", f", and the food again.:{text}"]
    assert found.polarity_labels == ["good", "bad"]
    wide = examples(said[:1], read, context=0, aspect_context=1)
    assert wide.aspects[0] == f"the street bar,:{text}" and wide.polarities == [f"street bar:{text}"]
    # A candidate right behind an annotated one touches it, as in the code.
    beside = examples([Said(text, "street", "good")], read)
    assert beside.aspects == [f"street:{text}", f"food:{text}", f"food:{text}"]


def test_nouns_side_by_side_are_one_candidate() -> None:
    def token(idx: int, text: str, pos: str) -> Any:
        return SimpleNamespace(idx=idx, text=text, pos_=pos)

    doc = [token(0, "Paris", "PROPN"), token(6, "wine", "NOUN"), token(11, "is", "AUX"), token(14, "art", "NOUN")]
    found = nouns(SimpleNamespace(pipe=lambda texts: [doc for _ in texts]))(["Paris wine is art"])
    assert found == [Parsed("Paris wine is art", ((0, 5), (6, 10), (11, 13), (14, 17)), ((0, 2), (3, 4)))]
    assert found[0].cut(0, 2) == "Paris wine"


def test_aspects_and_what_is_said_of_them_are_found() -> None:
    model = classifier().fit(SAID)
    found = model.predict(["the wine was awful on street", "nothing here", "the food was great on monday"])
    assert found == [[Aspect("wine", 4, "bad")], [], [Aspect("food", 4, "good")]]
    texts = ["the staff was great on street", "the table was awful", "the staff"]
    assert model.polarity(texts, ["staff", "table", "sta"]) == ["good", "bad", None]


@pytest.mark.paper(167, oracle="c", part="aspects")
def test_without_steps_both_are_logistic_regression_on_frozen_features() -> None:
    base = Tiny()
    model = classifier(encoder=base, recipe=SetFit(epochs=0).recipe()).fit(SAID)
    seen = examples(SAID, words(spans))
    for which, texts, labels in (
        ("_aspect", seen.aspects, seen.aspect_labels), ("_polarity", seen.polarities, seen.polarity_labels),
    ):  # fmt: skip
        expected = LogisticRegression().fit(base.encode(texts), labels)
        encoder, head = getattr(model, which)
        assert np.array_equal(encoder.encode(texts), base.encode(texts))
        assert np.array_equal(head.predict_proba(base.encode(texts)), expected.predict_proba(base.encode(texts)))


@pytest.mark.paper(167, oracle="f", part="aspects")
def test_the_same_seed_gives_the_same_answers() -> None:
    made = [classifier(seed=seed).fit(SAID[:8]) for seed in (1, 1, 2)]
    seen = examples(SAID, words(spans))
    features = [one._polarity[0].encode(seen.polarities) for one in made]
    assert np.array_equal(features[0], features[1]) and not np.array_equal(features[0], features[2])
    texts = [one.text for one in SAID]
    assert made[0].predict(texts) == made[1].predict(texts)


def test_what_says_nothing_is_refused() -> None:
    with pytest.raises(BadInput, match="none of the 1 annotations"):
        classifier().fit([Said("the food", "foo", "good")])
    with pytest.raises(BadInput, match="every candidate is annotated"):
        classifier().fit([Said("the food", "food", "good")])
    with pytest.raises(BadInput, match="every aspect is 'good'"):
        classifier().fit([Said("the food on street", "food", "good")])
    with pytest.raises(BadInput, match="not made of whole words"):
        words(lambda _: [(0, 2)])(["the food"])
    with pytest.raises(BadInput, match="not been fitted"):
        classifier().predict(["the food"])
    with pytest.raises(BadInput, match="cannot be negative"):
        classifier(context=-1).fit(SAID)
    with pytest.raises(BadInput, match="1 texts, but 2 spans"):
        classifier().polarity(["a"], ["a", "b"])
