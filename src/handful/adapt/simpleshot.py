"""SimpleShot: centre by base classes, unit length, nearest class mean.

Wang, Chao, Weinberger, van der Maaten, "SimpleShot: Revisiting Nearest-Neighbor Classification for Few-Shot Learning",
2019.

    CL2N    z = unit(x - m),  m the mean of the base classes' items (``background``)
    L2N     z = unit(x)
    UN      z = x
    logit_k(q) = -|z_q - c_k|^2,  c_k the mean of the support of class k, not made unit again

easyfsl 1.5 takes the cosine of x and c_k and nothing else: ``SimpleShot(norm="UN", metric="cosine")``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, NoReturn

from torch import Tensor

from handful.adapt.parameters import one_of
from handful.adapt.prototypes import Prototypes
from handful.core.distances import unit
from handful.core.task import Query, State, Task
from handful.errors import BadInput
from handful.protocols import Needs, Ranges

Norm = Literal["CL2N", "L2N", "UN"]


def origin(task: Task, norm: Norm) -> Tensor:
    """What CL2N subtracts ``[*b, D]``: the mean of the background, and zero where there is none or none is asked for.

    Raises:
        BadInput: no such norm.
    """
    one_of("norm", norm, ("CL2N", "L2N", "UN"))
    zero = task.support.new_zeros(task.support.shape[-1])
    mean = zero if norm != "CL2N" or task.background is None else task.background.mean
    return mean.expand(*task.support.shape[:-2], -1)


def normed(x: Tensor, origin: Tensor, norm: Norm) -> Tensor:
    """Rows ``x [*b, n, D]`` after ``norm``."""
    if norm == "UN":
        return x
    return unit(x - origin[..., None, :] if norm == "CL2N" else x)


@dataclass(eq=False, repr=False, kw_only=True)
class SimpleShot(Prototypes):
    """Nearest class mean of centred features of unit length.

    Args:
        norm: ``"CL2N"`` subtracts the mean of ``background`` first; without one it is ``"L2N"``.
        metric: ``"sqeuclidean"``, or ``"cosine"`` as easyfsl has it.
    """

    key: ClassVar[str] = "simpleshot"
    needs: ClassVar[Needs] = Needs()
    shapes: ClassVar[Mapping[str, str]] = {"mean": "C D", "mass": "C", "origin": "D"}
    ranges: ClassVar[Ranges] = {"metric": ("sqeuclidean", "cosine"), "norm": ("CL2N", "L2N", "UN")}

    norm: Norm = "CL2N"

    @property
    def directions(self) -> bool:
        """Lengths count only where rows are left as they are, or moved first."""
        return self.metric == "cosine" or self.norm != "UN"

    def adapt(self, task: Task) -> State:
        """State: ``mean [*b, C, D]``, ``mass [*b, C]``, ``origin [*b, D]``."""
        at = origin(task, self.norm)
        return {**Prototypes.adapt(self, task.map(lambda x: normed(x, at, self.norm))), "origin": at}

    def answer(self, state: State, query: Query) -> Tensor:
        """See `Prototypes.answer`."""
        return Prototypes.answer(self, state, replace(query, x=normed(query.x, state["origin"], self.norm)))

    def leave_one_out(self, task: Task) -> Tensor | None:
        """See `Prototypes.leave_one_out`."""
        at = origin(task, self.norm)
        return Prototypes.leave_one_out(self, task.map(lambda x: normed(x, at, self.norm)))

    def linear(self) -> NoReturn:
        """Raises `BadInput`: unit length is not linear."""
        raise BadInput("SimpleShot makes queries unit first and has no linear form; take head('prototypes')")

    def extend(self, state: State, task: Task, fresh: Tensor) -> State:
        """See `Prototypes.extend`."""
        moved = task.map(lambda x: normed(x, state["origin"], self.norm))
        return Prototypes.extend(self, state, moved, fresh)
