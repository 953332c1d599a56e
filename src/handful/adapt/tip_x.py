"""TIP-X: Tip-Adapter with a second opinion, how alike two images look to the class texts.

Paper 035: Udandarao, Gupta, Albanie, "SuS-X: Training-Free Name-Only Transfer of Vision-Language Models", 2022.

    p(x) = softmax(x W' / t)                                        the signature of an image
    M_ij = KL(p(f_i) | p(F_j))
    logits = s f W' + alpha exp(-beta (1 - f F')) Y - gamma psi(M) Y

psi rescales linearly so that the divergences within the support span the range of the cosines within the support. The
reference takes both ranges from the queries it answers together; here they are of the support, so that an answer does
not depend on which other queries are asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from handful.adapt.base import Head
from handful.adapt.cache import Strength, others, search, stepped
from handful.adapt.parameters import finite
from handful.adapt.zero_shot import prior_logits
from handful.core.distances import unit
from handful.core.kernels import rbf
from handful.core.task import Query, State, Task, lowest
from handful.protocols import Needs, Ranges

ALPHA = Strength("alpha", 1.0, stepped(0.1, 50.0, 10))
BETA = Strength("beta", 1.0, stepped(1.0, 50.0, 10))
GAMMA = Strength("gamma", 1.0, stepped(0.1, 30.0, 5))


@dataclass(eq=False, repr=False, kw_only=True)
class TipX(Head):
    """Cache of the support that also votes by how alike two items look to the class texts, training-free.

    Args:
        alpha: weight of the cache; ``"loo"`` searches 10 values from 0.1 to 50, an item's own rows left out of the vote
            (1 where a class has a single item), as the reference does on a validation set.
        beta: sharpness; ``"loo"`` searches 10 values from 1 to 50.
        gamma: weight of the second opinion; ``"loo"`` searches 5 values from 0.1 to 30.
        temperature: t.
    """

    key: ClassVar[str] = "tip-x"
    needs: ClassVar[Needs] = Needs(text=True)
    shapes: ClassVar[Mapping[str, str]] = {
        "keys": "N D",
        "signature": "N C",
        "value": "N C",
        "scale": "",
        "offset": "",
        "real": "C",
        "alpha": "",
        "beta": "",
        "gamma": "",
    }
    ranges: ClassVar[Ranges] = {"alpha": (0.1, 10.0), "beta": (0.5, 20.0), "gamma": (0.1, 10.0)}

    alpha: float | Literal["loo"] = 1.0
    beta: float | Literal["loo"] = 1.0
    gamma: float | Literal["loo"] = 1.0
    temperature: float = 0.5

    @property
    def directions(self) -> bool:
        """Cosines only."""
        return True

    def adapt(self, task: Task) -> State:
        """State: ``keys [*b, N, D]``, their log ``signature [*b, N, C]``, ``value [*b, N, C]``, psi, strengths."""
        finite("temperature", self.temperature, above=0)
        finite("logit_scale", self.logit_scale, above=0)
        keys = unit(task.x)
        signature = self._signature(prior_logits(task.offset), task.class_mask)
        scale, offset = _psi(divergence(signature, signature), keys @ keys.mT, task.weight > 0)
        state = {"keys": keys, "signature": signature, "value": task.y, "scale": scale, "offset": offset}
        alpha, beta, gamma = self._strengths(task, state)
        return {**state, "real": task.class_mask, "alpha": alpha, "beta": beta, "gamma": gamma}

    def answer(self, state: State, query: Query) -> Tensor:
        """``s f W' + alpha exp(-beta (1 - f F')) Y - gamma psi(M) Y``."""
        alpha, beta, gamma, scale, offset = (
            state[name][..., None, None] for name in ("alpha", "beta", "gamma", "scale", "offset")
        )
        prior = prior_logits(query.prior)
        unlike = divergence(self._signature(prior, state["real"]), state["signature"])
        affinity = alpha * rbf(unit(query.x), state["keys"], beta) - gamma * (scale * unlike + offset)
        return prior + affinity @ state["value"]

    def held(self, state: State) -> Self:
        """With the strengths that were chosen."""
        return replace(self, alpha=float(state["alpha"]), beta=float(state["beta"]), gamma=float(state["gamma"]))

    def _signature(self, prior: Tensor, real: Tensor) -> Tensor:
        """``log p`` over the real classes, the lowest number for padded ones."""
        cosines = prior / (self.logit_scale * self.temperature)
        log_p = cosines.masked_fill(~real[..., None, :], -torch.inf).log_softmax(-1)
        return torch.where(real[..., None, :], log_p, lowest(log_p))

    def _strengths(self, task: Task, state: State) -> list[Tensor]:
        pairs = (BETA, self.beta), (GAMMA, self.gamma), (ALPHA, self.alpha)
        betas, gammas, alphas = tried = [strength.tried(value) for strength, value in pairs]
        keys, signature, y = state["keys"], state["signature"], state["value"]
        psi = state["scale"][..., None, None] * divergence(signature, signature) + state["offset"][..., None, None]
        second = others(psi, task) @ y
        axes = [1] * y.dim()
        firsts = prior_logits(task.offset) - keys.new_tensor(gammas).reshape(-1, 1, *axes) * second
        steps = keys.new_tensor(alphas).reshape(1, -1, *axes)
        sets = ((firsts + steps * (others(rbf(keys, keys, beta), task) @ y)).flatten(0, 1) for beta in betas)
        beta, gamma, alpha = search(sets, task, tried, [strength.given(value) for strength, value in pairs])
        return [alpha, beta, gamma]


def divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """``KL(p_i | q_j)`` ``[*b, n, m]`` in nats of log probabilities ``[*b, n, C]`` and ``[*b, m, C]``.

    Signatures are nearly alike, so that it takes double precision to tell them apart.
    """
    dtype = log_p.dtype
    log_p, log_q = (rows.double().log_softmax(-1) for rows in (log_p, log_q))  # rounded, they no longer add up to 1
    p = log_p.exp()
    return ((p * log_p).sum(-1, keepdim=True) - p @ log_q.mT).clamp_min(0).to(dtype)


def _psi(unlike: Tensor, cosines: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and offset ``[*b]`` that take the range of ``unlike`` to that of ``cosines`` between real rows.

    Where all divergences are the same they tell nothing: 0 and 0.
    """
    pairs = real[..., :, None] & real[..., None, :]
    low, high = _range(unlike, pairs)
    least, most = _range(cosines, pairs)
    tells = high - low > 1e-12
    scale = torch.where(tells, (most - least) / (high - low).clamp_min(1e-12), 0.0)
    return scale, torch.where(tells, least - scale * low, 0.0)


def _range(matrix: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
    low = matrix.masked_fill(~pairs, torch.inf).amin((-2, -1))
    return low, matrix.masked_fill(~pairs, -torch.inf).amax((-2, -1))
