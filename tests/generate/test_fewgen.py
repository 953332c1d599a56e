"""018: prefixes that say what their prompt says, weights by a look ahead, and what is written."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import tiny_lm
import torch
from torch import Tensor

from handful.encode.decode import Said
from handful.encode.lm import LanguageModel
from handful.encode.prompt import continuation, padded
from handful.errors import BadInput, HandfulError
from handful.generate.fewgen import FewGen
from handful.generate.prefixes import ClassPrefixes
from handful.generate.token_weights import NET, Discrimination, Generation, LookAhead, WeighingPrefixes, discrimination
from handful.tune.recipe import Closures, Data, Seen

PROMPTS = {"bad": "a terrible review:", "good": "a great and moving film review:"}  # of two lengths
TEXTS = ["the plot was dull and bad", "terrible actors", "the story is great", "it was a fine, moving story"]
LABELS = ["bad", "bad", "good", "good"]


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    made: LanguageModel = tiny_lm.tiny("causal")
    return made


PAIRS = [["a dull plot", "it was bad"], ["the film", "it was bad"], ["a story", "not bad"], ["actors", "not bad"]]
CORPUS = [f"{a} {b}" for a in ("the", "a", "very", "short") for b in ("plot", "film", "story")]


@pytest.fixture(scope="module")
def writer() -> LanguageModel:
    """A model that has read such texts, of both classes alike."""
    made: LanguageModel = tiny_lm.tiny("causal", hidden_size=32, initializer_range=0.1)
    end = made.tokenizer.eos_token_id
    rows = [continuation(made.tokenizer, one) for one in TEXTS]
    for first in CORPUS:
        for second in ("it was bad", "not bad"):
            rows.append(continuation(made.tokenizer, f"{first} it says: {second}"))
    body = made.tower.body.train()
    ids = padded([(*one, end) for one in rows], -100)
    update = torch.optim.AdamW(body.parameters(), lr=5e-3)
    for _ in range(150):
        update.zero_grad()
        torch.autograd.backward(body(input_ids=ids.clamp_min(0), labels=ids).loss)
        update.step()
    made.tower.eval().requires_grad_(False)
    return made


def gpt2() -> LanguageModel:
    """Of double precision throughout, which a Llama's norms are not."""
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = tiny_lm.byte_tokenizer()
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=16, n_layer=2, n_head=2, n_positions=48, initializer_range=0.3,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LanguageModel(GPT2LMHeadModel(config).double().eval(), tokenizer, "causal", "gpt2")


def begun(model: LanguageModel, prompts: Any = PROMPTS, **settings: Any) -> tuple[FewGen, WeighingPrefixes, Data]:
    how = FewGen(model, prompts, dropout=0.0, **settings)
    prefixes = WeighingPrefixes(model, how._before, how._between, how.control, 0.0)
    data = Data([how.row([one]) for one in TEXTS], torch.tensor([0, 0, 1, 1]), tuple(prompts))
    prefixes.begin(model.tower, data, torch.Generator().manual_seed(0))
    return how, prefixes, data


def closures(model: LanguageModel, prefixes: WeighingPrefixes, data: Data) -> Closures:
    rows = torch.arange(len(data))

    def seen() -> Seen:
        draw = torch.Generator()
        return Seen(model.tower, prefixes, rows, list(data.inputs), data.targets, torch.ones(len(rows)), 0, 10, draw)

    made = {"generation": lambda: Generation()(seen()), "discrimination": lambda: Discrimination()(seen())}
    return Closures(made, 0, 10)


@torch.no_grad()
def behind(model: LanguageModel, before: tuple[int, ...], ids: tuple[int, ...]) -> Tensor:
    """Logits at ``ids`` behind ``before``, by the model alone."""
    found: Tensor = model.tower.body(input_ids=torch.tensor([[*before, *ids]])).logits[0, len(before) - 1 : -1]
    return found


