"""Descriptions of classes: asked of a language model, read from files, and what heads make of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_lm import tiny

from handful.adapt import head
from handful.adapt.vdt import SentenceAttention
from handful.encode.say import say
from handful.errors import BadInput
from handful.generate.descriptions import describe_classes
from handful.read import read_class_names

BIRDS = ["green_heron", "greenWoodpecker", "Owl"]


class Scripted:
    """Lists attributes in its first answer; then says something of each prompt, in three ways."""

    def __init__(self, listed: str = "1. Beak, 2. wing colour") -> None:
        self.listed, self.asked = listed, list[str]()

    def __call__(self, prompts: Sequence[str]) -> list[str]:
        self.asked += prompts
        if prompts[0].startswith("Which"):
            return [self.listed]
        stems = [prompt.rpartition(". ")[2] for prompt in prompts]
        ways = ("long\nand more", "\n {stem} long", "{lower} long")
        return [ways[i % 3].format(stem=s, lower=s.lower()) for i, s in enumerate(stems)]


def encoded(texts: Sequence[str]) -> np.ndarray:
    """A vector of ten numbers for a text, made of its letters."""
    return np.array([np.bincount([ord(c) % 10 for c in text], minlength=10) for text in texts], dtype=float)


def items() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    return draw.normal(size=(9, 10)), np.repeat(["a", "b", "c"], 3)


def test_two_stages_give_a_sentence_for_each_class_and_attribute() -> None:
    ask = Scripted()
    made = describe_classes(BIRDS, ask, "birds")
    assert made == {
        "green_heron": ["Green heron has beak that is long", "Green heron has wing colour that is long"],
        "greenWoodpecker": ["Green woodpecker has beak that is long", "Green woodpecker has wing colour that is long"],
        "Owl": ["Owl has beak that is long", "Owl has wing colour that is long"],
    }
    assert len(ask.asked) == 1 + 6 and "birds such as green heron, green woodpecker, Owl apart" in ask.asked[0]
    given = Scripted()
    assert describe_classes(BIRDS, given, attributes=["tail"])["Owl"] == ["Owl has tail that is long"]
    assert len(given.asked) == 3


@pytest.mark.parametrize(
    ("listed", "attributes"),
    [
        ("- Shape\n- Size: how large it is\n\n", ["shape", "size"]),
        ("1) shape; 2) Size.", ["shape", "size"]),
        ("a. shape, b. shape, colour of the wings", ["shape", "colour of the wings"]),
        (", ".join(f"thing {i}" for i in range(20)), [f"thing {i}" for i in range(3)]),
    ],
)
def test_a_list_is_read_however_it_is_written(listed: str, attributes: list[str]) -> None:
    made = describe_classes(["cat", "dog"], Scripted(listed), most=3)
    assert made["cat"] == [f"Cat has {attribute} that is long" for attribute in attributes]


@pytest.mark.parametrize(
    ("names", "given", "says"),
    [
        (["cat"], {}, "two or more different classes"),
        (["cat", " "], {}, "none blank"),
        (["green_heron", "Green heron"], {}, "different classes"),
        (["cat", "dog"], {"attributes": []}, "no attribute"),
        (["cat", "dog"], {"ask": Scripted(" \n")}, "no attribute"),
        (["cat", "dog"], {"ask": lambda prompts: ["size"]}, "1 answers to 2 prompts"),
        (["cat", "dog"], {"attributes": ["fur"], "ask": lambda prompts: ["soft", " "]}, "nothing of the fur of 'dog'"),
    ],
)
def test_what_cannot_be_described(names: list[str], given: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        describe_classes(names, **({"ask": Scripted()} | given))


def test_a_language_model_may_be_asked() -> None:
    model = tiny("causal", max_position_embeddings=200)
    model.tokenizer.model_max_length = model.most = 200
    made = describe_classes(["film", "review"], partial(say, model, most=3, stop=None), attributes=["plot"])
    assert list(made) == ["film", "review"]
    assert all(texts[0].startswith(f"{name.title()} has plot that is ") for name, texts in made.items())


@pytest.mark.paper(33, oracle="a", part="descriptions")
def test_sentences_of_a_file_become_the_mean_of_normalised_sentences(tmp_path: Path) -> None:
    x, y = items()
    texts = {"a": ["soft and red", "round", "large wings"], "b": ["hard", "square"], "c": ["thin", "no legs", "dark"]}
    torch.save(texts, tmp_path / "published.pt")
    found = {label: encoded(sentences) for label, sentences in read_class_names(tmp_path / "published.pt").items()}
    fitted = head("vdt", text=found, ratio=0.0, epochs=0).fit(x, y)
    for row, sentences in zip(fitted.state_["words"].numpy(), texts.values(), strict=True):
        vectors = encoded(sentences)
        doubled = 20 * vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        spread = np.sqrt(doubled.var(1, keepdims=True) + 1e-5)
        mean = ((doubled - doubled.mean(1, keepdims=True)) / spread).mean(0)
        np.testing.assert_allclose(row, mean / np.linalg.norm(mean), atol=1e-6)


@pytest.mark.paper(33, oracle="b", part="descriptions")
def test_the_order_in_a_file_does_not_count(tmp_path: Path) -> None:
    x, y = items()
    texts = {"a": ["soft", "round", "large"], "b": ["hard", "square", "red"], "c": ["thin", "no legs", "dark"]}
    logits = []
    for order in ([0, 1, 2], [2, 0, 1]):
        torch.save({label: [sentences[i] for i in order] for label, sentences in texts.items()}, tmp_path / "t.pt")
        text = {label: encoded(sentences) for label, sentences in read_class_names(tmp_path / "t.pt").items()}
        logits.append(head("vdt", text=text, dropout=0.0).fit(x, y).logits(x))
    np.testing.assert_allclose(logits[0], logits[1], atol=1e-8)


@pytest.mark.paper(33, oracle="c", part="descriptions")
def test_one_attribute_is_one_sentence_with_all_attention() -> None:
    made = describe_classes(BIRDS, Scripted(), attributes=["beak"])
    vectors = torch.as_tensor(np.stack([encoded(texts) for texts in made.values()]))
    module = SentenceAttention(10)
    attention = module.attention(module.start(0), vectors, torch.ones(vectors.shape[:2], dtype=torch.bool))
    assert attention.shape == (3, 1, 1) and (attention == 1).all()
