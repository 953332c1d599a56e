"""How much memory something takes at its peak."""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path

import torch

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Context manager: ``peak`` is the most bytes held inside the block beyond what was held when it began.

    On CUDA, the allocator's peak; on Linux, resident memory (the kernel's high-water mark, reset first). Elsewhere
    ``None``: what other systems report never comes down again and cannot be told apart from earlier work.
    """

    def __init__(self, device: str = "cpu") -> None:
        self._cuda = torch.device(device) if torch.device(device).type == "cuda" else None
        self._start: int | None = None
        self.peak: int | None = None

    @property
    def what(self) -> str | None:
        """What ``peak`` counts, in words."""
        if self.peak is None:
            return None
        return "peak CUDA memory" if self._cuda else "peak resident memory above the start"

    def __enter__(self) -> PeakMemory:
        if self._cuda:
            torch.cuda.reset_peak_memory_stats(self._cuda)
            self._start = torch.cuda.memory_allocated(self._cuda)
        else:
            self._start = _reset_high_water()
        return self

    def __exit__(self, *error: object) -> None:
        if self._start is None:
            return
        now = torch.cuda.max_memory_allocated(self._cuda) if self._cuda else _resident("VmHWM")
        self.peak = None if now is None else max(0, now - self._start)


def _reset_high_water() -> int | None:
    with contextlib.suppress(OSError, AttributeError, TypeError):  # pages glibc keeps would be used again unseen
        ctypes.CDLL(None).malloc_trim(0)
    try:
        RESET.write_text("5", encoding="ascii")
    except OSError:
        return None
    return _resident("VmRSS")


def _resident(field: str) -> int | None:
    try:
        lines = STATUS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    found = next((line for line in lines if line.startswith(f"{field}:")), None)
    return None if found is None else 1024 * int(found.split()[1])
