"""DAFOS-Net: its norms, generators and losses by their formulas, what it reduces to, a toy of two domains."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from handful.adapt import head
from handful.adapt.base import Features
from handful.adapt.dafos_nets import Encoder, Learner, Rivals, collapse, domain_norm, layers, overlap
from handful.adapt.dafos_train import OTHER, Base, _Run, alignment, distances, drawn_episodes, kept_apart
from handful.errors import BadInput

DRAW = torch.Generator().manual_seed(0)
DOMAIN = torch.tensor([0, 1, 0, 0, 1, 1, 0, 1, 0, 1])


def normal(*sizes: int) -> Tensor:
    return torch.randn(*sizes, generator=DRAW, dtype=torch.float64)


def two_domains(seed: int, width: int = 12, sources: int = 12, targets: int = 12) -> tuple[Any, ...]:
    """Base items of two domains, a shift apart, examples of three new classes, items of these and of seven others."""
    draw = np.random.default_rng(seed)
    shift, centre = 3 * draw.normal(size=width), draw.normal(size=(sources + targets + 10, width))

    def items(classes: range, each: int, domain: int) -> tuple[np.ndarray, np.ndarray]:
        y = np.repeat(np.array(classes), each)
        return centre[y] + 0.3 * draw.normal(size=(len(y), width)) + domain * shift, y

    (s, of_s), (t, of_t) = items(range(sources), 12, 0), items(range(sources, sources + targets), 6, 1)
    domain = np.repeat([0, 1], [len(s), len(t)])
    new, asked = range(sources + targets, sources + targets + 3), range(sources + targets, sources + targets + 10)
    base = Features(np.concatenate([s, t]), {"domain": domain}), np.concatenate([of_s, of_t])
    return base, items(new, 5, 1), items(asked, 20, 1), sources + targets + 3


def base_of(given: Any) -> Base:
    features, labels = given
    x = torch.tensor(features.x)
    return Base(x, torch.tensor(labels), torch.tensor(features.views["domain"]), x[:0])


def small(**changed: Any) -> Any:
    return head("dafos-net", width=8, **changed)


@pytest.mark.paper(107, oracle="b")
def test_without_what_is_new_it_is_a_prototypical_network(blobs: Any) -> None:
    (x, y), (q, _) = blobs(ways=6), blobs(ways=6, seed=1)
    base = blobs(ways=5, shots=8, seed=2)
    plain = {"unknown": 0, "pseudo_known": False, "pseudo_unknown": False, "episodes": 5}
    fitted = head("dafos-net", background=base, width=16, **plain).fit(x, y)
    encoder = torch.nn.Sequential(torch.nn.Linear(10, 16), torch.nn.ReLU()).double()
    encoder[0].load_state_dict({name: fitted.state_[f"encoder.{name}0"] for name in ("weight", "bias")})
    with torch.no_grad():
        f, g = (encoder(torch.tensor(part)).numpy() for part in (x, q))
    want = head("prototypes", temperature=16.0).fit(f, y).logits(g)
    np.testing.assert_allclose(fitted.logits(q), want, atol=1e-6)


@pytest.mark.paper(107, oracle="b")
def test_its_training_is_then_that_of_prototypes() -> None:
    """One domain, no judges: the loss of an episode is the mean of -softmax(-d)_y over the queries."""
    given, _, _, _ = two_domains(0)
    base = base_of(given)
    base = Base(base.x[base.domain == 0], base.label[base.domain == 0], base.domain[base.domain == 0], base.x[:0])
    t = small(unknown=0, pseudo_known=False, pseudo_unknown=False, weights=(1.0, 0.0, 0.0, 0.0, 0.0, 0.0))
    episode = next(drawn_episodes(t, base, torch.Generator().manual_seed(0)))
    encoder = Encoder.start(12, 8, 1, torch.Generator().manual_seed(1), base.x)
    loss = _Run(t, base, torch.Generator()).loss(encoder, episode)
    f, total = encoder(base.x[episode[:, 0]], torch.zeros(len(episode), dtype=torch.long)), []
    means = torch.stack([f[(episode[:, 1] == k) & (episode[:, 2] == 1)].mean(0) for k in range(3)])
    for row, (_, k, shown) in zip(f, episode.tolist(), strict=True):
        if not shown:
            total.append(-(-((row - means) ** 2).mean(-1)).softmax(-1)[k])
    torch.testing.assert_close(loss, torch.stack(total).mean())


@pytest.mark.paper(107, oracle="c")
def test_each_domain_is_normed_by_itself() -> None:
    x = normal(10, 4) * 3 + 5 * DOMAIN[:, None]
    z = domain_norm(x, DOMAIN, torch.ones(2, 4).double(), torch.zeros(2, 4).double())
    gain, shift = normal(2, 4), normal(2, 4)
    moved = domain_norm(x, DOMAIN, gain, shift)
    for m in range(2):
        half = z[m == DOMAIN]
        torch.testing.assert_close(half.mean(0), torch.zeros(4).double(), atol=1e-3, rtol=0)
        torch.testing.assert_close(half.var(0, unbiased=False), torch.ones(4).double(), atol=1e-3, rtol=0)
        want = torch.nn.functional.batch_norm(x[m == DOMAIN], None, None, gain[m], shift[m], training=True)
        torch.testing.assert_close(moved[m == DOMAIN], want)


def test_a_settled_encoder_is_the_encoder_with_the_statistics_of_all_rows() -> None:
    x = normal(10, 4) * 3 + 5 * DOMAIN[:, None]
    encoder = Encoder(normal(2, 4), normal(2, 4), normal(1, 4), normal(1, 4), normal(6, 4), normal(6))
    for m in range(2):
        weight, bias = encoder.settled(x, DOMAIN, m)
        rows = x[m == DOMAIN]
        torch.testing.assert_close((rows @ weight.mT + bias).relu(), encoder(x, DOMAIN)[m == DOMAIN])


@pytest.mark.paper(107, oracle="d")
def test_what_keeps_the_generators_apart() -> None:
    s1, s2, z = normal(20, 6).abs(), normal(20, 6).abs(), normal(20, 8)
    cos = (s1 * s2).sum(-1) / s1.norm(dim=-1) / s2.norm(dim=-1)
    assert overlap(s1, s2, z, -2 * z).item() == pytest.approx(0, abs=1e-12)
    assert overlap(s1, s2, z, 3 * z).item() == pytest.approx(2 * cos.mean().item())
    assert overlap(s1, -s2, z, z).item() == pytest.approx(2e-7)
    assert collapse(s1, s2, s1, s2).item() == pytest.approx(1)
    u = normal(20, 8)
    noise = (z * u).sum(-1) / z.norm(dim=-1) / u.norm(dim=-1)
    want = 1 + np.log((1 - noise.numpy()) / (1 - cos.numpy()))
    assert collapse(s1, s2, z, u).item() == pytest.approx(want.mean(), rel=1e-5)


@pytest.mark.slow
@pytest.mark.paper(107, oracle="e")
def test_unknown_items_of_another_domain_are_found_and_features_from_noise_help() -> None:
    """Without other classes in the episodes: only features from noise show the judge what is unknown."""
    found = []
    for seed in range(5):
        base, (x, y), (q, true), first = two_domains(seed)
        common = {"background": base, "random_state": seed, "episodes": 120, "lr": 5e-3, "width": 32}
        common |= {"judge_steps": 3, "gan_steps": 2}
        scores = [
            head("dafos-net", **common, **how).fit(x, y).unknownness(q)  # type: ignore[attr-defined]
            for how in (
                {},
                {"unknown": 0, "meta_rate": 1.0, "gan_lr": 1e-3},
                {"unknown": 0, "pseudo_unknown": False},
            )
        ]
        found.append([roc_auc_score(true >= first, score) for score in scores])
    whole, pseudo, neither = np.array(found).T
    assert whole.min() > 0.9
    assert (pseudo > neither).all()


@pytest.mark.paper(107, oracle="d")
def test_equals_the_authors_losses(golden: Any) -> None:
    given, want = golden("dafos")
    x = {name: torch.tensor(rows, dtype=torch.float64) for name, rows in given.items() if name != "code"}
    pair = x["high"], x["low"], x["noise_high"], x["noise_low"]
    assert overlap(*pair).item() == pytest.approx(want["overlap"], rel=1e-6)
    assert collapse(*pair).item() == pytest.approx(want["collapse"], rel=1e-6)
    d = distances(x["rows"], x["prototypes"])
    np.testing.assert_allclose(d, want["distances"], atol=1e-8)
    y = torch.nn.functional.one_hot(torch.tensor(given["code"]), 4)[:, :3].double()
    assert kept_apart(d, y).item() == pytest.approx(want["kept_apart"], rel=1e-6)
    encoder = Encoder(x["gain"], x["shift"], *[normal(1, 4)] * 2, normal(5, 4), normal(5))
    found = alignment(encoder, x["prototypes"], x["target"], signed=True)
    assert found.item() == pytest.approx(want["alignment"], rel=1e-6)


def test_losses_by_loops() -> None:
    d, y = normal(7, 3).square(), torch.nn.functional.one_hot(torch.tensor([0, 0, 1, 2, 3, 3, 1]), 4)[:, :3].double()
    gaps = []
    for k in range(3):
        inside, outside = ([float(d[i, k]) for i in range(7) if y[i, k] == side] for side in (1, 0))
        gaps.append(np.mean(inside) - np.mean(outside))
    assert kept_apart(d, y).item() == pytest.approx(max(0.0, np.mean(gaps) + 0.5))
    assert kept_apart(d * 100 * (1 - y), y) == 0
    encoder = Encoder(normal(2, 5), normal(2, 5), *[normal(1, 5)] * 2, normal(4, 5), normal(4))
    s, t = normal(3, 4), normal(3, 4)
    terms = [
        s[k].mean() * encoder.gain[0, i] + encoder.shift[0, i] - t[k].mean() * encoder.gain[1, i] - encoder.shift[1, i]
        for k in range(3)
        for i in range(5)
    ]
    torch.testing.assert_close(alignment(encoder, s, t, signed=True), torch.stack(terms).mean())
    torch.testing.assert_close(alignment(encoder, s, t, signed=False), torch.stack(terms).square().mean())


def test_episodes_draw_classes_of_each_domain_once_and_queries_that_are_no_examples() -> None:
    given, _, _, _ = two_domains(0)
    base, t = base_of(given), small(episodes=30, way=4, unknown=2, shots=(5, 2), queries=3)
    base = Base(base.x, base.label, base.domain, normal(9, 12))
    known = set()
    for at, code, shown in (episode.T for episode in drawn_episodes(t, base, torch.Generator().manual_seed(0))):
        own = at < len(base.x)
        assert len(at.unique()) == len(at)
        for k in range(8):
            rows = at[code == k]
            label, domain = base.label[rows].unique(), base.domain[rows].unique()
            assert len(label) == 1 and domain.tolist() == [k // 4]
            assert ((code == k) & (shown == 1)).sum() == (5, 2)[k // 4] and ((code == k) & (shown == 0)).sum() == 3
        other = base.label[at[own & (code == OTHER)]]
        assert len(other.unique()) == 4 and not set(other.tolist()) & set(base.label[at[own & (code >= 0)]].tolist())
        assert (~own).sum() == 6 and not shown[~own].any()
        known |= set(base.label[at[own & (code >= 0)]].tolist())
    assert known == set(range(24))


def modules(network: list[Tensor], *, last: bool) -> torch.nn.Sequential:
    """The same network of torch's own layers, which are trained."""
    parts: list[torch.nn.Module] = []
    for weight, bias in zip(network[::2], network[1::2], strict=True):
        parts += [torch.nn.Linear(*reversed(weight.shape)).double(), torch.nn.ReLU()]
        parts[-2].load_state_dict({"weight": weight.clone(), "bias": bias.clone()})
    return torch.nn.Sequential(*(parts if last else parts[:-1]))


