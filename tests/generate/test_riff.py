"""037: rewards, losses, a paraphraser that learns, and classifiers that learn from rewrites."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_lm
import torch
from torch import Tensor

from handful.adapt import head
from handful.errors import BadInput
from handful.generate.paraphrase import DRAWN, Paraphraser, likelihood
from handful.generate.rephrased import ParaphraseAugmented, RephrasedClassifier, encoded, vote
from handful.generate.riff import RIFF, Rephrasing, Rewarded, standardised
from handful.tune import LoRA, Placed, Where
from handful.tune.front import PromptTuning
from handful.tune.own import Own

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "riff.json").read_text(encoding="utf-8"))
PARA, KEPT, TOLD = (torch.tensor(GOLDEN[key], dtype=torch.float64) for key in ("paraphraser", "reference", "told"))
TEXTS = ["a great film.", "the story is great", "a terrible plot", "the actors are dull"]
LABELS = ["pos", "pos", "neg", "neg"]
TEMPLATE, WORDS = "*cls**sent_0*_._it_was*mask*_.*sep*", {"neg": "bad", "pos": "good"}
POLICIES = {"on_policy": "on", "off_policy": "off", "kl_on": "kl"}


def alike(texts: Sequence[str]) -> list[list[str]]:
    return [[text] * 3 for text in texts]


def shorter(texts: Sequence[str]) -> list[list[str]]:
    return [[text.split()[-1], f"very {text.split()[-1]}"] for text in texts]


@pytest.mark.paper(37, oracle="c")
def test_rewards_and_losses_are_those_of_the_authors_code() -> None:
    torch.testing.assert_close(standardised(TOLD[:, 1:]), torch.tensor(GOLDEN["z"], dtype=torch.float64))
    for case in GOLDEN["cases"]:
        loss, reward = case["loss"].split("_")
        objective = Rephrasing(loss, reward == "zscore", 0.1, POLICIES[case["method"]])  # type: ignore[arg-type]
        log_p = PARA.clone().requires_grad_()
        value = objective.of(log_p, TOLD[:, 1:], KEPT)
        assert float(value.detach()) == pytest.approx(case["value"], abs=1e-9), case
        (slope,) = torch.autograd.grad(value, log_p)
        torch.testing.assert_close(slope, torch.tensor(case["slope"], dtype=torch.float64), atol=1e-9, rtol=1e-7)
    assert float(-vote(TOLD[..., None]).mean()) == pytest.approx(GOLDEN["augmented"], abs=1e-9)


@pytest.mark.paper(37, oracle="b")
def test_the_slope_of_the_marginal_likelihood_is_a_softmax() -> None:
    log_p = PARA.clone().requires_grad_()
    value = Rephrasing(policy="on").of(log_p, TOLD[:, 1:], KEPT)
    (slope,) = torch.autograd.grad(value, log_p)
    z = (TOLD[:, 1:] - TOLD[:, 1:].mean(1, keepdim=True)) / TOLD[:, 1:].std(1, keepdim=True)
    torch.testing.assert_close(slope, -(PARA + z).softmax(1) / 3, atol=1e-6, rtol=0)


@pytest.mark.paper(37, oracle="e")
def test_the_policy_gradient_is_reinforce() -> None:
    """On P itself the estimate is right in the mean: the slope of the expected reward, over all rewrites."""
    theta = torch.tensor([0.3, -0.2, 0.5, 0.0], dtype=torch.float64, requires_grad=True)
    reward = torch.tensor([1.0, 0.0, -2.0, 0.5], dtype=torch.float64)
    (wanted,) = torch.autograd.grad(-(theta.softmax(0) * reward).sum(), theta)
    chosen = torch.multinomial(
        theta.detach().softmax(0), 400_000, replacement=True, generator=torch.Generator().manual_seed(0)
    )
    log_p = theta.log_softmax(0)[chosen][None]
    value = Rephrasing("pg", zscore=False, policy="on").of(log_p, reward[chosen][None], log_p)
    (slope,) = torch.autograd.grad(value, theta, retain_graph=True)
    torch.testing.assert_close(slope, wanted, atol=0.01, rtol=0)
    same = Rephrasing("pg", zscore=False, policy="off").of(log_p, reward[chosen][None], log_p.detach())
    torch.testing.assert_close(torch.autograd.grad(same, theta)[0], slope)


@pytest.mark.paper(37, oracle="d")
@pytest.mark.parametrize(("beta", "low", "high"), [(0.0, 0.9, 1.0), (10.0, 0.1, 0.35)])
def test_what_is_rewarded_is_said_as_far_as_the_reference_allows(beta: float, low: float, high: float) -> None:
    """A paraphraser that knows five rewrites, of which the classifier likes the third."""
    theta, draw = torch.zeros(5, requires_grad=True), torch.Generator().manual_seed(0)
    likes, objective = torch.tensor([-2.0, -2.0, -0.1, -2.0, -2.0]), Rephrasing(kl=beta, policy="kl")
    update = torch.optim.Adam([theta], lr=0.02)
    for _ in range(400):
        chosen = torch.multinomial(theta.detach().softmax(0).expand(16, -1), 8, replacement=True, generator=draw)
        log_p = theta.log_softmax(0)[chosen]
        loss = objective.of(log_p, likes[chosen], torch.full_like(log_p, -np.log(5)))
        update.zero_grad()
        torch.autograd.backward(loss)
        update.step()
    assert low <= float(theta.detach().softmax(0)[2]) <= high


@pytest.mark.paper(37, oracle="a")
@pytest.mark.parametrize("kind", ["masked", "causal"])
def test_rewrites_that_are_the_text_change_nothing(kind: str) -> None:
    template = TEMPLATE if kind == "masked" else "*sent_0*_. it was"
    settings: dict[str, Any] = {"epochs": 5, "lr": 1e-3, "batch": 2}
    own, plain = (
        RephrasedClassifier(tiny_lm.tiny(kind), template, WORDS, rewrites, **settings) for rewrites in (alike, None)
    )
    for by in ("both", "original", "rewrites"):
        torch.testing.assert_close(own.scores(TEXTS, by), plain.scores(TEXTS), atol=1e-6, rtol=0)  # type: ignore[arg-type]
    own.fit(TEXTS, LABELS), plain.fit(TEXTS, LABELS)
    assert own.tuned is not None and plain.tuned is not None
    np.testing.assert_allclose(own.tuned.losses, plain.tuned.losses, atol=1e-5)
    torch.testing.assert_close(own.scores(TEXTS), plain.scores(TEXTS), atol=1e-4, rtol=1e-4)
    rewards = own.believes([one for text in TEXTS for one in alike([text])[0]]).view(4, 3, 2)[..., 0]
    assert torch.equal(standardised(rewards), torch.zeros(4, 3))


def test_the_state_is_kept_that_tells_most_held_out_texts() -> None:
    dev, wrong = TEXTS[:1], ["neg"]
    settings: dict[str, Any] = {"lr": 3e-3, "epochs": 40, "batch": 4, "check": 2}
    last, best = (RephrasedClassifier(tiny_lm.tiny("masked"), TEMPLATE, WORDS, shorter, **settings) for _ in range(2))
    assert last.fit(TEXTS, LABELS).predict(dev, "original") == ["pos"]
    assert best.fit(TEXTS, LABELS, dev, wrong).predict(dev, "original") == wrong  # some state before it was so


def test_the_score_is_of_the_whole_vocabulary() -> None:
    classifier = RephrasedClassifier(tiny_lm.tiny("masked"), TEMPLATE, WORDS, shorter, alpha=0.3)
    model, texts = classifier.model, ["a great film."]
    prompts = [f"{one} . it was [MASK] ." for one in ("a great film", "film", "very film")]
    log_p = model.mask_logits(prompts).log_softmax(-1)[:, [model.tokenizer.vocab["bad"], model.tokenizer.vocab["good"]]]
    torch.testing.assert_close(classifier.believes(texts)[0], log_p[0])
    torch.testing.assert_close(classifier.scores(texts)[0], 0.3 * log_p[0] + 0.7 * log_p[1:].mean(0))
    torch.testing.assert_close(classifier.scores(texts, "rewrites")[0], log_p[1:].mean(0))


def test_it_learns_from_texts_and_rewrites() -> None:
    classifier = RephrasedClassifier(tiny_lm.tiny("masked"), TEMPLATE, WORDS, shorter, lr=3e-3, epochs=40, batch=4)
    classifier.fit(TEXTS, LABELS)
    assert classifier.tuned is not None and classifier.tuned.losses[-1] < classifier.tuned.losses[0] / 2
    for by in ("both", "original", "rewrites"):
        assert list(classifier.predict(TEXTS, by)) == LABELS  # type: ignore[arg-type]


EMBEDDINGS = Where(names=r"embeddings\.(word_embeddings|LayerNorm)$", tied=True)
HEAD = Where(names=r"lm_head\.(dense|layer_norm)$")
MODES: dict[str, tuple[tuple[Placed, ...], float]] = {
    "lora": ((Placed(LoRA(8, 32, dropout=0.1), Where(("q", "v"))),), 3e-2),
    "embeddings": (
        (Placed(Own(), EMBEDDINGS), Placed(Own(), Where(names=r"embeddings\.LayerNorm$", parameter="bias"))),
        1e-2,
    ),
    "head": ((Placed(Own(), HEAD), Placed(Own(), replace(HEAD, parameter="bias"))), 1e-2),
    "soft prompt": (PromptTuning(20).recipe().changes, 0.1),
}


@pytest.mark.parametrize("mode", MODES)
def test_it_learns_by_other_changes(mode: str) -> None:
    """The paper's modes of tuning that are changes of the model."""
    changes, lr = MODES[mode]
    classifier = RephrasedClassifier(
        tiny_lm.tiny("roberta"), TEMPLATE, WORDS, shorter, lr=lr, epochs=30, batch=4, changes=changes
    )
    classifier.fit(TEXTS, LABELS)
    assert classifier.tuned is not None
    assert classifier.tuned.losses[-1] < 0.7 * classifier.tuned.losses[0]


