"""How DAFOS-Net (paper 107) is trained: over episodes of classes of two domains, known ones and others.

An episode has ``way`` known and ``unknown`` other classes of each domain, none twice. With f the encoder, p_k the mean
of the examples of class k and of features made from little noise, d_k(q) = mean (f(q) - p_k)^2, and features made from
much noise among the queries of no class, all by domain:

    loss = 40 L_class + 0.3 L_known + 0.05 L_domain + 0.075 T_source + 0.125 T_target + 50 L_align
    L_class  = - mean_q sum_k y_qk softmax_k(-d(q))
    L_known  = cross-entropy of the judge "known or not" of the sorted distances, L_domain that of a judge of domains
    T        = [mean_k (mean d_k(queries of k) - mean d_k(other queries)) + 0.5]_+
    L_align  = mean_ik ((m_k g_i + b_i) of the source - (m_k g_i + b_i) of the target)^2

m_k the mean of the numbers of p_k, g and b gain and shift of the norm by domains. Before it the generators take a few
steps on the examples (`handful.adapt.dafos_nets`), after it the judges take one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from handful.adapt.dafos_nets import ADAM_EPS, APART, JUDGE, Encoder, Learner, Rivals, forward, layers
from handful.adapt.parameters import count, finite, one_of, several
from handful.core.gaussians import class_means
from handful.core.train import Adam, descend
from handful.errors import BadInput

if TYPE_CHECKING:
    from handful.adapt.dafos import DAFOSNet

MARGIN = 0.5
OTHER = -1
"""In place of a class: none of the known ones."""
FALL, EVERY = 0.001, 1000
"""The rate is multiplied by FALL after EVERY episodes."""
DEPTH = 10
"""Classes a generator knows, at least."""


@dataclass(frozen=True)
class Base:
    """What is trained on.

    Args:
        x: rows ``[n, D]``.
        label: ``[n]``.
        domain: ``[n]``, 0 for the source, 1 for the target.
        others: rows of none of the classes ``[m, D]``, as far as there are any; of domain 0.
    """

    x: Tensor
    label: Tensor
    domain: Tensor
    others: Tensor

    @property
    def domains(self) -> int:
        """1 or 2."""
        return int(self.domain.max()) + 1


@dataclass(frozen=True)
class Trained:
    """The encoder as weight and bias, for rows of the last domain, and the judge that tells known from unknown rows."""

    encoder: list[Tensor]
    judge: list[Tensor]


def train(how: DAFOSNet, base: Base, seed: int) -> Trained:
    """The networks after all episodes.

    Args:
        how: a head, for its parameters.
        base: what is trained on.
        seed: of all draws.

    Raises:
        BadInput: a parameter that makes no sense, too few classes, or classes of one row.
    """
    _check(how)
    draw = torch.Generator().manual_seed(seed)
    run = _Run(how, base, draw)
    start = Encoder.start(base.x.shape[1], how.width, base.domains, draw, base.x)

    def losses(tensors: list[Tensor], episode: Tensor) -> Tensor:
        return run.loss(Encoder(*tensors), episode)

    episodes = drawn_episodes(how, base, draw)
    encoder = Encoder(*descend(start.tensors, losses, episodes, run.rate, Adam(ADAM_EPS)))
    return Trained(encoder.settled(base.x, base.domain, base.domains - 1), run.known.network)


def _check(how: DAFOSNet) -> None:
    for name in ("queries", "width", "judge_steps"):
        count(name, getattr(how, name), 1)
    for name in ("unknown", "episodes", "gan_steps"):
        count(name, getattr(how, name))
    count("way", how.way, 2)
    pair = "two numbers, of the source and of the target"
    for name, length, what in (("shots", 2, pair), ("weights", 6, "six numbers, one for each loss")):
        if len(several(name, getattr(how, name), what)) != length:
            raise BadInput(f"{name} is {what}, not {getattr(how, name)!r}")
    for shot in how.shots:
        count("shots", shot, 1)
    for value in how.weights:
        finite("weights", value, least=0)
    for name in ("lr", "gan_lr", "low_noise", "high_noise", "l1", "l2"):
        finite(name, getattr(how, name), least=0)
    finite("meta_rate", how.meta_rate, least=0, most=1)
    one_of("apart", how.apart, tuple(APART))


def drawn_episodes(how: DAFOSNet, base: Base, draw: torch.Generator) -> Iterator[Tensor]:
    """``how.episodes`` of them: of each row its place in ``base`` (others come after it), its class in the episode
    (those of the target after those of the source) or `OTHER`, and 1 for an example, 0 for a query: ``[n, 3]``.
    """
    of = [torch.unique(base.label[base.domain == m]).tolist() for m in range(base.domains)]
    rows = {c: ((base.label == c) & (base.domain == m)).nonzero()[:, 0] for m, names in enumerate(of) for c in names}
    if shared := sum(map(len, of)) - len(rows):
        raise BadInput(f"{shared} base classes are in both domains: give each the items of one domain only")
    if any(len(names) < how.way + how.unknown for names in of):
        raise BadInput(
            f"episodes take {how.way} known and {how.unknown} other classes of each domain, but there are "
            f"{' and '.join(str(len(names)) for names in of)}: give more base classes, or lower way or unknown"
        )
    if single := sum(len(items) < 2 for items in rows.values()):
        raise BadInput(f"{single} base classes have one item only; episodes take an example and a query of each")

    def some(items: Tensor, n: int) -> Tensor:
        return items[torch.randperm(len(items), generator=draw).to(items.device)[:n]]

    for _ in range(how.episodes):
        parts = []
        for m, names in enumerate(of):
            order = [names[i] for i in torch.randperm(len(names), generator=draw).tolist()]
            for k, c in enumerate(order[: how.way]):
                items = some(rows[c], how.shots[m] + how.queries)
                asked = min(how.queries, len(items) - 1)
                parts += [(items[asked:], m * how.way + k, 1), (items[:asked], m * how.way + k, 0)]
            other = order[how.way : how.way + how.unknown]
            parts += [(some(rows[c], how.queries), OTHER, 0) for c in other]
        if len(base.others):
            beyond = len(base.x) + torch.arange(len(base.others), device=base.x.device)
            parts.append((some(beyond, max(1, how.unknown) * how.queries), OTHER, 0))
        yield torch.cat(
            [torch.stack([at, torch.full_like(at, c), torch.full_like(at, shown)], -1) for at, c, shown in parts]
        )


def distances(x: Tensor, prototype: Tensor) -> Tensor:
    """``mean (x - p)^2`` of rows ``[*b, n, E]`` and prototypes ``[*b, K, E]``: ``[*b, n, K]``."""
    return (x[..., :, None, :] - prototype[..., None, :, :]).square().mean(-1)


def kept_apart(d: Tensor, y: Tensor) -> Tensor:
    """T of distances ``[n, K]`` and classes ``[n, K]``; a row of zeros is of none."""
    near = (y * d).sum(0) / y.sum(0).clamp_min(1)
    far = ((1 - y) * d).sum(0) / (1 - y).sum(0).clamp_min(1)
    return ((near - far).mean() + MARGIN).clamp_min(0)


def alignment(encoder: Encoder, source: Tensor, target: Tensor, signed: bool) -> Tensor:
    """L_align of the prototypes ``[K, E]`` of both domains; ``signed``: not squared, as in the authors' code."""
    sides = [p.mean(-1)[:, None] * encoder.gain[m] + encoder.shift[m] for m, p in enumerate((source, target))]
    gap = sides[0] - sides[1]
    return gap.mean() if signed else gap.square().mean()