def test_generator_and_discriminator_take_steps_in_turn() -> None:
    of, true = torch.nn.functional.one_hot(torch.arange(6) % 3, 10).double(), normal(6, 5).abs()
    rivals = Rivals.start(5, 10, 0.2, torch.Generator().manual_seed(1), of)
    generator = modules(rivals.generator.network, last=True)
    discriminator = modules(rivals.discriminator.network, last=False)
    steps = [torch.optim.Adam(net.parameters(), lr=0.01, eps=1e-7) for net in (discriminator, generator)]
    s, zeta = normal(6, 5).abs(), normal(6, 8)
    for _ in range(3):
        rivals.contest(true, of, torch.Generator().manual_seed(2), 0.01, lambda made, z: overlap(made, s, z, zeta))
        draw, cross_entropy = torch.Generator().manual_seed(2), torch.nn.BCEWithLogitsLoss()
        z = 0.2 * torch.randn(6, 8, generator=draw, dtype=torch.float64)
        rows = torch.cat([torch.cat([generator(torch.cat([z, of], 1)).detach(), of], 1), torch.cat([true, of], 1)])
        steps[0].zero_grad()
        cross_entropy(discriminator(rows)[:, 0], torch.arange(12).lt(6).double()).backward()
        steps[0].step()
        z = 0.2 * torch.randn(6, 8, generator=draw, dtype=torch.float64)
        made = generator(torch.cat([z, of], 1))
        steps[1].zero_grad()
        loss = cross_entropy(discriminator(torch.cat([made, of], 1))[:, 0], torch.zeros(6).double())
        (loss + overlap(made, s, z, zeta)).backward()
        steps[1].step()
    for ours, theirs in ((rivals.generator, generator), (rivals.discriminator, discriminator)):
        for mine, other in zip(ours.network, theirs.parameters(), strict=True):
            torch.testing.assert_close(mine, other.detach())