def likes_great(texts: Sequence[str]) -> Tensor:
    p = torch.tensor([0.9 if "great" in text else 0.2 for text in texts])
    return torch.stack([1 - p, p], 1).log()


def test_a_paraphraser_learns_to_say_what_the_classifier_likes() -> None:
    model = tiny_lm.tiny("seq2seq")
    writer = Paraphraser(model, drawn=replace(DRAWN, most=4, no_repeat=0))
    texts = TEXTS[:2]

    def share() -> float:
        some = writer.rewrites(texts, 100, "drawn", torch.Generator().manual_seed(1))
        return sum("great" in one for row in some for one in row) / 200

    before, weights = share(), [p.clone() for p in model.tower.parameters()]
    riff = RIFF(writer, likes_great, policy="kl", kl=0.02, way="drawn", lr=3e-3, epochs=60, batch=2)
    tuned = riff.fit(texts, ["pos", "pos"], ["neg", "pos"])
    with tuned.delta.attached(model.tower):
        after = share()
    assert after > before + 0.25
    assert all(torch.equal(p, was) for p, was in zip(model.tower.parameters(), weights, strict=True))


def test_the_state_is_kept_whose_rewrites_tell_most_held_out_examples() -> None:
    model = tiny_lm.tiny("seq2seq")
    writer, asked = Paraphraser(model, drawn=replace(DRAWN, most=4)), []

    def sample(texts: Sequence[str], m: int, way: str, seed: int) -> list[list[str]]:
        asked.append((way, model.tower.body.shared.weight.detach().clone()))
        return [["so great", "it is great"] if len(asked) == 2 else ["dull", "bad"] for _ in texts]

    writer.sample = sample  # type: ignore[method-assign, assignment]
    riff = RIFF(writer, likes_great, m=2, way="drawn", lr=1e-3, epochs=3, batch=2, check=1)
    tuned = riff.fit(TEXTS[:2], ["pos", "pos"], ["neg", "pos"], ["a film"], ["pos"])
    assert [way for way, _ in asked] == ["diverse"] * 3
    with tuned.delta.attached(model.tower):
        assert torch.equal(model.tower.body.shared.weight, asked[1][1])
    assert not torch.equal(asked[1][1], asked[2][1])