@pytest.mark.paper(18, oracle="f")
@pytest.mark.parametrize("control", ["", "news"])
def test_at_first_a_prefix_says_what_its_prompt_says(model: LanguageModel, control: str) -> None:
    _, prefixes, data = begun(model, control=control)
    with torch.no_grad():
        tokens = prefixes.look(model.tower, data.inputs)
    for b, row in enumerate(data.inputs):
        for c, prompt in enumerate(PROMPTS.values()):
            logits = behind(model, model.prompt(f"{control} {prompt}".strip()).ids, row.ids)[list(row.learnt)]
            gold = torch.tensor(row.ids)[list(row.learnt)]
            size = len(gold)
            torch.testing.assert_close(
                tokens.gold[b, c, :size], logits.gather(1, gold[:, None])[:, 0], atol=1e-5, rtol=1e-5
            )
            expected = logits.log_softmax(-1).gather(1, gold[:, None])[:, 0]
            torch.testing.assert_close(tokens.likelihood[b, c, :size], expected, atol=1e-5, rtol=1e-5)
            assert tokens.known[b].sum() == size
    assert data.inputs[0].ids[-1] == model.tokenizer.eos_token_id  # the end is learnt as well
    assert data.inputs[0].learnt == tuple(range(1, len(data.inputs[0].ids)))


@pytest.mark.paper(18, oracle="f")
def test_at_first_an_infix_says_what_its_words_say(model: LanguageModel) -> None:
    pair = FewGen(model, {c: (one, "not: the") for c, one in PROMPTS.items()}, dropout=0.0)
    row = pair.row(["a dull plot", "it was bad"])
    prefixes = ClassPrefixes(model, pair._before, pair._between, dropout=0.0)
    with torch.no_grad():
        before = prefixes.look(model.tower, [row])
        words = [continuation(model.tokenizer, one) for one in ("a dull plot", "not: the", "it was bad")]
        assert row.ids == (*words[0], *words[1], *words[2], model.tokenizer.eos_token_id)
        assert len(row.learnt) == len(words[2]) + 1
        for c, prompt in enumerate(PROMPTS.values()):
            logits = behind(model, model.prompt(prompt).ids, row.ids)[list(row.learnt)]
            expected = logits.log_softmax(-1).gather(1, torch.tensor(row.ids)[list(row.learnt)][:, None])[:, 0]
            torch.testing.assert_close(before.likelihood[0, c], expected, atol=1e-5, rtol=1e-5)
        prefixes.infix[1] += 1.0  # of one class alone
        after = prefixes.look(model.tower, [row])
    assert torch.equal(after.gold[:, 0], before.gold[:, 0]) and not torch.allclose(after.gold[:, 1], before.gold[:, 1])


def test_what_is_learnt_about_ends_is_read_and_said(model: LanguageModel) -> None:
    _, prefixes, data = begun(model)
    body = copy.deepcopy(model.tower.body)
    shift = torch.randn(prefixes.ends.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        prefixes.ends.copy_(shift)
        body.get_input_embeddings().weight[list(prefixes.special)] += shift
        if body.get_output_embeddings().weight is not body.get_input_embeddings().weight:
            body.get_output_embeddings().weight[list(prefixes.special)] += shift
        found = prefixes.look(model.tower, data.inputs[:1]).likelihood[0, 0]
        row, prompt = data.inputs[0], model.prompt(PROMPTS["bad"]).ids
        # Of the prompt the frozen model's keys are kept, so the changed one is run behind them.
        kept = model.tower.body(input_ids=torch.tensor([prompt]), use_cache=True)
        cache = kept["cache"] if "cache" in kept else kept["past_key_values"]
        logits = body(input_ids=torch.tensor([row.ids]), past_key_values=cache).logits[0, :-1].log_softmax(-1)
    torch.testing.assert_close(found, logits.gather(1, torch.tensor(row.ids[1:])[:, None])[:, 0], atol=1e-5, rtol=1e-5)


@pytest.mark.paper(18, oracle="a")
def test_a_net_that_says_one_thing_gives_the_mean_over_tokens(model: LanguageModel) -> None:
    _, prefixes, data = begun(model)
    prefixes.outer.zero_()
    tokens = prefixes.look(model.tower, data.inputs)
    own = -tokens.likelihood[torch.arange(4), data.labels][tokens.known]
    weights = prefixes.weigh(discrimination(tokens, data.labels))
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / len(own)))
    loss = closures(model, prefixes, data)["generation"]()
    torch.testing.assert_close(loss, own.mean(), atol=1e-6, rtol=0)
    assert len(own) == sum(len(row.learnt) for row in data.inputs)


