"""ComPEFT: what a model learnt, eight to fifty times smaller, without training (149, ComPEFT, 2023).

    tau    = theta - theta_0          of all that learns, end to end in the order of names
    kept   : the share k of entries of greatest magnitude, over the whole vector
    tau~   = alpha std(tau) sign(tau) kept
    theta  = theta_0 + tau~

theta_0 is where a change begins, whatever is drawn: 1 for the vectors of (IA)^3, the base's weights for full tuning;
what is drawn at first, as A of LoRA, counts from 0. k and alpha are chosen on examples, where there are some.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from handful.compress.ternary import Ternary
from handful.core.merging import Method, flat, largest, merge, unflat
from handful.errors import BadInput
from handful.tune.delta import Delta
from handful.tune.lora import LoRA
from handful.tune.zoo import same_kind


class FarFromNothing(UserWarning):
    """A task vector looks like weights, not like what was learnt on top of them."""


DENSITIES = (0.05, 0.1, 0.2, 0.3, 0.5)
ALPHAS = (0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
"""What the authors choose among."""


def compress(
    vector: Tensor,
    density: float = 0.2,
    alpha: float = 1.0,
    *,
    magnitude: Literal["std", "mean"] = "std",
    parts: Sequence[int] | None = None,
) -> Ternary:
    """A task vector as signs, positions and one number.

    Pruning alone, which keeps the values, is ``vector * largest(vector, density)`` (`handful.core.merging`).

    Args:
        vector: tau ``[d]``.
        density: k.
        alpha: times the magnitude.
        magnitude: ``"std"`` of the whole vector, unbiased; ``"mean"`` of the kept magnitudes (Sattler et al., Sparse
            Ternary Compression, 2019), with which alpha = 1 is nearest in squares.
        parts: lengths of the tensors that it is made of, to keep the share of each instead of the whole's.

    Raises:
        BadInput: density is not above 0 and at most 1; alpha is not positive; the vector holds NaN, or is constant;
            parts are not those of the vector.

    Warns:
        FarFromNothing: the entries lie around another number than 0.
    """
    if vector.dim() != 1 or len(vector) < 2 or not bool(torch.isfinite(vector).all()):
        raise BadInput(f"a task vector of shape {tuple(vector.shape)} must be one row of at least two finite numbers")
    if not 0 < alpha < math.inf:
        raise BadInput(f"alpha is above 0, not {alpha}")
    if magnitude not in ("std", "mean"):
        raise BadInput(f"the magnitude is 'std' or 'mean', not {magnitude!r}")
    vector = vector.detach().float()
    if not bool(vector.any()):
        raise BadInput("the task vector is 0 throughout: nothing was learnt that could be compressed")
    if parts is None:
        kept = largest(vector, density)
    else:
        if sum(parts) != len(vector) or min(parts) < 1:
            raise BadInput(f"parts of {sum(parts):,} numbers, none of them empty, must make the {len(vector):,} of it")
        kept = torch.cat([largest(part, density) for part in torch.split(vector, list(parts))])
    kept &= vector != 0
    unit = vector.std() if magnitude == "std" else vector[kept].abs().mean()
    if not float(unit):
        raise BadInput("all entries of the task vector are one number, so that it has no spread to keep")
    if float(vector.mean().abs()) > 2 * float(vector.std()):
        warnings.warn(
            f"the entries of the task vector lie around {float(vector.mean()):.3g}: is what it began as taken off, "
            "1 for the vectors of (IA)^3?", FarFromNothing, 2,
        )  # fmt: skip
    return Ternary((vector.sign() * kept).to(torch.int8), alpha * float(unit))


@dataclass(frozen=True)
class Tried:
    """One choice of k and alpha, and what it scored."""

    density: float
    alpha: float
    score: float


@dataclass(frozen=True)
class Chosen:
    """What `choose` chose.

    Attributes:
        update: compressed so.
        best: density, alpha and score of it.
        tried: every choice.
    """

    update: Ternary
    best: Tried
    tried: tuple[Tried, ...]


def choose(
    vector: Tensor,
    score: Callable[[Tensor], float],
    densities: Sequence[float] = DENSITIES,
    alphas: Sequence[float] = ALPHAS,
) -> Chosen:
    """The k and alpha of the highest score; of equal ones the smallest k, then the first alpha.

    Args:
        vector: tau ``[d]``.
        score: of a vector in its place, such as accuracy on examples held out.
        densities, alphas: tried with each other.

    Raises:
        BadInput: as `compress`; nothing to choose among; a score is no number.
    """
    if not densities or not alphas:
        raise BadInput("there is no density or no alpha to choose among")
    tried = tuple(
        Tried(k, alpha, score(compress(vector, k, alpha).dense())) for k in sorted(densities) for alpha in alphas
    )
    if any(math.isnan(one.score) for one in tried):
        raise BadInput("a compressed vector has no score (NaN), so that none can be chosen")
    best = max(tried, key=lambda one: one.score)
    return Chosen(compress(vector, best.density, best.alpha), best, tried)


def beginning(delta: Delta, model: nn.Module) -> dict[str, Tensor]:
    """theta_0 of everything in ``delta`` that learns, by the names of its parameters.

    Raises:
        BadInput: the delta is another model's.
    """
    delta.check_base(model)
    placed = delta.placed()
    first, second = (
        dict(Delta.begin(model, placed, torch.Generator().manual_seed(seed)).named_parameters()) for seed in (0, 1)
    )
    return {
        name: one.detach() if torch.equal(one, second[name]) else torch.zeros_like(one) for name, one in first.items()
    }


def task_vector(delta: Delta, model: nn.Module) -> Tensor:
    """tau ``[d]`` of a delta of ``model``."""
    start = beginning(delta, model)
    return flat(dict(delta.named_parameters())) - flat(start)


def balanced(delta: Delta, model: nn.Module) -> Delta:
    """A copy of ``delta`` that does the same, with both factors of every LoRA of one size: c A and B / c.

    The authors compress the factors as they are. After a short training A is still what was drawn and B small, so that
    one threshold and one magnitude fit only one of the two; this costs nothing.
    """
    made = Delta.begin(model, delta.placed(), torch.Generator().manual_seed(0))
    made.load_state_dict(delta.state_dict())
    with torch.no_grad():
        for holder in made.each():
            if isinstance(holder.change, LoRA):
                a, b = holder.tensors["A"], holder.tensors["B"]
                if not (a.any() and b.any()):
                    continue
                c = (b.square().mean() / a.square().mean()) ** 0.25
                a.mul_(c)
                b.div_(c)
    return made


def with_vector(delta: Delta, model: nn.Module, vector: Tensor) -> Delta:
    """A copy of ``delta`` that has learnt ``vector``, whatever it had before. Raises `BadInput` if it does not fit."""
    start = beginning(delta, model)
    made = Delta.begin(model, delta.placed(), torch.Generator().manual_seed(0))
    made.load_state_dict(delta.state_dict())
    with torch.no_grad():
        for name, tensor in unflat(vector.to(flat(start)), start).items():
            made.get_parameter(name).copy_(start[name] + tensor)
    return made


def merged(
    deltas: Sequence[Delta],
    model: nn.Module,
    method: Method = "ties",
    *,
    weights: Sequence[float] | None = None,
    density: float | None = None,
    scale: float = 1.0,
    compressed: Callable[[Tensor], Ternary] | None = compress,
) -> Delta:
    """Several deltas of one kind as one, merged as they are compressed; see `handful.core.merging`.

    Args:
        deltas: at least two, of the same changes at the same sites of ``model``.
        model: theirs.
        method, weights, density, scale: see `handful.core.merging.merge`.
        compressed: what happens to each before; ``None`` leaves them as they are.

    Raises:
        BadInput: fewer than two; they are not of one kind.
    """
    same_kind(deltas)
    vectors = [task_vector(delta, model) for delta in deltas]
    rows = vectors if compressed is None else [compressed(vector).dense() for vector in vectors]
    return with_vector(deltas[0], model, merge(rows, method, weights=weights, density=density, scale=scale))


def compose(
    vectors: Sequence[Tensor],
    loss: Callable[[Tensor], float],
    *,
    evaluations: int = 40,
    bound: float = 1.5,
    penalty: float = 0.05,
) -> tuple[Tensor, Tensor]:
    """Weights of several experts for a task of a few examples, found without a gradient (LoraHub, Huang et al. 2023).

    The loss of sum_k w_k tau_k plus ``penalty`` mean_k |w_k| is made small by Powell's method from w = 0.

    Args:
        vectors: tau of each expert, ``[d]``, compressed or not.
        loss: of a vector, on the few examples.
        evaluations: how often it may be asked for, at most.
        bound: of every |w_k|.
        penalty: of the weights' size.

    Returns:
        The weights ``[K]`` and the vector ``[d]`` they make: the best of all that were tried.

    Raises:
        BadInput: no vectors, or of several lengths; evaluations below 1; a loss is no number.
    """
    from scipy.optimize import minimize

    if not len(vectors) or evaluations < 1:
        raise BadInput("composing takes at least one vector and one evaluation")
    if len({len(vector) for vector in vectors}) > 1:
        raise BadInput(f"composing takes vectors of one length, not {sorted({len(vector) for vector in vectors})}")
    rows = torch.stack(list(vectors)).float()
    seen: list[tuple[float, Tensor]] = []

    def cost(w: object) -> float:
        weights = torch.as_tensor(w, dtype=rows.dtype)
        if len(seen) < evaluations:
            seen.append((loss(weights @ rows) + penalty * float(weights.abs().mean()), weights))
            if math.isnan(seen[-1][0]):
                raise BadInput(f"the loss is no number (NaN) at the weights {weights.tolist()}")
        return seen[-1][0]

    minimize(
        cost, torch.zeros(len(rows)).numpy(), method="Powell", bounds=[(-bound, bound)] * len(rows),
        options={"maxfev": evaluations},
    )  # fmt: skip
    best = min(seen, key=lambda one: one[0])[1]
    return best, best @ rows
