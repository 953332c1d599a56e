"""ALDC: new classes as Gaussians that lean on base classes by learnt shares, from examples and a pool of any class.

Paper 088: Lyu, Zhao, Liu, Mei, Zhang, Zhang, Hu, Wang, "Ambiguity-Guided Learnable Distribution Calibration for
Semi-Supervised Few-Shot Class-Incremental Learning", 2025. Known of it is the abstract; how the rest is decided stands
in `papers.toml`. With z = unit(x^beta) / s, s the spread of a class, m_c the mean of the examples of a new class, mu_b
and Sigma_b of a base class, and p(u) = softmax(scale cos(u, [rows of the old classes, mu'])):

    a(u)     = 1 - |p_old - p_new| / (p_old + p_new),  the most probable old and new class
    mu'_c    = (1 - eta_c) m_c + eta_c sum_b w_cb mu_b,   Sigma'_c = sum_b w_cb Sigma_b + kappa_c I

w (the topk base classes that are most like m_c), eta and kappa are trained on the examples, m_c leaving out the one
that is asked; then unlabelled items with a < ambiguity take their most probable class for a label, and all is trained
again:

    L = CE(scale cos(z, [rows, mu'])) - likelihood mean log N(z; mu'_c, Sigma + kappa_c I) / D
        + mean_u a (consistency KL(p(u) | p(u + noise)) + entropy H(p(u))),   of those with a label 0

Sigma is that of all base classes together. Then the rows of the new classes are trained on draws from
N(mu'_c, Sigma'_c), as many draws of old classes, and the labelled; no example of an old class is kept.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from handful.adapt.base_gaussians import drawn, principal_axes
from handful.adapt.growing import Growing
from handful.adapt.lent import Calibration, Lent, OldRows, Shown, ambiguity, shared_covariance
from handful.adapt.parameters import count, finite
from handful.adapt.prototypes import Prototypes
from handful.adapt.teen import refuse_no_direction
from handful.adapt.transforms import refuse_negative
from handful.core.calibration import fit_scale, hedged
from handful.core.distances import cosine, unit
from handful.core.gaussians import class_means
from handful.core.task import Query, State, Task, lowest, mask_classes
from handful.core.train import Adam, batches, descend
from handful.core.train import cosine as falling
from handful.errors import BadInput
from handful.protocols import Needs

START = 32.0
"""A usual scale."""


@dataclass(eq=False, repr=False, kw_only=True)
class ALDC(Growing):
    """Class means that grow: new classes lean on base classes, and learn from unlabelled items of any class.

    ``fit`` measures the base classes; ``grow(X, y, unlabelled=U)`` adds new ones.

    Args:
        topk: base classes a new one leans on.
        kappa: variance that is added, where that of a base class is 1 on the mean; the trained kappa starts there.
        ambiguity: items less ambiguous than this get a label, 0 to 1.
        eta: share of the base classes at the start; ``None``: k / (k + 1), as distribution calibration has it.
        sharpness: of the softmax of cosines that the shares w start at.
        scale: multiplies the cosines; ``"loo"``: what explains the base examples best, each left out (`START` where no
            class has two).
        beta: exponent of the features; ``None``: 0.5 where no base feature is negative, else 1.
        shrinkage: of the covariances: ``Sigma_b + shrinkage tr(Sigma_b) / D I``.
        steps, lr, batch_size: of the training of w, eta and kappa by Adam, once on the examples and once more with the
            pool; the rate falls to 0 along a cosine.
        consistency, entropy, likelihood: weights of the losses.
        noise: standard deviation of the noise, over that of a class.
        samples: draws of each new class; 0 leaves the rows at mu'.
        head_steps, head_lr: of the training of the rows.
    """

    key: ClassVar[str] = "aldc"
    needs: ClassVar[Needs] = Needs(gradient=True, stochastic=True)
    shapes: ClassVar[Mapping[str, str]] = {
        "prototype": "C D", "mean": "C D", "mass": "C", "base": "C", "mix": "C C", "level": "C", "factor": "C R D",
        "spread": "", "scale": "", "beta": "",
    }  # fmt: skip
    one_by_one: ClassVar[bool] = False
    trains: ClassVar[bool] = True
    pool_too: ClassVar[bool] = True

    topk: int = 3
    kappa: float = 0.21
    ambiguity: float = 0.3
    eta: float | None = None
    sharpness: float = 16.0
    scale: float | Literal["loo"] = "loo"
    beta: float | None = None
    shrinkage: float = 0.1
    steps: int = 100
    lr: float = 0.05
    batch_size: int = 256
    consistency: float = 1.0
    entropy: float = 0.1
    likelihood: float = 1.0
    noise: float = 0.5
    samples: int = 200
    head_steps: int = 200
    head_lr: float = 0.01

    @property
    def directions(self) -> bool:
        """Cosines are blind to length."""
        return True

    def adapt(self, task: Task) -> State:
        """State: rows ``prototype [*b, C, D]``; of each class ``mean``, ``mass``, whether it is ``base``, and its
        Gaussian (see `handful.adapt.base_gaussians`); ``spread`` s, ``scale`` and ``beta`` ``[*b]``.

        Raises:
            BadInput: a parameter out of range, negative features where ``beta`` is given and not 1, a class whose
                examples cancel out.
        """
        self._check_parameters()
        beta = self._exponent(task.x)
        z, y, there = _placed(task.x, beta), task.y, task.class_mask.to(task.x)
        mean, mass = class_means(z, y)
        refuse_no_direction(mean, mass, z)
        factor = principal_axes(z, y)
        variance = factor.square().sum((-2, -1)) / z.shape[-1]
        several = ((variance > 1e-12) & task.class_mask).to(z)
        spread = ((several * variance).sum(-1) / several.sum(-1).clamp_min(1)).sqrt()
        middle = (there[..., None] * mean).sum(-2, keepdim=True) / there.sum(-1)[..., None, None]
        apart = ((mean - middle).square().mean(-1) * there).sum(-1) / there.sum(-1)
        spread = torch.where(several.sum(-1) > 0, spread, apart.sqrt())  # one example a class: how far they lie apart
        spread = torch.where(spread > 1e-6, spread, 1.0)
        level = torch.where(several > 0, self.shrinkage * variance / spread[..., None].square(), 1.0)
        return {
            "prototype": mean / spread[..., None, None],
            "mean": mean / spread[..., None, None],
            "mass": mass,
            "base": there,
            "mix": torch.diag_embed(there),
            "level": level,
            "factor": factor / spread[..., None, None, None],
            "spread": spread,
            "scale": self._scale(task, self._left_out(task, beta)),
            "beta": beta,
        }

    def answer(self, state: State, query: Query) -> Tensor:
        """``scale cos(z, row_k)``; a class without examples gets the lowest logit."""
        like = cosine(_placed(query.x, state["beta"]), state["prototype"])
        logits = state["scale"][..., None, None] * like
        return torch.where(state["mass"][..., None, :] > 0, logits, lowest(logits))

    def leave_one_out(self, task: Task) -> Tensor | None:
        """Closed form: what is fitted are base classes, plain means of z."""
        left_out = self._left_out(task, self._exponent(task.x))
        possible = left_out > lowest(left_out) / 2
        return torch.where(possible, self._scale(task, left_out)[..., None, None] * left_out, left_out)

    def held(self, state: State) -> Self:
        """See `handful.adapt.base.Head.held`: exponent and scale."""
        return replace(self, beta=float(state["beta"]), scale=float(state["scale"]))

    def extend(self, state: State, task: Task, fresh: Tensor) -> State:
        """See `handful.adapt.growing.Growing.extend`.

        Raises:
            BadInput: a new class whose examples cancel out.

        Warns:
            UserWarning: there are no unlabelled items.
        """
        self._check_parameters()
        if task.unlabelled is None:
            warnings.warn("no unlabelled items: new classes are calibrated by base classes alone", stacklevel=3)
        old, new = (~fresh).nonzero()[:, 0], fresh.nonzero()[:, 0]
        z, y = _placed(task.x, state["beta"]) / state["spread"], task.y[:, new]
        own, mass = class_means(z, y)
        refuse_no_direction(own, mass, z)
        rows = OldRows(state["prototype"][old], float(state["scale"]))
        start, at = self._start(state, own)
        training = Calibration(
            self.steps, self.lr, self.batch_size, self.consistency, self.entropy, self.likelihood, self.noise
        )
        shared = shared_covariance(state)
        shown = Shown(z, len(old) + y.argmax(-1), len(z), z[:0], z[:0, 0])
        lent = training.learn(start, own, shown, rows, shared, task.seed)
        if task.unlabelled is not None:
            u = _placed(task.unlabelled, state["beta"]) / state["spread"]
            shown = self._shown(shown, u, rows, lent.calibrated(own))
            lent = training.learn(lent, own, shown, rows, shared, task.seed)

        grown = {name: state[name].clone() for name in ("prototype", "mean", "mass", "mix", "level")}
        weight = lent.weight.softmax(-1)
        grown["mix"][new] = z.new_zeros(len(new), len(fresh)).scatter_(-1, at, weight)
        grown["level"][new] = (weight * state["level"][at]).sum(-1) + lent.extra.exp()
        grown["prototype"][new] = grown["mean"][new] = lent.calibrated(own)
        if self.samples:
            grown["prototype"][new] = self._trained(
                grown | {"factor": state["factor"]}, old, new, shown, rows, task.seed
            )
        members, grown["mass"][new] = class_means(shown.x, one_hot(shown.code, len(fresh))[:, len(old) :].to(z))
        grown["mean"][new] = lent.calibrated(members)
        return grown

    def _shown(self, examples: Shown, u: Tensor, old: OldRows, mean: Tensor) -> Shown:
        """The examples and the unlabelled items ``u [m, D]``, which get a label by the rows ``mean`` or stay unsure."""
        ways = len(old.rows)
        p = old.beside(mean, u).softmax(-1)
        doubt = ambiguity(p[:, :ways].amax(-1), p[:, ways:].amax(-1))
        sure = doubt < self.ambiguity
        x, code = torch.cat([examples.x, u[sure]]), torch.cat([examples.code, p[sure].argmax(-1)])
        return Shown(x, code, examples.given, u[~sure], doubt[~sure])

    def _start(self, state: State, own: Tensor) -> tuple[Lent, Tensor]:
        """Where the training starts, and which base classes ``[K, k]`` the new ones lean on."""
        like = cosine(own, state["mean"]).masked_fill(state["base"] * state["mass"] <= 0, -torch.inf)
        k = min(self.topk, int((like[0] > -torch.inf).sum()))
        near, at = like.topk(k, -1)
        eta = own.new_full((len(own),), k / (k + 1) if self.eta is None else self.eta)
        extra = torch.full_like(eta, math.log(self.kappa))
        return Lent(state["mean"][at], self.sharpness * near, eta.logit(), extra), at

    def _trained(self, state: State, old: Tensor, new: Tensor, shown: Shown, rows: OldRows, seed: int) -> Tensor:
        """Rows of the new classes ``[K, D]``, trained on draws of all classes and on the labelled rows of new ones."""
        draw = torch.Generator().manual_seed(seed)
        few = -(-self.samples * len(new) // len(old))  # of each old class, so that there are as many of old as of new
        parts, codes = [shown.x[shown.code >= len(old)]], [shown.code[shown.code >= len(old)]]
        for classes, first, n in ((old, 0, few), (new, len(old), self.samples)):
            mean, mix, level = (state[name][classes] for name in ("mean", "mix", "level"))
            parts.append(drawn(mean, mix, level, state["factor"], n, self.topk, draw).flatten(0, 1))
            codes.append(first + torch.arange(len(classes), device=old.device).repeat_interleave(n))
        x, code = torch.cat(parts), torch.cat(codes)
        fixed = rows.logits(x)

        def losses(parameters: list[Tensor], some: Tensor) -> Tensor:
            return cross_entropy(rows.beside(parameters[0], x[some], fixed[some]), code[some])

        epochs = -(-self.head_steps // -(-len(x) // self.batch_size))
        seen = islice(batches(torch.arange(len(x), device=x.device), epochs, self.batch_size, seed), self.head_steps)
        start = unit(state["mean"][new])
        return descend([start], losses, seen, falling(self.head_lr, max(1, self.head_steps)), Adam())[0]

    def _exponent(self, x: Tensor) -> Tensor:
        """``beta [*b]``."""
        negative = (x < 0).any(-1).any(-1)
        if self.beta is None:
            return torch.where(negative, 1.0, 0.5).to(x)
        if self.beta != 1:
            refuse_negative(x, "leave out beta, or take beta=1")
        return torch.full_like(negative, self.beta, dtype=x.dtype)

    def _left_out(self, task: Task, beta: Tensor) -> Tensor:
        """Cosines ``[*b, N, C]`` of the examples, each left out; the lowest number where nothing is left of a class."""
        found = Prototypes(metric="cosine").leave_one_out(replace(task, support=_placed(task.x, beta)))
        assert found is not None  # a closed form
        return found

    def _scale(self, task: Task, left_out: Tensor) -> Tensor:
        """``scale [*b]``."""
        if self.scale != "loo":
            return torch.full_like(left_out[..., 0, 0], float(self.scale))
        y = torch.where(left_out > lowest(left_out) / 2, task.y, 0.0)
        y = torch.where((y > 0).any(-1, keepdim=True), task.y, 0.0)
        judged = y.sum((-2, -1)) > 0
        found = fit_scale(mask_classes(left_out, task.class_mask), hedged(y, task.class_mask), task.class_mask)[0]
        return torch.where(judged, found, START)

    def _check_parameters(self) -> None:
        for name, least in (("topk", 1), ("batch_size", 1), ("steps", 0), ("samples", 0), ("head_steps", 0)):
            count(name, getattr(self, name), least)
        finite("kappa", self.kappa, above=0)
        if self.scale != "loo":
            if isinstance(self.scale, str):
                raise BadInput(f"scale is 'loo' or a number above 0, not {self.scale!r}")
            finite("scale", self.scale, above=0)
        for name in ("sharpness", "shrinkage", "lr", "head_lr", "consistency", "entropy", "likelihood", "noise"):
            finite(name, getattr(self, name), least=0)
        finite("ambiguity", self.ambiguity, least=0, most=1)
        if self.eta is not None:
            finite("eta", self.eta, least=0, most=1)
        if self.beta is not None:
            finite("beta", self.beta, above=0)


def _placed(x: Tensor, beta: Tensor) -> Tensor:
    """``unit(sign(x) |x|^beta)`` of rows ``[*b, N, D]``."""
    return unit(x.sign() * x.abs().pow(beta[..., None, None]))
