"""Linear maps as products of two narrow ones: W ~ U V, from the singular value decomposition.

W = U S V^T   ->   first  sqrt(S_k) V_k^T  [k, in], no bias;   second  U_k sqrt(S_k)  [out, k], with the old bias
k = in out // (ratio (in + out)),  so that both together have 1 / ratio of the numbers
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from handful.errors import BadInput
from handful.tune.sites import is_linear, map_of

OMIT = ("norm", "head", "patch_embed", "downsample")
"""What the authors leave as it is in vision transformers: parts of the names of modules."""


class Factored(nn.Sequential):
    """Two linear maps in place of one; `weight` is their product.

    Args:
        first: ``[k, in]``, without bias.
        second: ``[out, k]``.
    """

    def __init__(self, first: nn.Linear, second: nn.Linear) -> None:
        super().__init__(first, second)

    @property
    def factors(self) -> tuple[Tensor, Tensor]:
        """U ``[out, k]`` and V ``[k, in]``, as they are now."""
        first, second = self
        return cast(nn.Linear, second).weight, cast(nn.Linear, first).weight

    @property
    def weight(self) -> Tensor:
        """U V ``[out, in]``."""
        u, v = self.factors
        return u @ v

    @property
    def bias(self) -> Tensor | None:
        """``[out]``."""
        return cast(nn.Linear, self[1]).bias


@dataclass(frozen=True)
class Replaced:
    """A map that was replaced: its shape ``(out, in)``, its rank, and the mean square of what is lost of its weight."""

    name: str
    shape: tuple[int, int]
    rank: int
    error: float


@dataclass(frozen=True)
class Replacement:
    """What `low_rank_replace` did.

    Attributes:
        replaced: the maps.
        left: why others stayed, by name; those of ``omit`` are not in it.
        before, after: numbers of the model.
    """

    replaced: tuple[Replaced, ...]
    left: dict[str, str]
    before: int
    after: int


def factors(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """U ``[out, k]`` and V ``[k, in]`` whose product is nearest to ``weight [out, in]``; equal halves of S in both.

    The largest entry of each column of U is positive.
    """
    u, s, v = _svd(weight.detach().float())
    u, s, v = u[:, :rank], s[:rank].sqrt(), v[:rank]
    sign = u.gather(0, u.abs().argmax(0, keepdim=True)).sign()
    return (u * s * sign).to(weight), (s[:, None] * v * sign.mT).to(weight)


def _svd(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U, S, V^T; where the fast way does not converge, the sure one."""
    try:
        u, s, v = torch.linalg.svd(weight, full_matrices=False)
    except RuntimeError:  # torch.linalg.LinAlgError is one
        from scipy.linalg import svd

        parts = svd(weight.cpu().numpy(), full_matrices=False, lapack_driver="gesvd")
        u, s, v = (torch.as_tensor(part).to(weight) for part in parts)
    return u, s, v