@pytest.mark.parametrize("kind", ["seq2seq", "causal"])
def test_how_likely_a_rewrite_is(kind: str) -> None:
    """Against the loss that transformers gives for it."""
    model = tiny_lm.tiny(kind)
    writer = Paraphraser(model, "{}" if kind == "seq2seq" else "review: {} :")
    asked = [
        writer.question(TEXTS[0], ["the film is great", "great"]),
        writer.question(TEXTS[2], ["dull plot", "bad ."]),
    ]
    with torch.no_grad():
        found = likelihood(model.tower, asked)
        for b, question in enumerate(asked):
            for j, answer in enumerate(question.answers):
                ids, labels = torch.tensor([question.prompt.ids]), torch.tensor([answer])
                assert answer[-1] == model.tokenizer.eos_token_id
                if kind == "causal":
                    whole = torch.cat([ids, labels], 1)
                    labels = torch.cat([torch.full_like(ids, -100), labels], 1)
                    ids = whole
                loss = model.tower.body(input_ids=ids, labels=labels).loss
                assert float(found[b, j]) == pytest.approx(-float(loss) * len(answer), abs=1e-4)


def test_a_step_draws_by_its_policy() -> None:
    model = tiny_lm.tiny("seq2seq")
    writer = Paraphraser(model, drawn=replace(DRAWN, most=4), diverse=replace(Paraphraser(model).diverse, most=4))
    drawn: dict[str, list[Rewarded]] = {}
    for policy in ("kl", "off"):
        riff = RIFF(writer, likes_great, policy=policy, epochs=1, lr=0.0, m=4, batch=2)  # type: ignore[arg-type]
        riff.fit(TEXTS[:2], ["pos", "neg"], ["neg", "pos"])
        with torch.no_grad():
            for parameter in model.tower.parameters():
                parameter.mul_(-0.5)  # as if it had learnt: the reference is as it was
        drawn[policy] = riff._rewarded(TEXTS[:2], torch.arange(2), torch.Generator().manual_seed(0))
        now = likelihood(model.tower, drawn[policy])
        with torch.no_grad():
            for parameter in model.tower.parameters():
                parameter.mul_(-2)
        for row, own in zip(drawn[policy], now, strict=True):
            assert not torch.allclose(own, torch.tensor(row.kept))
        torch.testing.assert_close(
            likelihood(model.tower, drawn[policy]), torch.tensor([row.kept for row in drawn[policy]])
        )
        for number, row in enumerate(drawn[policy]):  # of the class of each text: the second, then the first
            said = [model.tokenizer.decode(one, skip_special_tokens=True) for one in row.answers]
            assert row.told == pytest.approx(likes_great(said)[:, 1 - number].tolist())
    assert drawn["off"] != drawn["kl"]
    again = writer.rewrites(TEXTS[:2], 4, "mixed", torch.Generator().manual_seed(0))
    assert [row.answers for row in drawn["off"]] == [
        writer.question(text, some).answers for text, some in zip(TEXTS[:2], again, strict=True)
    ]


