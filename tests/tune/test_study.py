"""What T-Few (027) is compared with: Compacter, intrinsic dimension, prompts, prefixes; how many numbers learn."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny_lm
import torch
from torch import nn

from handful.encode.language_tower import LanguageTower
from handful.encode.lm import LanguageModel
from handful.encode.template import Template
from handful.errors import BadInput
from handful.tune import Compacter, Data, Delta, Intrinsic, Placed, Where, load_delta, save_delta, tune
from handful.tune.adapters import Adapter
from handful.tune.compacter import LowRank, kronecker
from handful.tune.front import Prefix
from handful.tune.intrinsic import draws, fastfood, hadamard, intrinsic
from handful.tune.prompting import Words
from handful.tune.recipe import Recipe
from handful.tune.study import COMPARED, CommonWords, fish
from handful.tune.t_few import TFewClassifier

GOLDEN, PREFIX = (
    json.loads((Path(__file__).parents[1] / "golden" / f"{name}.json").read_text(encoding="utf-8"))
    for name in ("t_few_study", "t_few_prefix")
)
TEXTS = ["a great film", "great actors", "it was great", "a terrible film", "terrible actors", "it was terrible"]
LABELS, CHOICES = ["good"] * 3 + ["bad"] * 3, ["bad", "good"]
TEMPLATES = {
    "masked": "*cls**sent_0*_it_was*mask*.*sep+*",
    "causal": "*sent_0*_it_was",
    "seq2seq": "*sent_0*_it_was*sep*",
}


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def wide(kind: str) -> LanguageModel:
    """Of 128 numbers, which Compacter's and the adapters' reduction by 32 splits in four."""
    size = {"d_model": 128} if kind == "seq2seq" else {"hidden_size": 128}
    return tiny_lm.tiny(kind, **size)


@pytest.mark.paper(27, oracle="c", part="study")
def test_compacter_and_projections_are_those_of_the_authors_code(monkeypatch: pytest.MonkeyPatch) -> None:
    g, t = generator(), dict[str, torch.Tensor]()
    for j, into, out, bias in ((1, 16, 8, "c"), (2, 8, 16, "e")):
        t[f"A{j}"], t[f"s{j}"] = torch.randn(4, 4, 4, generator=g), torch.randn(4, into // 4, 1, generator=g)
        t[f"t{j}"], t[bias] = torch.randn(4, 1, out // 4, generator=g), torch.randn(out, generator=g)
    x = torch.randn(3, 16, generator=g)
    change = Compacter(reduction=2)
    found = change.branch(x, x, nn.Identity(), t)
    torch.testing.assert_close(found, torch.tensor(GOLDEN["compacter"]), atol=1e-5, rtol=1e-5)
    begun = change.begin(torch.zeros(16, 3), generator()).trained
    assert sum(p.numel() for p in begun.values()) == GOLDEN["numbers"]
    h, low = torch.Generator().manual_seed(41), dict[str, torch.Tensor]()
    for name, shape in (("s1", (16, 1)), ("t1", (1, 4)), ("c", (4,)), ("s2", (4, 1)), ("t2", (1, 16)), ("e", (16,))):
        low[name] = torch.randn(shape, generator=h)
    y = torch.randn(3, 16, generator=h)
    found = LowRank().branch(y, y, nn.Identity(), low)  # the authors' leaves out what it is added to
    torch.testing.assert_close(found, y + torch.tensor(GOLDEN["low_rank"]), atol=1e-5, rtol=1e-5)
    signs, order = torch.randint(2, (16,), generator=g) * 2 - 1, torch.randperm(16, generator=g)
    normal = torch.randn(16, generator=g)
    thetas = [torch.randn(k, generator=g) for k in (5, 16, 30)]
    for theta, want in zip(thetas, GOLDEN["fastfood"], strict=True):
        torch.testing.assert_close(fastfood(theta, 11, signs, order, normal), torch.tensor(want))
    w, scale = torch.randn(4, 7, generator=g), torch.randn(1, generator=g)
    monkeypatch.setattr("handful.tune.intrinsic.draws", lambda seed, length: (signs, order, normal))
    moved = Intrinsic(5).weight(w, {"theta": thetas[0], "scale": scale, "seed": torch.tensor([0])})
    torch.testing.assert_close(moved, torch.tensor(GOLDEN["matrix"]))


@pytest.mark.paper(27, oracle="c", part="study")
@pytest.mark.parametrize("how", ["eager", "sdpa"])
def test_prefixes_of_t5_are_those_of_the_authors_code(how: str) -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=23, d_model=16, d_kv=6, d_ff=24, num_layers=2, num_decoder_layers=3, num_heads=2,
        feed_forward_proj="gated-gelu", decoder_start_token_id=0, pad_token_id=0, eos_token_id=1, dropout_rate=0.0,
        relative_attention_num_buckets=8, relative_attention_max_distance=16,
    )  # fmt: skip
    body: Any = T5ForConditionalGeneration._from_config(config, attn_implementation=how).eval()
    g, tower = generator(), LanguageTower(body, "seq2seq")

    def fill(*tensors: torch.Tensor, spread: float = 1.0) -> None:
        for t in tensors:
            t.copy_(spread * torch.randn(t.shape, generator=g))

    places = [Placed(Prefix(n, 1.0, through=16, inner=5), Where(names=rf"front\.{place}$"))
              for place, n in (("reader", 3), ("writer", 2), ("across", 3))]  # fmt: skip
    delta = Delta.begin(tower, places, generator())
    with torch.no_grad():
        fill(*(p for _, p in sorted(body.named_parameters())), spread=0.3)
        there = torch.arange(7) < torch.tensor([7, 4, 5])[:, None]
        ids = torch.randint(3, 23, (3, 7), generator=g) * there
        inputs = {"input_ids": ids, "attention_mask": there.long(),
                  "decoder_input_ids": torch.randint(3, 23, (3, 4), generator=g)}  # fmt: skip
        for holder, layers in zip(delta.each(), (2, 3, 3), strict=True):
            t = holder.tensors
            fill(t["E"], t["W1"], t["b1"])
            for w, b in zip(t["W2"].view(layers, -1, 5), t["b2"].view(layers, -1), strict=True):
                fill(w, b)
        before, want = body(**inputs).logits[..., [1, 9, 17]], torch.tensor(PREFIX["logits"])
        with delta.attached(tower):
            torch.testing.assert_close(body(**inputs).logits[..., [1, 9, 17]], want, atol=5e-6, rtol=1e-5)
    assert (before - want).abs().max() > 0.1
    assert delta.trainable() == PREFIX["numbers"]


def test_a_change_projects_by_its_seed() -> None:
    theta, w, b = torch.randn(6, generator=generator()), torch.randn(4, 7), torch.randn(5)
    seed, scale = torch.tensor([3]), torch.tensor([0.5])
    ray = fastfood(theta, 11, *draws(3, 16))
    out = Intrinsic(6).weight(w, {"theta": theta, "scale": scale, "seed": seed})
    torch.testing.assert_close(out, w + 0.5 * ray[:4, None] * ray[4:])
    dense = Intrinsic(6, outer=False).weight(w, {"theta": theta, "scale": scale, "seed": seed})
    torch.testing.assert_close(dense, w + 0.5 * fastfood(theta, 28, *draws(3, 32)).view(4, 7))
    plain = Intrinsic(6, said=False).weight(b, {"theta": theta, "seed": seed})
    torch.testing.assert_close(plain, b + fastfood(theta, 5, *draws(3, 8)))
    h = torch.stack([hadamard(row) for row in torch.eye(8)])
    torch.testing.assert_close(h @ h.mT, 8 * torch.eye(8))
    a, c = torch.randn(3, 2, 5), torch.randn(3, 4, 6)
    torch.testing.assert_close(kronecker(a, c), sum(torch.kron(x, y) for x, y in zip(a, c, strict=True)))


def expected(name: str, model: LanguageModel) -> int:
    """How many numbers learn, by the formulas."""
    body: Any = model.tower.body
    config, kind = body.config, model.kind
    d = config.d_model if kind == "seq2seq" else config.hidden_size
    layers = 2 * config.num_layers if kind == "seq2seq" else config.num_hidden_layers
    norms = sum(p.numel() for m in body.modules() if "Norm" in type(m).__name__ for p in m.parameters(recurse=False))
    m = d // 32
    adapter, small = 2 * d * m + d + m, 2 * 4**3 + 2 * (d + m) + d + m
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    keys, fronts = 2 * layers * heads * (d // config.num_attention_heads), 1
    if kind == "seq2seq":  # in the reader, in the writer and between them, through a network each
        keys, fronts = 2 * 3 * config.num_layers * config.num_heads * config.d_kv, 3
    total = sum(p.numel() for p in body.parameters())
    found = {
        "full": total, "layernorm": norms, "prompt-10": 10 * d, "prompt-100": 100 * d,
        "adapter": layers * adapter + norms,
        "low-rank-adapter": layers * (2 * (d + d // 4) + d + d // 4) + norms, "compacter": 2 * layers * small + norms,
        "compacter++": layers * small + norms, "said-20k": 20_000, "said-500k": 500_000,
        "prefix": fronts * (10 * d + d * 512 + 512) + 512 * keys + keys,
    }  # fmt: skip
    return found[name]


@pytest.mark.paper(27, oracle="d", part="study")
@pytest.mark.parametrize("kind", ["masked", "causal", "seq2seq"])
def test_as_many_numbers_learn_as_the_formulas_say(kind: str) -> None:
    model = wide(kind)
    names = [
        "full",
        "layernorm",
        "prompt-10",
        "prompt-100",
        "adapter",
        "low-rank-adapter",
        "compacter",
        "compacter++",
        "said-20k",
        "said-500k",
        "prefix",
    ]
    for name in names:
        delta = Delta.begin(model.tower, COMPARED[name].changes(model.tower), generator())
        assert delta.trainable() == expected(name, model), name


def test_on_t0_3b() -> None:
    """24 blocks of width 2048 on either side; norms of 2048 numbers, 2 or 3 a block and one more."""
    begun = Compacter().begin(torch.empty(2048, 0), generator()).trained
    place = sum(p.numel() for p in begun.values())
    assert place == 2 * 64 + 2 * (2048 + 64) + 2048 + 64 == 6464
    norms = (24 * 2 + 1 + 24 * 3 + 1) * 2048
    assert (96 * place + norms, 48 * place + norms) == (870_400, 560_128)
    adapter = Adapter(reduction=32).begin(torch.empty(2048, 0), generator()).trained
    assert 48 * sum(p.numel() for p in adapter.values()) + norms == 12_934_144  # behind feed-forwards alone


def test_adapters_stand_behind_feed_forwards_alone() -> None:
    """As in the authors' code, where a switch that only Compacter's settings turn puts one behind self-attention."""
    model = wide("seq2seq")
    for name in ("adapter", "low-rank-adapter", "compacter++"):
        delta = Delta.begin(model.tower, COMPARED[name].changes(model.tower)[:1], generator())
        assert [holder.site.split(".")[-2] for holder in delta.each()] == ["DenseReluDense"] * 4, name


@pytest.mark.paper(27, oracle="g", part="study")
@pytest.mark.parametrize("name", ["compacter", "prompt-10", "prefix", "said-20k"])
@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_they_learn_by_the_losses_of_t_few_whatever_the_order_of_answers(name: str, kind: str) -> None:
    way = COMPARED[name]
    found = []
    for choices in (CHOICES, CHOICES[::-1]):
        settings = replace(way.settings, steps=6, batch=6)
        made = TFewClassifier(
            wide(kind), [TEMPLATES[kind]], settings, way.changes, start=way.start, most=20
        ).fit(TEXTS, LABELS, choices)  # fmt: skip
        assert made.tuned is not None and made.tuned.losses[-1] < made.tuned.losses[0]
        found.append((made.tuned.losses, made.logits(TEXTS, CHOICES)))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-3)
    torch.testing.assert_close(found[0][1], found[1][1], atol=5e-3, rtol=1e-2)


def test_one_vector_moves_all_and_is_kept_once(tmp_path: Path) -> None:
    model = tiny_lm.tiny("masked")
    placed = intrinsic(model.tower, 90)
    delta = Delta.begin(model.tower, placed, generator())
    thetas = {id(h.get_parameter("theta")) for h in delta.each()}
    assert len(thetas) == 1 and len(list(delta.each())) == 90 - delta.holders[0].get_parameter("theta").numel()
    data = Data(model.fill(Template(TEMPLATES["masked"]), [[text] for text in TEXTS]), torch.tensor([1, 1, 1, 0, 0, 0]))
    words = model.words({"bad": "terrible", "good": "great"}).single
    stage = replace(COMPARED["said-20k"].settings.recipe().stages[0], steps=12)
    recipe = Recipe(placed, stages=(stage,), readout=partial(Words, words))
    whole, calls = tune(model.tower, data, recipe), iter([None] * 5)
    with pytest.raises(StopIteration):
        tune(model.tower, data, recipe, checkpoint=tmp_path / "c", every=0, told=lambda *_: next(calls))
    tuned = tune(model.tower, data, recipe, checkpoint=tmp_path / "c")
    assert tuned.losses == whole.losses
    assert tuned.losses[-1] < tuned.losses[0] and tuned.delta.trainable() == 90
    save_delta(tuned.delta, tmp_path / "d.safetensors")
    again = load_delta(tmp_path / "d.safetensors", model.tower)
    assert len({id(h.get_parameter("theta")) for h in again.each()}) == 1
    for a, b in zip(tuned.delta.each(), again.each(), strict=True):
        assert torch.equal(a.get_parameter("theta"), b.get_parameter("theta"))
    before, merged = tuned.logits(data.inputs), tuned.merge()
    with torch.no_grad():
        torch.testing.assert_close(tuned.readout(model.tower(data.inputs), model.tower), before, atol=1e-5, rtol=1e-5)
    merged.undo()


@pytest.mark.paper(27, oracle="h", part="study")
@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_a_fish_mask_moves_the_entries_of_the_largest_gradients_and_no_others(kind: str) -> None:
    model, keep = tiny_lm.tiny(kind), 0.02
    asked = [Template(TEMPLATES[kind]).encode(model.tokenizer, [text]) for text in TEXTS]
    questions, right = model.questions(asked, CHOICES), [CHOICES.index(label) for label in LABELS]
    way = fish(model, questions, right, keep)
    assert (way.settings.steps, way.settings.lr) == (1500, 3e-4)
    body = model.tower.body
    was = {name: p.detach().clone() for name, p in body.named_parameters()}
    squares = {name: torch.zeros_like(p) for name, p in was.items()}
    for question, label in zip(questions, right, strict=True):  # T-Few's loss of one example, by hand
        logs = model.tower([question])[0]
        known = logs > -torch.inf
        own, wrong = logs[label][known[label]], logs[1 - label][known[1 - label]]
        scores = torch.stack([logs[c][known[c]].mean() for c in (0, 1)])
        loss = -own.mean() - scores.log_softmax(0)[label] - torch.log(1.01 - wrong.exp()).mean()
        gradients = torch.autograd.grad(loss, list(body.parameters()), allow_unused=True, materialize_grads=True)
        for square, gradient in zip(squares.values(), gradients, strict=True):
            square += gradient.square()
    many = int(sum(p.numel() for p in was.values()) * keep)
    least = torch.cat([square.flatten() for square in squares.values()]).topk(many).values.min()
    settings = replace(way.settings, steps=3, batch=6)
    made = TFewClassifier(model, [TEMPLATES[kind]], settings, way.changes, start=way.start).fit(TEXTS, LABELS, CHOICES)
    assert made.tuned is not None and made.tuned.delta.trainable() == many
    merged = made.tuned.merge()
    assert all(torch.equal(p != was[name], squares[name] >= least) for name, p in body.named_parameters())
    merged.undo()
    assert all(torch.equal(p, was[name]) for name, p in body.named_parameters())
    for wrong_right, share, message in [(right[1:], keep, "6 questions of 2 answers"), ([2] * 6, keep, "are \\[2, 2"),
                                        (right, 1e-9, "keep at least one")]:  # fmt: skip
        with pytest.raises(BadInput, match=message):
            fish(model, questions, wrong_right, share)


def test_prompts_begin_as_common_words() -> None:
    model = wide("seq2seq")
    delta = Delta.begin(model.tower, COMPARED["prompt-10"].changes(model.tower), generator())
    CommonWords(first=3, last=9)(delta, model.tower, None, None, None)  # type: ignore[arg-type]
    table = model.tower.body.get_input_embeddings().weight  # type: ignore[operator]
    prompt = next(iter(delta.each())).get_parameter("P")
    assert all(any(torch.equal(row, word) for word in table[3:9]) for row in prompt)


def test_cross_attention_has_no_compacter() -> None:
    model = wide("seq2seq")
    delta = Delta.begin(model.tower, COMPARED["compacter"].changes(model.tower)[:1], generator())
    names = [holder.site for holder in delta.each()]
    assert len(names) == 8 and not any("EncDec" in name for name in names)  # two blocks on either side, two places each


def test_what_cannot_be_is_refused() -> None:
    seq, causal = wide("seq2seq"), wide("causal")
    for act, message in [
        (lambda: COMPARED["bitfit"].changes(causal.tower), "no biases to learn"),
        (lambda: intrinsic(seq.tower, 5), "5 dimensions do not suffice for a lambda"),
        (lambda: Compacter(reduction=0), "1 at least"),
        (lambda: Compacter(activation="swish"), "no activation 'swish'"),  # type: ignore[arg-type]
        (lambda: Intrinsic(0).begin(torch.ones(2), generator()), "the dimension is 1 at least"),
        (lambda: Delta.begin(tiny_lm.tiny("masked").tower, [Placed(Compacter(), Where(("down",)))], generator()),
         "16 numbers, and 0 in the middle, do not split into 4"),
    ]:  # fmt: skip
        with pytest.raises(BadInput, match=message):
            act()  # type: ignore[no-untyped-call]
