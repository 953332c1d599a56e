"""How long each stage of a command took, and what is left of its time."""

from __future__ import annotations

import math
import time

from handful.errors import BadInput


class Clock:
    """Seconds of each stage, and how many are left."""

    def __init__(self, limit: float | None) -> None:
        if limit is not None and not limit > 0:
            raise BadInput(f"--time-limit must be above 0 seconds, not {limit}")
        self._start = self._last = time.monotonic()
        self._limit = math.inf if limit is None else limit
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name], self._last = now - self._last, now

    def left(self) -> float:
        return self._start + self._limit - time.monotonic()
