"""In which numbers a network is worked out: the ones the machine multiplies fastest, without harm to the features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from handful.errors import BadInput, nearest

if TYPE_CHECKING:
    import torch

Arithmetic = Literal["float32", "bfloat16"]
Precision = Literal["auto", "float32", "bfloat16"]


def chosen(precision: Precision, fast: bool = True) -> Arithmetic:
    """What ``precision`` means on this machine.

    ``"auto"`` is bfloat16 where the processor multiplies it natively, else float32. A processor without such
    instructions would emulate bfloat16, slower than float32 and no better.

    Args:
        precision: ``"auto"`` or one of the two.
        fast: whether ``"auto"`` may leave float32 at all.

    Raises:
        BadInput: another word.
    """
    if precision not in get_args(Precision):
        raise BadInput(f"precision is {precision!r}{nearest(str(precision), get_args(Precision))}")
    if precision == "auto":
        return "bfloat16" if fast and _native_bfloat16() else "float32"
    return precision


def dtype(arithmetic: Arithmetic) -> torch.dtype:
    """PyTorch's name for it."""
    import torch

    return torch.bfloat16 if arithmetic == "bfloat16" else torch.float32


def _native_bfloat16() -> bool:
    import torch

    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]  # the library that would use the instructions
        return False
    # These two questions are not in PyTorch's documented interface; where they are missing the answer is "no".
    asks = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return any(bool(ask()) for ask in asks if ask is not None)