def test_of_the_way_they_went_a_share_is_kept() -> None:
    rivals = Rivals.start(5, 10, 0.2, torch.Generator(), normal(1))
    before = rivals.generator.network, rivals.discriminator.network
    rivals.contest(normal(4, 5), torch.eye(10)[:4].double(), torch.Generator(), 0.1, lambda made, _: made.new_zeros(()))
    went = [*rivals.generator.network, *rivals.discriminator.network]
    rivals.back_to(before, 0.25)
    kept = [*rivals.generator.network, *rivals.discriminator.network]
    for start, now, end in zip([*before[0], *before[1]], kept, went, strict=True):
        torch.testing.assert_close(now, 0.75 * start + 0.25 * end)


def test_a_learner_takes_the_steps_of_adam() -> None:
    start, x = layers((3, 4, 2), torch.Generator().manual_seed(0), normal(1)), normal(5, 3)
    learner = Learner([tensor.clone() for tensor in start])
    peers = [tensor.clone().requires_grad_() for tensor in start]
    adam = torch.optim.Adam(peers, lr=0.01, eps=1e-7)

    def loss(network: list[Tensor]) -> Tensor:
        return ((x @ network[0].mT + network[1]).relu() @ network[2].mT + network[3]).square().mean()

    for _ in range(5):
        free = learner.free()
        learner.learn(loss(free), free, 0.01)
        adam.zero_grad()
        loss(peers).backward()
        adam.step()
    for ours, theirs in zip(learner.network, peers, strict=True):
        torch.testing.assert_close(ours, theirs.detach())


