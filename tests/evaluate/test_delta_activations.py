"""Delta Activations (200): vectors of fine-tuned models, how they are compared, and the authors' code."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_lm
import torch
from torch import Tensor, nn

from handful.core.library import Library, ranked
from handful.encode.language_tower import LanguageTower
from handful.encode.prompt import Prompt
from handful.errors import BadInput
from handful.evaluate.delta_activations import (
    PROBES,
    Answers,
    LastLogits,
    LastToken,
    ModelIndex,
    Pooled,
    additivity,
    robustness,
    silhouette,
)
from handful.evaluate.model_baselines import flattened, salient_similarity, weight_change
from handful.tune import Data, Delta, LoRA, Placed, Recipe, Stage, Where
from handful.tune.fillers import Linear

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "delta_activations.json").read_text(encoding="utf-8"))
ASKED = ("The film was great.", "A dull plot. It was", "news about")


@pytest.fixture(scope="module")
def lm() -> object:
    return tiny_lm.tiny("causal")


@pytest.fixture
def index(lm: tiny_lm.Any) -> ModelIndex:
    return ModelIndex(lm.tower, LastToken.of(lm, ASKED))


def learnt(tower: nn.Module, seed: int, size: float = 0.3) -> Delta:
    delta = Delta.begin(tower, [Placed(LoRA(2), Where(("q", "v")))], torch.Generator().manual_seed(0))
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for holder in delta.each():
            holder.tensors["B"].copy_(size * torch.randn(holder.tensors["B"].shape, generator=draw))
    return delta


@pytest.mark.paper(200, oracle="a")
def test_the_base_has_no_vector(index: ModelIndex, lm: tiny_lm.Any) -> None:
    assert not index.vector(copy.deepcopy(lm.tower)).any()
    with pytest.raises(BadInput, match="nothing changed"):
        index.add("base", copy.deepcopy(lm.tower))


@pytest.mark.paper(200, oracle="b")
def test_changes_merged_or_not_are_one_model(index: ModelIndex, lm: tiny_lm.Any) -> None:
    delta = learnt(lm.tower, 1)
    vector = index.vector(delta)
    assert vector.norm() > 0.1
    kept = delta.merge(lm.tower)
    whole = copy.deepcopy(lm.tower)
    kept.undo()
    torch.testing.assert_close(index.vector(whole), vector, atol=1e-4 * float(vector.norm()), rtol=0)
    assert not index.vector(learnt(lm.tower, 1, 0.0)).any()


@pytest.mark.paper(200, oracle="c")
def test_a_batch_filled_up_on_the_left_gives_the_same(lm: tiny_lm.Any) -> None:
    ids = [lm.tokenizer.encode(text) for text in ASKED]
    width = max(map(len, ids))
    filled = torch.tensor([[1] * (width - len(one)) + one for one in ids])
    there = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in ids])
    with torch.no_grad():
        out = lm.tower.body(
            input_ids=filled, attention_mask=there, position_ids=(there.cumsum(1) - 1).clamp_min(0),
            output_hidden_states=True,
        )  # fmt: skip
    batched = out.hidden_states[-1][:, -1].mean(0)
    with torch.no_grad():
        torch.testing.assert_close(LastToken.of(lm, ASKED)(lm.tower), batched, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(lm.hidden(list(ASKED)).mean(0), batched, atol=1e-4, rtol=1e-4)


@pytest.mark.paper(200, oracle="d")
def test_one_function_may_have_two_vectors(index: ModelIndex, lm: tiny_lm.Any) -> None:
    turned = copy.deepcopy(lm.tower)
    sign = torch.tensor([1.0, -1.0] * 8)
    with torch.no_grad():
        turned.body.model.norm.weight.mul_(sign)
        turned.body.lm_head.weight.mul_(sign)
    prompts = [lm.prompt(text) for text in ASKED]
    with torch.no_grad():
        torch.testing.assert_close(turned(prompts), lm.tower(prompts))
    assert index.vector(turned).norm() > 0.1
    logits = ModelIndex(lm.tower, LastLogits.of(lm, ASKED))
    assert logits.vector(turned).norm() < 1e-4  # what the model says is the same


@pytest.mark.paper(200, oracle="e")
def test_vectors_of_a_linear_model_add_up() -> None:
    model, x = nn.Linear(6, 4, bias=False), torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    index = ModelIndex(model, Pooled(x))
    moves = [torch.randn(4, 6, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    found = []
    for move in (*moves, moves[0] + moves[1]):
        tuned = copy.deepcopy(model)
        with torch.no_grad():
            tuned.weight.add_(move)
        found.append(index.vector(tuned))
        torch.testing.assert_close(found[-1], move @ x.mean(0), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[0] + found[1], found[2], atol=1e-5, rtol=1e-5)
    assert additivity(*found)["sum"] == pytest.approx(1.0, abs=1e-6)
    assert additivity(*found)["first"] == pytest.approx(float(torch.cosine_similarity(found[0], found[2], dim=0)))


@pytest.mark.paper(200, oracle="f")
def test_the_silhouette_is_its_formula() -> None:
    g = np.random.default_rng(0)
    rows = g.normal(size=(7, 4))
    labels = ["a", "b", "a", "b", "a", "alone", "b"]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    for clip in (True, False):
        distance, each = (1 - rows @ rows.T).clip(0, 1 if clip else 2), []
        for i in (i for i, label in enumerate(labels) if label != "alone"):
            inside = np.mean([distance[i, j] for j in range(7) if j != i and labels[j] == labels[i]])
            outside = np.mean([distance[i, j] for j in range(7) if labels[j] not in (labels[i], "alone")])
            each.append((outside - inside) / max(inside, outside))
        assert silhouette(rows @ rows.T, labels, clip=clip) == pytest.approx(np.mean(each), abs=1e-9)
    assert silhouette(rows @ rows.T, labels) != silhouette(rows @ rows.T, labels, clip=False)


@pytest.mark.paper(200, oracle="g")
def test_small_steps_add_up_to_second_order() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)).double()
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(5, 6, generator=draw, dtype=torch.float64)
    sets = [(torch.randn(9, 6, generator=draw, dtype=torch.float64), torch.arange(9) % 4) for _ in range(2)]
    gradients = []
    for inputs, labels in sets:
        loss = nn.functional.cross_entropy(model(inputs), labels)
        gradients.append(torch.autograd.grad(loss, list(model.parameters())))

    index = ModelIndex(model, lambda tower: tower(x).mean(0))

    def stepped(weights: tuple[int, int], lr: float) -> Tensor:
        tuned = copy.deepcopy(model)
        with torch.no_grad():
            for p, one, other in zip(tuned.parameters(), *gradients, strict=True):
                p.sub_(lr * (weights[0] * one + weights[1] * other))
        return index.vector(tuned)

    gaps = [float((stepped((1, 1), lr) - stepped((1, 0), lr) - stepped((0, 1), lr)).norm()) for lr in (0.02, 0.01)]
    assert gaps[0] / gaps[1] == pytest.approx(4, rel=0.1)


@pytest.mark.paper(200, oracle="h")
def test_as_the_authors_read_it() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    inputs, expected = GOLDEN["inputs"], GOLDEN["expected"]

    def filled(shift: float) -> LanguageTower:
        body = LlamaForCausalLM(LlamaConfig(**inputs["settings"])).eval()
        with torch.no_grad():
            for i, (name, p) in enumerate(sorted(body.named_parameters())):
                wave = torch.sin(torch.arange(p.numel(), dtype=torch.float64) * 0.7 + i + shift)
                p.copy_((0.5 * wave + ("norm" in name)).reshape(p.shape))
        return LanguageTower(body, "causal")

    read = LastToken(tuple(Prompt.of(ids, None) for ids in inputs["probes"]))
    base, tuned = (torch.tensor(expected[name]).float() for name in ("base", "tuned"))
    with torch.no_grad():
        torch.testing.assert_close(read(filled(0.0)), base, atol=1e-6, rtol=1e-6)
    vector = ModelIndex(filled(0.0), read).vector(filled(0.05))
    torch.testing.assert_close(vector, tuned - base, atol=2e-6, rtol=1e-5)
    assert hashlib.sha256("\0".join(PROBES).encode()).hexdigest() == expected["probes"]


def test_models_are_found_by_a_task_they_were_tuned_on(index: ModelIndex, lm: tiny_lm.Any) -> None:
    g = torch.Generator().manual_seed(0)

    def task(word: int) -> Data:
        ids = torch.randint(10, 300, (12, 6), generator=g)
        ids[::2, -1] = word
        return Data([Prompt.of(row, None) for row in ids.tolist()], torch.arange(12) % 2)

    class Last(Linear):
        def look(self, model: nn.Module, inputs: object) -> Tensor:
            return model.states(inputs)[:, 0]  # type: ignore[operator, no-any-return]

        def begin(self, model: nn.Module, data: Data, generator: torch.Generator) -> None:
            self.weight = nn.Parameter(torch.randn(2, 16, generator=torch.Generator().manual_seed(1)))
            self.bias = nn.Parameter(torch.zeros(2))

    recipe = Recipe(
        (Placed(LoRA(2), Where(("q", "v", "up", "down"))),), stages=(Stage(steps=15, lr=0.03, trains=("delta",)),),
        readout=Last,
    )  # fmt: skip
    for word in (50, 200):
        for part in range(2):
            vector = index.of_task(task(word), recipe, seed=part)
            index.library.add(f"{word}-{part}", vector, {"domain": str(word)})
    found = index.search(index.of_task(task(50), recipe, seed=9))
    assert [one.rank for one in found] == [1, 2, 3, 4] and found[0].score <= 1
    assert index.silhouette() == silhouette(index.library.cosines().numpy(), ["50", "50", "200", "200"])
    assert index.picture().shape == (4, 2) and np.array_equal(index.picture(), index.picture())


def test_other_representations(lm: tiny_lm.Any) -> None:
    tower = lm.tower
    with torch.no_grad():
        states = tower.body(torch.tensor([lm.tokenizer.encode(ASKED[0])]), output_hidden_states=True).hidden_states
        read = LastToken.of(lm, ASKED[:1], layer=1, token="mean")
        torch.testing.assert_close(read(tower), states[1][0].mean(0))
        assert read.of(lm, ASKED[:1], most=2).prompts[0].ids == lm.prompt(ASKED[0]).ids[:2]
        logits = LastLogits.of(lm, ASKED)(tower)
    torch.testing.assert_close(logits, lm.mask_logits(list(ASKED)).mean(0), atol=1e-5, rtol=1e-5)

    class Counts:
        """As many letters as an answer has."""

        seen: list[str] = []  # noqa: RUF012

        def encode(self, items: list[str], cache: bool = True) -> np.ndarray:
            self.seen.extend(items)
            return np.array([[len(item), 1.0] for item in items])

    encoder = Counts()
    answers = Answers(lm, encoder, ASKED, 4)  # type: ignore[arg-type]
    with torch.no_grad():
        vector = answers(tower)
    assert len(encoder.seen) == 3 and vector[1] == 1
    assert float(vector[0]) == pytest.approx(np.mean([len(one) for one in encoder.seen]))


def test_weights_as_vectors(lm: tiny_lm.Any) -> None:
    deltas = [learnt(lm.tower, seed) for seed in (1, 2, 3)]
    rows = flattened(deltas)
    assert rows.shape == (3, deltas[0].trainable())
    whole, distances = flattened(deltas, 2), torch.cdist(rows, rows)
    torch.testing.assert_close(torch.cdist(whole, whole), distances, atol=1e-3, rtol=1e-3)  # three points are a plane
    change = weight_change(deltas[0], lm.tower)
    wanted = [(h.change.scale * h.tensors["B"] @ h.tensors["A"]).detach() for h in deltas[0].each()]
    assert float(change.norm()) == pytest.approx(float(torch.cat([w.flatten() for w in wanted]).norm()), rel=1e-4)
    alike = salient_similarity(deltas, lm.tower, 0.1)
    torch.testing.assert_close(alike.diagonal(), torch.ones(3, dtype=alike.dtype))
    masks = [set(weight_change(d, lm.tower).abs().topk(int(0.1 * len(change)) + 1).indices.tolist()) for d in deltas]
    assert float(alike[0, 1]) == pytest.approx(len(masks[0] & masks[1]) / len(masks[0] | masks[1]))


def test_half_precision_is_read_in_single(lm: tiny_lm.Any) -> None:
    base, tuned = copy.deepcopy(lm.tower).bfloat16(), copy.deepcopy(lm.tower)
    with torch.no_grad():
        for p in tuned.parameters():
            p.mul_(1.1)
    tuned.bfloat16()
    read = LastToken.of(lm, ASKED)
    half = ModelIndex(base, read).vector(tuned)
    single = ModelIndex(copy.deepcopy(base).float(), read).vector(copy.deepcopy(tuned).float())
    assert torch.equal(half, single) and half.norm() > 0.01
    assert {p.dtype for net in (base, tuned) for p in net.parameters()} == {torch.bfloat16}  # not changed


def test_what_cannot_be_compared_is_refused(index: ModelIndex, lm: tiny_lm.Any) -> None:
    other = tiny_lm.tiny("causal", intermediate_size=28).tower
    moved = copy.deepcopy(lm.tower)
    with torch.no_grad():
        for p in moved.parameters():
            p += 0.1
    index.add("a", learnt(lm.tower, 1), {"domain": "law"})
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: index.vector(other), "no fine-tuned base: body.model.layers.0.mlp"),
        (lambda: index.vector(learnt(moved, 1)), "belong to a model with the fingerprint"),
        (lambda: index.add("a", learnt(lm.tower, 2)), "'a' is in the library already"),
        (lambda: index.search(torch.ones(3)), "must be 16 finite numbers"),
        (lambda: index.search("a"), "must be a vector, not 'a'"),  # type: ignore[arg-type]
        (lambda: index.vector("a"), "of a Delta or of a network, not of 'a'"),  # type: ignore[arg-type]
        (lambda: additivity(torch.ones(3), torch.ones(4), torch.ones(3)), "as long as each other"),
        (lambda: index.search(torch.ones(16), 0), "k is 0"),
        (lambda: index.picture(), "takes three models, not 1"),
        (lambda: index.silhouette("task"), "model 'a' has no 'task'"),
        (lambda: index.silhouette(), "two labels with two models"),
        (lambda: LastToken.of(lm, ()), "no probe"),
        (lambda: LastToken.of(lm, ASKED, token="first"), "token one or 'mean'"),  # type: ignore[arg-type]
        (lambda: LastToken.of(lm, ASKED, layer=9)(lm.tower), "no layer 9"),
        (lambda: flattened([learnt(lm.tower, 1)] * 2, 5), "1 to 2 components, not 5"),
        (lambda: Library("minilm").add("x", torch.ones(2), space="clip"), "made by 'clip', not by 'minilm'"),
        (lambda: Library().search(torch.ones(2)), "the library is empty"),
        (lambda: ranked({}), "nothing to rank"),
        (lambda: ranked({"x": float("nan")}), "'x' has no score"),
    ]
    for bad, match in cases:
        with pytest.raises(BadInput, match=match):
            bad()


def test_robustness_is_of_pairs() -> None:
    found = robustness([torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0]), torch.tensor([3.0, 3.0])])
    assert found == {"least": pytest.approx(0), "mean": pytest.approx(2 * 0.5**0.5 / 3)}
    with pytest.raises(BadInput, match="two vectors"):
        robustness([torch.ones(2)])


def test_equal_scores_are_ranked_by_name() -> None:
    assert [one.name for one in ranked({"b": 1.0, "c": 2.0, "a": 1.0})] == ["c", "a", "b"]