@pytest.mark.paper(18, oracle="b")
def test_prefixes_that_are_alike_cannot_be_told_apart_and_are_pushed_apart(model: LanguageModel) -> None:
    _, prefixes, data = begun(model, dict.fromkeys(("bad", "good", "fine"), "a film review:"))
    labels = torch.tensor([0, 0, 1, 1])
    d = discrimination(prefixes.look(model.tower, data.inputs), labels)
    torch.testing.assert_close(d, torch.full_like(d, math.log(3)))
    (slope,) = torch.autograd.grad(d.mean(), [prefixes.keys])
    assert slope.abs().sum() > 0
    # The prefix of the class that no text is of is pushed away from what the others are pulled to.
    torch.testing.assert_close(slope.sum(0), torch.zeros_like(slope[0]), atol=1e-6, rtol=0)
    with torch.no_grad():
        prefixes.keys -= 0.1 * slope / slope.abs().max()
    assert float(discrimination(prefixes.look(model.tower, data.inputs), labels).mean().detach()) < math.log(3)


@pytest.mark.paper(18, oracle="c")
def test_the_look_ahead_is_the_slope_by_finite_differences() -> None:
    model = gpt2()
    _, prefixes, data = begun(model)
    close, meta_lr = closures(model, prefixes, data), 0.3
    found = dict(zip(NET, LookAhead(prefixes, meta_lr).gradient(close), strict=True))

    def ahead(net: dict[str, Tensor]) -> float:
        """By hand: one step of gradient descent of a copy, then its discrimination."""
        copied = copy.deepcopy(prefixes)
        for name, value in net.items():
            getattr(copied, name).copy_(value)
        theirs = closures(model, copied, data)
        slopes = torch.autograd.grad(theirs["generation"](), list(copied.parameters()), materialize_grads=True)
        with torch.no_grad():
            for p, g in zip(copied.parameters(), slopes, strict=True):
                p -= meta_lr * g
            return float(theirs["discrimination"]())

    draw, h = torch.Generator().manual_seed(2), 1e-4
    own = {name: getattr(prefixes, name) for name in NET}
    for name in NET:
        for _ in range(2):
            along = torch.randn(own[name].shape, generator=draw, dtype=torch.float64)
            up, down = ({**own, name: own[name] + sign * h * along} for sign in (1, -1))
            slope = float((found[name] * along).sum())
            assert slope == pytest.approx((ahead(up) - ahead(down)) / (2 * h), rel=1e-3, abs=1e-9)
    assert max(float(one.abs().max()) for one in found.values()) > 1e-6