def test_answers_none_of_these_where_the_judge_says_so(blobs: Any) -> None:
    x, y = blobs(ways=5)
    fitted: Any = head("dafos-net", background=blobs(ways=8, seed=3), episodes=20, lr=0.01).fit(x, y)
    score, answers = fitted.unknownness(x), fitted.predict_open(x)
    assert np.array_equal(answers == -1, score > 0)
    assert np.array_equal(answers[score <= 0], fitted.predict(x)[score <= 0])
    with pytest.raises(BadInput, match="nota_label 3 is one of the classes"):
        fitted.predict_open(x, nota_label=3)
    named = fitted.fit(x, np.array(list("abcde"))[y]).predict_open(x)
    assert set(named) == {*"abcde", -1} & set(named) and -1 in named  # not "-1"
    two = y < 2  # fewer classes than the judge takes distances
    assert np.isfinite(fitted.fit(x[two], y[two]).unknownness(x)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"background": np.ones((4, 10))}, "needs labels of the base items"),
        ({"way": 5}, "episodes take 5 known and 3 other classes of each domain, but there are 6"),
        ({"way": 1}, "way must be"),
        ({"shots": (1, 2, 3)}, "shots is two numbers, of the source and of the target"),
        ({"shots": 4}, "shots is two numbers, of the source and of the target, not 4"),
        ({"weights": None}, "weights is six numbers"),
        ({"weights": (1.0, 2.0)}, "weights is six numbers"),
        ({"judge_steps": 0}, "judge_steps must be"),
        ({"apart": "far"}, "apart is one of"),
        ({"meta_rate": 2.0}, "meta_rate must be"),
    ],
)
def test_what_cannot_be_is_refused(blobs: Any, change: dict[str, Any], message: str) -> None:
    x, y = blobs()
    with pytest.raises(BadInput, match=message):
        head("dafos-net", **{"background": blobs(ways=6), "episodes": 1, **change}).fit(x, y)


@pytest.mark.parametrize(
    ("domain", "labels", "message"),
    [
        (np.repeat([0, 2], 18), None, "0 or 1 an item"),
        (np.full(36, np.nan), None, "view 'domain' of the background at row 0, column 0 .* is NaN"),
        (np.repeat(["photo", "sketch"], 18), None, "view 'domain' of the background must be an array of numbers"),
        (np.ones(36, int), None, "no item of the source domain"),
        (np.tile([0, 1], 18), None, "6 base classes are in both domains"),
        (np.repeat([0, 1], 18), np.arange(36), "36 base classes have one item only"),
        (np.zeros(5, int), None, "view 'domain' has 5 rows but the background has 36"),
    ],
)
def test_domains_that_cannot_be_are_refused(blobs: Any, domain: np.ndarray, labels: Any, message: str) -> None:
    x, y = blobs()
    base, kinds = blobs(ways=6)
    given = Features(base, {"domain": domain}), kinds if labels is None else labels
    with pytest.raises(BadInput, match=message):
        head("dafos-net", background=given, way=2, unknown=1, episodes=1).fit(x, y)