def test_rewrites() -> None:
    model = tiny_lm.tiny("seq2seq")
    writer = Paraphraser(model, drawn=replace(DRAWN, most=5), diverse=replace(Paraphraser(model).diverse, most=5))
    apart = writer.rewrites(TEXTS, 4, "diverse", torch.Generator().manual_seed(0))
    drawn = writer.rewrites(TEXTS, 2, "drawn", torch.Generator().manual_seed(0))
    mixed = writer.rewrites(TEXTS, 4, "mixed", torch.Generator().manual_seed(0))
    assert [some[:2] for some in mixed] == drawn
    assert [some[2:] for some in mixed] == [some[:2] for some in apart]
    with pytest.warns(UserWarning, match="4 of 4 texts have fewer than 40 different rewrites"):
        many = Paraphraser(model, drawn=replace(DRAWN, most=1)).sample(TEXTS, 40, "drawn")
    assert all(len(some) == 40 and all(some) for some in many)
    silent = Paraphraser(model)
    silent._say = lambda texts, m, how, generator: [["", "so", ""], ["", "", ""]]  # type: ignore[method-assign]
    assert silent.rewrites(TEXTS[:2], 3, "drawn", torch.Generator()) == [["so"] * 3, [TEXTS[0 + 1]] * 3]


def test_any_classifier_learns_by_weight() -> None:
    """Weights 0.4 of a text and 0.3 of each rewrite are those of a logistic regression on all of them."""

    class Lengths:
        def encode(self, texts: Sequence[str]) -> np.ndarray:
            return np.array([[len(text), text.count("great"), text.count("a")] for text in texts], dtype=np.float64)

    augmented = ParaphraseAugmented(encoded(Lengths(), head("logistic")), shorter, alpha=0.4).fit(TEXTS, LABELS)
    every = [one for text, some in zip(TEXTS, shorter(TEXTS), strict=True) for one in (text, *some)]
    labels = [label for label in LABELS for _ in range(3)]
    own = head("logistic").fit(Lengths().encode(every), labels, sample_weight=np.tile([0.4, 0.3, 0.3], 4))
    log_p = (
        torch.from_numpy(np.asarray(own.predict_proba(Lengths().encode(every)), dtype=np.float64)).log().view(4, 3, 2)
    )
    torch.testing.assert_close(augmented.scores(TEXTS), 0.4 * log_p[:, 0] + 0.3 * (log_p[:, 1] + log_p[:, 2]))
    torch.testing.assert_close(augmented.scores(TEXTS, "original"), log_p[:, 0])