def test_the_net_moves_before_the_prefixes_do(model: LanguageModel) -> None:
    _, prefixes, data = begun(model)
    before = {name: getattr(prefixes, name).clone() for name in NET}
    keys, moved = prefixes.keys.detach().clone(), list[Tensor]()
    LookAhead(prefixes, lr=0.05)(closures(model, prefixes, data), list(prefixes.parameters()), moved.extend)
    assert any(not torch.equal(getattr(prefixes, name), one) for name, one in before.items())
    assert torch.equal(prefixes.keys, keys)
    expected = torch.autograd.grad(
        closures(model, prefixes, data)["generation"](), list(prefixes.parameters()), materialize_grads=True
    )
    for mine, theirs in zip(moved, expected, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.fixture(scope="module")
def fitted(writer: LanguageModel) -> FewGen:
    return FewGen(writer, PROMPTS, epochs=30, lr=0.03).fit(TEXTS, LABELS)


def test_it_learns_to_write_like_the_examples(fitted: FewGen) -> None:
    tuned = fitted.tuned
    assert tuned is not None and sum(tuned.losses[-4:]) < 0.5 * sum(tuned.losses[:4])
    rows = [fitted.row([one]) for one in TEXTS]
    assert tuned.logits(rows).argmax(1).tolist() == [0, 0, 1, 1]
    made = fitted.generate(3, max_tries=40, top_k=5, most=20)
    assert made.labels == ["bad", "good"] * 3
    for label in PROMPTS:
        own = [text[0] for text, name in zip(made.texts, made.labels, strict=True) if name == label]
        assert len(set(own)) == 3 and {one.split()[0] for one in own} <= fitted_starts(label)
    assert fitted.generate(3, max_tries=40, top_k=5, most=20) == made
    assert fitted.generate(3, max_tries=40, top_k=5, most=20, seed=1) != made


def fitted_starts(label: str) -> set[str]:
    return {text.split()[0] for text, name in zip(TEXTS, LABELS, strict=True) if name == label}


def test_second_texts_are_written_behind_first_ones(writer: LanguageModel) -> None:
    prompts = {c: (one, "it says:") for c, one in PROMPTS.items()}
    generator = FewGen(writer, prompts, epochs=30, lr=0.03).fit(PAIRS, LABELS)
    made = generator.generate(4, corpus=CORPUS, max_tries=3, most=12, repetition=1.0)
    assert {text[0] for text in made.texts} <= set(CORPUS)
    by_class = {c: [t[1] for t, name in zip(made.texts, made.labels, strict=True) if name == c] for c in PROMPTS}
    assert sum("bad" in one and "not" not in one for one in by_class["bad"]) >= 3
    assert sum("not" in one for one in by_class["good"]) >= 3
    with pytest.raises(BadInput, match="give a corpus"):
        generator.generate(2)
    with pytest.raises(BadInput, match="12 different texts for 13 pairs"):
        generator.generate(13, corpus=CORPUS)
    with pytest.raises(BadInput, match="has none for"):
        generator.generate(1, corpus=CORPUS, repetition={"other": 1.5})


def test_what_cannot_be_used_is_dropped(fitted: FewGen) -> None:
    def said(text: str, ended: bool = True) -> Said:
        return Said(tuple(fitted.model.tokenizer.encode(text, add_special_tokens=False)), ended)

    assert fitted._usable(said(" story was fine"), "the", ()) == ("the story was fine", "")
    assert fitted._usable(said("re was a story"), "the", ()) == ("there was a story", "")  # a word that goes on
    for text, ended, banned, reason in (
        (" story", False, (), "without an end"), ("\nstory", True, (), "begin a new line"),
        (" a ? story", True, ("?",), "with a banned string"), (" ", True, (), "empty"),
    ):  # fmt: skip
        assert fitted._usable(said(text, ended), "the", banned)[1] == reason
    with pytest.raises(
        HandfulError, match=r"class 'bad': \d+ of 50 texts can be used after max_tries \(.*written before"
    ):
        fitted.generate(50, temperature=0.01, starts=["the"], max_tries=1)


def test_bad_input(model: LanguageModel) -> None:
    with pytest.raises(BadInput, match="numbers of at least 1"):
        FewGen(model, PROMPTS, epochs=0.4).fit(TEXTS, LABELS).generate(1, max_tries=float("nan"))
    with pytest.raises(BadInput, match="two classes at least"):
        FewGen(model, {"good": "a great review:"})
    with pytest.raises(BadInput, match="the same for all classes"):
        FewGen(model, {"a": ("one", "so:"), "b": ("two", "but:")})
    with pytest.raises(BadInput, match="label 'fine' has no prompt"):
        FewGen(model, PROMPTS).fit(TEXTS, [*LABELS[:3], "fine"])
    with pytest.raises(BadInput, match="item 0 has 2 texts; the prompts are for 1"):
        FewGen(model, PROMPTS).fit([["a", "b"]], ["bad"])
    with pytest.raises(BadInput, match="call fit"):
        FewGen(model, PROMPTS).generate(1)
    with pytest.raises(BadInput, match="2 tokens at least"):
        FewGen(model, PROMPTS, length=1)
    with pytest.raises(BadInput, match="written by a causal one"):
        FewGen(tiny_lm.tiny("seq2seq"), PROMPTS).fit(TEXTS, LABELS)
    with pytest.warns(UserWarning, match="class 'good' has 1 examples"):
        FewGen(model, PROMPTS, epochs=0.4).fit(TEXTS[:3], LABELS[:3])