class _Run:
    """The networks that learn beside the encoder, and the loss of an episode."""

    def __init__(self, how: DAFOSNet, base: Base, draw: torch.Generator) -> None:
        self.how, self.draw = how, draw
        self.x = torch.cat([base.x, base.others])
        self.domain = torch.cat([base.domain, torch.zeros(len(base.others), dtype=torch.long, device=base.x.device)])
        self.domains = base.domains
        depth = max(DEPTH, 2 * how.way)
        self.low, self.high = (
            Rivals.start(how.width, depth, noise, draw, base.x) for noise in (how.low_noise, how.high_noise)
        )
        sizes = (how.way, *JUDGE, 2)
        self.known, self.of_domain = (Learner(layers(sizes, draw, base.x)) for _ in range(2))
        self.episode = 0

    def rate(self, episode: int) -> float:
        """Of the encoder and the judges."""
        return self.how.lr * FALL ** (episode // EVERY)

    def loss(self, encoder: Encoder, episode: Tensor) -> Tensor:
        """See the head of the file; the networks beside the encoder learn on the way."""
        t, (at, code, shown) = self.how, episode.T
        domain, shown = self.domain[at], shown > 0
        f = encoder(self.x[at], domain)
        low, high = self._made(f[shown].detach(), code[shown])
        far, own, prototypes = [], [], []
        for m in range(self.domains):
            mine, made = domain == m, domain[shown] == m
            slot = torch.where(code == OTHER, t.way, code - m * t.way)
            examples, of = f[mine & shown], one_hot(slot[mine & shown], t.way).to(f)
            if t.pseudo_known:
                examples, of = torch.cat([examples, low[made]]), torch.cat([of, of])
            p = class_means(examples, of)[0]
            asked, classes = f[mine & ~shown], one_hot(slot[mine & ~shown], t.way + 1)[:, : t.way].to(f)
            if t.pseudo_unknown:
                asked = torch.cat([asked, high[made]])
                classes = torch.cat([classes, classes.new_zeros(int(made.sum()), t.way)])
            far.append(distances(asked, p))
            own.append(classes)
            prototypes.append(p)
        d, y = torch.cat(far), torch.cat(own)
        losses = [
            -(y * (-d).softmax(-1)).sum(-1).mean(),
            self._judged(self.known, d, y.sum(-1).long()),
            f.new_zeros(()),
            kept_apart(far[0], own[0]),
            f.new_zeros(()),
            f.new_zeros(()),
        ]
        if self.domains == 2:
            of = torch.cat([torch.full((len(part),), m, device=f.device) for m, part in enumerate(far)])
            losses[2] = self._judged(self.of_domain, d, of)
            losses[4] = kept_apart(far[1], own[1])
            losses[5] = alignment(encoder, prototypes[0], prototypes[1], t.signed)
        self.episode += 1
        return (torch.stack(losses) * f.new_tensor(t.weights)).sum()

    def _made(self, true: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        """Features from little and from much noise, one of each for every example, after the generators' steps."""
        t, of = self.how, one_hot(code, self.low.depth).to(true)
        before = [(pair.generator.network, pair.discriminator.network) for pair in (self.low, self.high)]
        for _ in range(t.gan_steps):
            self.low.contest(true, of, self.draw, t.gan_lr, lambda made, _: made.new_zeros(()))
            s, zeta = self.low.make(of, self.draw)
            self.high.contest(true, of, self.draw, t.gan_lr, partial(self._apart, s, zeta))
        for pair, old in zip((self.low, self.high), before, strict=True):
            pair.back_to(old, t.meta_rate)
        return self.low.make(of, self.draw)[0], self.high.make(of, self.draw)[0]

    def _apart(self, low: Tensor, zeta: Tensor, made: Tensor, z: Tensor) -> Tensor:
        return APART[self.how.apart](made, low, z, zeta)

    def _judged(self, judge: Learner, d: Tensor, answer: Tensor) -> Tensor:
        """Loss of a judge of distances ``[n, K]``, which then learns."""
        nearest, losses = d.sort(-1).values, []
        for _ in range(self.how.judge_steps):
            free = judge.free()
            x, cost = nearest, d.new_zeros(())
            for at in range(0, len(free), 2):
                x = (x if at == 0 else x.relu()) @ free[at].mT + free[at + 1]
                if at + 2 < len(free):  # the penalties of all layers but the last
                    cost = cost + self.how.l1 * free[at].abs().sum() + self.how.l2 * x.relu().square().sum() / len(x)
            losses.append(cross_entropy(x, answer))
            judge.learn(losses[-1] + cost, free, self.rate(self.episode))
        return losses[0]


def judged(network: list[Tensor], d: Tensor, there: Tensor) -> Tensor:
    """Logits of "unknown" and "known" ``[*b, n, 2]`` by the smallest of the distances ``d [*b, n, C]``.

    Of classes that are not ``there [*b, C]``, and where there are fewer than the judge looks at, the largest counts.
    """
    here = there[..., None, :]
    d = torch.where(here, d, torch.where(here, d, -torch.inf).amax(-1, keepdim=True))
    more = d.amax(-1, keepdim=True).expand(*d.shape[:-1], max(0, network[0].shape[-1] - d.shape[-1]))
    d = torch.cat([d, more], -1)
    return forward(network, d.topk(network[0].shape[-1], -1, largest=False, sorted=True).values)
