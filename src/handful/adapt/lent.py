"""How much a new class takes from base classes, learnt from items with and without labels; see `handful.adapt.aldc`."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from handful.core.distances import cosine, unit
from handful.core.task import State
from handful.core.train import Adam, batches, descend
from handful.core.train import cosine as falling


def ambiguity(old: Tensor, new: Tensor) -> Tensor:
    """``1 - |p_old - p_new| / (p_old + p_new)``: 0 for an item that is clearly of an old, or of a new class."""
    return 1 - (old - new).abs() / (old + new)


@dataclass(frozen=True)
class Lent:
    """What k base classes lend to each of K new ones, and how much of it they take.

    Args:
        mean: of the base classes ``[K, k, D]``.
        weight: logits of w ``[K, k]``.
        gate: logit of eta ``[K]``.
        extra: logarithm of kappa ``[K]``.
    """

    mean: Tensor
    weight: Tensor
    gate: Tensor
    extra: Tensor

    @property
    def mixed(self) -> Tensor:
        """``sum_b w_cb mu_b`` ``[K, D]``."""
        return (self.weight.softmax(-1)[..., None] * self.mean).sum(-2)

    def calibrated(self, own: Tensor) -> Tensor:
        """``mu'`` of own means ``[K, D]``."""
        eta = self.gate.sigmoid()[:, None]
        return (1 - eta) * own + eta * self.mixed


@dataclass(frozen=True)
class Shown:
    """What a step of growing shows.

    Args:
        x: rows with a label ``[n, D]``; the first ``given`` of them are examples, the label of others was taken.
        code: their classes ``[n]``, the old ones first.
        given: see ``x``.
        unsure: ambiguous rows ``[m, D]``.
        doubt: how ambiguous they are ``[m]``.
    """

    x: Tensor
    code: Tensor
    given: int
    unsure: Tensor
    doubt: Tensor


@dataclass(frozen=True)
class OldRows:
    """Rows of the old classes, which stay, and what multiplies cosines."""

    rows: Tensor
    scale: float

    def logits(self, x: Tensor) -> Tensor:
        """Of the old classes ``[n, C]``."""
        return self.scale * cosine(x, self.rows)

    def beside(self, new: Tensor, x: Tensor, old: Tensor | None = None) -> Tensor:
        """Of old classes (``old``, where they are known) and of rows of new ones ``[n, C + K]``."""
        return torch.cat([self.logits(x) if old is None else old, self.scale * cosine(x, new)], -1)


@dataclass(frozen=True)
class Calibration:
    """The training of w, eta and kappa; see `handful.adapt.aldc.ALDC` for the parameters."""

    steps: int
    lr: float
    batch_size: int
    consistency: float
    entropy: float
    likelihood: float
    noise: float

    def learn(
        self, start: Lent, own: Tensor, shown: Shown, old: OldRows, shared: tuple[Tensor, Tensor], seed: int
    ) -> Lent:
        """What new classes take in the end.

        Args:
            start: where it starts.
            own: means of the examples ``[K, D]``.
            shown: what to learn from.
            old: see `OldRows`.
            shared: eigenvalues ``[D]`` and eigenvectors of the covariance that the likelihood takes.
            seed: of all draws.
        """
        (values, basis), draw = shared, torch.Generator().manual_seed(seed)
        x, fixed, fixed_unsure = shown.x, old.logits(shown.x), old.logits(shown.unsure)
        ways = fixed.shape[-1]
        is_new, k = shown.code >= ways, (shown.code - ways).clamp_min(0)
        without, alone = _without_itself(own, k, shown)

        def losses(parameters: list[Tensor], rows: Tensor) -> Tensor:
            now = Lent(start.mean, *parameters)
            mean, mine, new = now.calibrated(own), k[rows], is_new[rows]
            eta = torch.where(alone[rows], 1.0, now.gate.sigmoid()[mine])[:, None]
            centre = (1 - eta) * without[rows] + eta * now.mixed[mine]
            itself = old.scale * (unit(x[rows]) * unit(centre)).sum(-1, keepdim=True)
            logits = old.scale * cosine(x[rows], mean)
            logits = torch.where(new[:, None] & (one_hot(mine, len(own)) > 0), itself, logits)
            loss = cross_entropy(torch.cat([fixed[rows], logits], -1), shown.code[rows])
            variance = values + now.extra.exp()[mine, None]
            unlike = (((x[rows] - centre) @ basis).square() / variance + variance.log()).mean(-1) / 2
            loss = loss + self.likelihood * (new * unlike).sum() / new.sum().clamp_min(1)
            return loss + self._of_unsure(shown, fixed_unsure, mean, old, draw)

        epochs = -(-self.steps // -(-len(x) // self.batch_size))
        seen = islice(batches(torch.arange(len(x), device=x.device), epochs, self.batch_size, seed), self.steps)
        parameters = [start.weight, start.gate, start.extra]
        return Lent(start.mean, *descend(parameters, losses, seen, falling(self.lr, max(1, self.steps)), Adam()))

    def _of_unsure(self, shown: Shown, fixed: Tensor, mean: Tensor, old: OldRows, draw: torch.Generator) -> Tensor:
        """The losses of some ambiguous rows; ``fixed`` are the logits of old classes of all of them."""
        if not len(shown.unsure) or not (self.consistency or self.entropy):
            return mean.new_zeros(())
        some = torch.randperm(len(shown.unsure), generator=draw)[: self.batch_size].to(mean.device)
        u, a = shown.unsure[some], shown.doubt[some]
        moved = u + self.noise * torch.randn(u.shape, generator=draw, dtype=torch.float64).to(u)
        log_p, log_q = (
            logits.log_softmax(-1) for logits in (old.beside(mean, u, fixed[some]), old.beside(mean, moved))
        )
        still = log_p.detach()
        differ, spread = (still.exp() * (still - log_q)).sum(-1), -(log_p.exp() * log_p).sum(-1)
        loss = (a * (self.consistency * differ + self.entropy * spread)).mean()
        return loss * len(shown.unsure) / (len(shown.x) - shown.given + len(shown.unsure))


def _without_itself(own: Tensor, k: Tensor, shown: Shown) -> tuple[Tensor, Tensor]:
    """The own mean of each row's class without the row ``[n, D]``, and whether nothing is left of it ``[n]``."""
    each = torch.bincount(k[: shown.given], minlength=len(own)).to(own)[k][:, None]
    example = (torch.arange(len(k), device=k.device) < shown.given)[:, None]
    less = (each * own[k] - shown.x) / (each - 1).clamp_min(1)
    return torch.where(example, less, own[k]), (example & (each < 2))[:, 0]


def shared_covariance(state: State) -> tuple[Tensor, Tensor]:
    """Eigenvalues ``[D]`` and eigenvectors of the mean covariance of the base classes of a state."""
    base = state["base"] * (state["mass"] > 0)
    axes = state["factor"].flatten(0, 1)
    values, basis = torch.linalg.eigh(axes.mT @ axes / base.sum())
    return values.clamp_min(0) + (base * state["level"]).sum() / base.sum(), basis
