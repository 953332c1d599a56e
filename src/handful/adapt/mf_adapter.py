"""MF-Adapter without training: beside the cache, how well an item's small regions are found again in a class.

Paper 029: Shi, Xue, Xu, "Learning to Adapt Category Consistent Meta-Feature of CLIP for Few-Shot Classification", 2024.
There is no published code; this is its local similarity, the adapter of the regions being the identity.

    regions of an item: windows of 3 x 3 places, 1 to 5 apart, of a map of local features; flat, made unit
    u_c = mean over an item's regions, and over distances, of the best cosine among the regions of c's examples
    logits = s f W' + alpha exp(-beta (1 - f F')) Y + eta exp(-sharpness (1 - u))
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from handful.adapt.base import Head
from handful.adapt.cache import Strength, closest, others, search, stepped
from handful.adapt.parameters import count, finite, several
from handful.adapt.zero_shot import prior_logits
from handful.core.distances import unit
from handful.core.kernels import rbf
from handful.core.task import Query, State, Task
from handful.errors import BadInput
from handful.protocols import Needs

ALPHA = Strength("alpha", 1.0, stepped(0.1, 3.0, 10))
BETA = Strength("beta", 1.0, stepped(0.1, 7.0, 10))
ETA = Strength("eta", 1.0, stepped(0.1, 10.0, 10))
DILATIONS = (1, 2, 3, 4, 5)
WHOLE = "a list of whole numbers from 1"
BLOCK = 2**25
"""Cosines of regions held at a time."""


@dataclass(eq=False, repr=False, kw_only=True)
class MFAdapter(Head):
    """Cache of the support, and small regions found again in the examples of a class; training-free.

    The features carry a square map of an early layer as a view ``local [n, places, c]``.

    Args:
        window: side of a region, in places.
        dilations: distances between its places; ``None``: those of 1 to 5 that fit into the map.
        alpha: weight of the cache; ``"loo"`` searches it, as beta and eta, by leave-one-out over items (1 where a class
            has a single item).
        beta: sharpness of the cache.
        eta: weight of the regions.
        sharpness: of the regions.
    """

    key: ClassVar[str] = "mf-adapter"
    needs: ClassVar[Needs] = Needs(text=True, views=("local",))
    shapes: ClassVar[Mapping[str, str]] = {
        "keys": "N D",
        "value": "N C",
        "local": "N L E",
        "alpha": "",
        "beta": "",
        "eta": "",
    }

    window: int = 3
    dilations: Sequence[int] | None = None
    alpha: float | Literal["loo"] = 1.0
    beta: float | Literal["loo"] = 1.0
    eta: float | Literal["loo"] = 1.0
    sharpness: float = 1.0

    @property
    def directions(self) -> bool:
        """Cosines only."""
        return True

    def adapt(self, task: Task) -> State:
        """State: ``keys [*b, N, D]``, ``value [*b, N, C]``, the maps ``local [*b, N, L, E]``, strengths ``[*b]``."""
        state = {"keys": unit(task.x), "value": task.y, "local": self._local(task)}
        fitting(state["local"].shape[-2], self.window, self.dilations)  # refuses now what it would refuse when asked
        finite("sharpness", self.sharpness, least=0)
        alpha, beta, eta = self._strengths(task, state)
        return {**state, "alpha": alpha, "beta": beta, "eta": eta}

    def answer(self, state: State, query: Query) -> Tensor:
        """``s f W' + alpha exp(-beta (1 - f F')) Y + eta exp(-sharpness (1 - u))``."""
        if "local" not in query.views:
            raise BadInput("MFAdapter needs features with a view 'local'")
        local = query.views["local"].to(state["local"].dtype)
        if local.shape[-2:] != state["local"].shape[-2:]:
            raise BadInput(
                f"maps of shape {tuple(local.shape[-2:])}, those of the support {tuple(state['local'].shape[-2:])}"
            )
        alpha, beta, eta = (state[name][..., None, None] for name in ("alpha", "beta", "eta"))
        votes = rbf(unit(query.x), state["keys"], beta) @ state["value"]
        found = self._found(local, state["local"], state["value"], None)
        return prior_logits(query.prior) + alpha * votes + eta * self._heard(found)

    def leave_one_out(self, task: Task) -> Tensor | None:
        """An item's own rows neither vote on it nor lend it regions."""
        state = self.adapt(task)
        alpha, beta, eta = (state[name][..., None, None] for name in ("alpha", "beta", "eta"))
        votes, found = others(rbf(state["keys"], state["keys"], beta), task) @ task.y, self._left_out(task, state)
        return prior_logits(task.offset) + alpha * votes + eta * self._heard(found)

    def held(self, state: State) -> Self:
        """With the strengths that were chosen."""
        return replace(self, alpha=float(state["alpha"]), beta=float(state["beta"]), eta=float(state["eta"]))

    def view_widths(self) -> dict[str, int]:
        """See `Head.view_widths`."""
        return super().view_widths() | {"local": self.state_["local"].shape[-1]}

    def _heard(self, found: Tensor) -> Tensor:
        return (-self.sharpness * (1 - found)).exp()

    def _local(self, task: Task) -> Tensor:
        if "local" not in task.views:
            raise BadInput("MFAdapter needs features with a view 'local'")
        local = task.views["local"].to(task.support.dtype)
        return torch.where(task.weight[..., None, None] > 0, local, 0.0)

    def _found(self, local: Tensor, bank: Tensor, label: Tensor, free: Tensor | None) -> Tensor:
        """``u`` ``[*b, n, C]`` of maps ``[*b, n, L, E]``; ``free [*b, n, N]`` are the rows that count for each."""
        size = math.prod(bank.shape[:-1]) * local.shape[-2]
        parts = []
        for at in range(0, local.shape[-3], max(1, BLOCK // size)):
            part = slice(at, at + max(1, BLOCK // size))
            allowed = None if free is None else free[..., part, :]
            parts.append(self._found_part(local[..., part, :, :], bank, label, allowed))
        return torch.cat(parts, -2)

    def _found_part(self, local: Tensor, bank: Tensor, label: Tensor, free: Tensor | None) -> Tensor:
        total = None
        dilations = fitting(local.shape[-2], self.window, self.dilations)
        for dilation in dilations:
            seen, known = (local_windows(maps, self.window, dilation) for maps in (local, bank))
            n, p, rows, e = seen.shape[-3], seen.shape[-2], known.shape[-3], seen.shape[-1]
            best = seen.reshape(*seen.shape[:-3], n * p, e) @ known.reshape(*known.shape[:-3], rows * p, e).mT
            best = best.reshape(*best.shape[:-2], n, p, rows, p).amax(-1)  # each region's best in each example
            if free is not None:
                best = best.masked_fill(~free[..., :, None, :], -1.0)
            scores = closest(best.flatten(-3, -2), label).reshape(*best.shape[:-1], label.shape[-1]).mean(-2)
            total = scores if total is None else total + scores
        assert total is not None
        return total / len(dilations)

    def _left_out(self, task: Task, state: State) -> Tensor:
        free = others(torch.ones_like(task.y @ task.y.mT), task) > 0
        return self._found(state["local"], state["local"], task.y, free)

    def _strengths(self, task: Task, state: State) -> list[Tensor]:
        pairs = (BETA, self.beta), (ETA, self.eta), (ALPHA, self.alpha)
        betas, etas, alphas = tried = [strength.tried(value) for strength, value in pairs]
        start = [strength.given(value) for strength, value in pairs]
        if max(map(len, tried)) == 1:
            beta, eta, alpha = search((), task, tried, start)
            return [alpha, beta, eta]
        keys, y = state["keys"], task.y
        axes = [1] * y.dim()
        heard = self._heard(self._left_out(task, state))
        first = prior_logits(task.offset) + keys.new_tensor(etas).reshape(-1, 1, *axes) * heard
        steps = keys.new_tensor(alphas).reshape(1, -1, *axes)
        sets = ((first + steps * (others(rbf(keys, keys, beta), task) @ y)).flatten(0, 1) for beta in betas)
        beta, eta, alpha = search(sets, task, tried, start)
        return [alpha, beta, eta]


def local_windows(local: Tensor, window: int, dilation: int) -> Tensor:
    """All windows of square maps ``[…, L, E]``, flat and unit: ``[…, positions, window^2 E]``."""
    side = math.isqrt(local.shape[-2])
    at = torch.arange(side - (window - 1) * dilation, device=local.device)
    offset = dilation * torch.arange(window, device=local.device)
    rows = at[:, None] + offset  # [positions, window] along one side
    places = (rows[:, None, :, None] * side + rows[None, :, None, :]).reshape(len(at) ** 2, window**2)
    return unit(local[..., places, :].flatten(-2))


def fitting(places: int, window: int, dilations: Sequence[int] | None) -> list[int]:
    """The dilations whose windows fit into a square map.

    Raises:
        BadInput: a map that is no square, dilations that are no whole numbers from 1, a window that does not fit, or
            none that does.
    """
    side = math.isqrt(places)
    if side * side != places:
        raise BadInput(f"local features must be a square map of places, not {places} of them")
    count("window", window, 1)
    given = DILATIONS if dilations is None else several("dilations", dilations, WHOLE)
    given = [count("dilations", d, 1) for d in given]
    fits = [d for d in given if 1 + (window - 1) * d <= side]
    if not given:
        raise BadInput(f"dilations is {WHOLE}, not an empty one")
    if not fits or (dilations is not None and len(fits) < len(given)):
        far = 1 if dilations is None else max(given)
        raise BadInput(f"windows of {window} places, {far} apart, do not fit into {side} x {side}")
    return fits