def test_bad_input() -> None:
    model = tiny_lm.tiny("masked")
    with pytest.raises(BadInput, match="fills masks and rewrites nothing"):
        Paraphraser(model)
    with pytest.raises(BadInput, match="one place"):
        Paraphraser(tiny_lm.tiny("seq2seq"), "rephrase:")
    writer = Paraphraser(tiny_lm.tiny("seq2seq"))
    with pytest.raises(BadInput, match="even number"):
        writer.sample(TEXTS, 3, "mixed")
    with pytest.raises(BadInput, match="is empty"):
        writer.sample([" "])
    with pytest.raises(BadInput, match="cannot be standardised"):
        RIFF(writer, likes_great, m=1, way="drawn").fit(TEXTS, LABELS, ["neg", "pos"])
    with pytest.raises(BadInput, match="cannot be standardised"):
        standardised(torch.zeros(2, 1))
    with pytest.raises(BadInput, match="policy one of kl, on, off"):
        Rephrasing(policy="of")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=r"believes gave an array of shape \(4, 1\); for these texts it is \(4, 2\)"):
        RIFF(writer, lambda t: torch.zeros(len(t), 1), m=2, epochs=1).fit(TEXTS[:2], LABELS[:2], ["neg", "pos"])
    with pytest.raises(BadInput, match="by is one of both, original, rewrites, not 'all'"):
        vote(torch.zeros(1, 2, 2), by="all")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="differ in their first token"):
        RephrasedClassifier(model, TEMPLATE, {"a": "good film", "b": "good"}, None)
    with pytest.raises(BadInput, match="label 'fine' has no word"):
        RephrasedClassifier(model, TEMPLATE, WORDS, None).fit(TEXTS, [*LABELS[:3], "fine"])
    for rewrites, said in (
        (lambda t: [["", "a"]] * len(t), "is empty"),
        (lambda t: [["a"]], "4 texts, but rewrites of 1"),
    ):
        with pytest.raises(BadInput, match=said):
            RephrasedClassifier(model, TEMPLATE, WORDS, rewrites).scores(TEXTS)
    uneven = lambda texts: [["a"] * (1 + (i > 0)) for i, _ in enumerate(texts)]  # noqa: E731
    with pytest.raises(BadInput, match="has 2 rewrites, the first one 1"):
        RephrasedClassifier(model, TEMPLATE, WORDS, uneven).scores(TEXTS)
    with pytest.raises(BadInput, match="has not been fitted"):
        ParaphraseAugmented(lambda *_: lambda _: np.zeros((1, 2)), alike).scores(TEXTS)