def rank_of(weight: Tensor, ratio: float | None, rank: int | None, energy: float | None) -> int:
    """k for a weight ``[out, in]``, by whichever of the three is given; see `low_rank_replace`."""
    out, into = weight.shape
    if rank is not None:
        return min(rank, out, into)
    if energy is not None:
        squares = _svd(weight.detach().float())[1].square().cumsum(0)
        return min(int((squares < energy * squares[-1]).sum()) + 1, len(squares))
    assert ratio is not None
    return int((into * out) // (ratio * (into + out)))


def low_rank_replace(
    model: nn.Module,
    ratio: float | None = None,
    *,
    rank: int | None = None,
    energy: float | None = None,
    omit: Sequence[str] = OMIT,
    least_out: int = 10,
    approximate: bool = True,
) -> Replacement:
    """Replace the linear maps of ``model`` by `Factored` ones, in place.

    Args:
        model: of any kind; what is no `nn.Linear` (or GPT-2's ``Conv1D``) that is called stays.
        ratio: how many times fewer numbers a map has afterwards, 2 where nothing else is given; or
        rank: k of every map, at most its own; or
        energy: the share of its squared singular values that is kept.
        omit: parts of names that are left out.
        least_out: maps with fewer outputs stay, such as heads.
        approximate: whether the factors are those of the weight; else they begin at random, to read a file into.

    Raises:
        BadInput: more than one of ``ratio``, ``rank`` and ``energy``; one makes no sense; a weight is tied to another,
            quantised, or holds what is no number; nothing was replaced.
    """
    asked = [value for value in (ratio, rank, energy) if value is not None]
    if len(asked) > 1:
        raise BadInput("give one of ratio, rank and energy")
    if isinstance(omit, str):
        raise BadInput(f"omit is a list of parts of names, not {omit!r}: give [{omit!r}]")
    ratio = 2.0 if not asked else ratio
    if (ratio is not None and not ratio > 0) or (rank is not None and rank < 1):
        raise BadInput(f"ratio is above 0, and rank at least 1: {ratio or rank}")
    if energy is not None and not (0 < energy <= 1 and approximate):
        raise BadInput(f"energy is a share above 0, at most 1, of a weight that is approximated, not {energy}")
    before, left = _count(model), dict(_unreachable(model))
    made: list[Replaced] = []
    chosen = _chosen(model, omit)
    for name, module in chosen:  # all before the first is replaced: a model that is refused stays as it was
        _check(model, name, map_of(module)[0])
    for name, module in chosen:
        weight, bias = map_of(module)
        k, (out, into) = rank_of(weight, ratio, rank, energy), weight.shape
        if out < least_out:
            left[name] = f"it has {out} outputs, fewer than {least_out}"
        elif k < 1 or (rank is None and k * (out + into) >= out * into):
            left[name] = "it is too small" if k < 1 else f"two maps of rank {k} would be no smaller"
        else:
            new = _factored(weight, bias, k, approximate)
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, new.train(module.training))
            made.append(Replaced(name, (out, into), k, float((new.weight - weight).detach().square().mean())))
    if not made:
        twice = {
            name: "it is two maps already" for name, module in model.named_modules() if isinstance(module, Factored)
        }
        why = next(iter((left | twice).items()), None)
        raise BadInput(f"no linear map of the model was replaced{'; ' + ': '.join(why) if why else ''}")
    return Replacement(tuple(made), left, before, _count(model))


def merge_factors(model: nn.Module) -> nn.Module:
    """``model`` with every `Factored` map multiplied out to one again, in place."""
    for name, module in list(model.named_modules()):
        if isinstance(module, Factored):
            out, into = module.weight.shape
            whole = nn.Linear(into, out, bias=module.bias is not None)
            with torch.no_grad():
                whole.to(module.weight).weight.copy_(module.weight)
                if module.bias is not None:
                    whole.bias.copy_(module.bias)
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, whole.train(module.training))
    return model


def _factored(weight: Tensor, bias: Tensor | None, rank: int, approximate: bool) -> Factored:
    out, into = weight.shape
    made = Factored(nn.Linear(into, rank, bias=False), nn.Linear(rank, out, bias=bias is not None)).to(weight)
    with torch.no_grad():
        if approximate:
            for mine, given in zip(made.factors, factors(weight, rank), strict=True):
                mine.copy_(given)
        if bias is not None and made.bias is not None:
            made.bias.copy_(bias)
    return made


def _chosen(model: nn.Module, omit: Sequence[str]) -> list[tuple[str, nn.Module]]:
    inside = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, Factored))
    return [
        (name, module)
        for name, module in model.named_modules()
        if name and is_linear(module) and not any(part in name for part in omit) and not name.startswith(inside or "\0")
    ]


def _unreachable(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Linear maps that are parameters of something else, which no replacement of modules reaches."""
    for name, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            yield name, "its maps are parameters of a fused attention; take it apart with handful.tune.split_attention"


def _check(model: nn.Module, name: str, weight: Tensor) -> None:
    module = model.get_submodule(name)
    same = [n for n, p in model.named_parameters(remove_duplicate=False) if p is module.weight]
    if len(same) > 1:
        raise BadInput(f"{' and '.join(same)} are one weight (tied); leave it out with omit=")
    if not weight.is_floating_point():
        raise BadInput(f"{name}.weight is {weight.dtype}, a quantised weight; dequantise it first")
    if not bool(torch.isfinite(weight).all()):
        raise BadInput(f"{name}.weight holds NaN or infinity")


def _count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
