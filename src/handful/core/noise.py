"""Random numbers made of bytes: those of the operating system for privacy, those of a seed for studies.

A uniform number is (k + 1/2) / 2^53 for the upper 53 bits k of eight bytes. A normal one is half the sum of four made
of them by Box and Muller. They are numbers of double precision and not of the continuum that proofs speak of: what a
single one gives away by its last bits (Mironov 2012) the sum of four hides (Holohan and Braghin 2021: the effort of
recovering them grows as 2^53 to the third power), which is what Opacus does in its secure mode. It is no proof.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

SUMMED = 4


@dataclass(frozen=True)
class Source:
    """Numbers out of ``take(n)``, n bytes that nobody can foresee, or that a seed repeats."""

    take: Callable[[int], bytes]

    @classmethod
    def system(cls) -> Source:
        """The generator of the operating system."""
        return cls(os.urandom)

    @classmethod
    def seeded(cls, seed: int) -> Source:
        """The same numbers each time: whoever knows the seed takes the noise off again."""
        return cls(np.random.default_rng(seed).bytes)

    def uniform(self, *shape: int) -> Tensor:
        """Above 0 and below 1, double precision."""
        bits = np.frombuffer(self.take(8 * math.prod(shape)), dtype="<u8")
        return torch.from_numpy(((bits >> np.uint64(11)) + 0.5) * 2.0**-53).reshape(shape)

    def normal(self, *shape: int) -> Tensor:
        """Of mean 0 and variance 1, double precision."""
        n = math.prod(shape)
        u = self.uniform(2, SUMMED, (n + 1) // 2)
        radius, angle = (-2 * u[0].log()).sqrt(), 2 * math.pi * u[1]
        both = torch.stack([radius * angle.cos(), radius * angle.sin()]).sum(1) / math.sqrt(SUMMED)
        return both.reshape(-1)[:n].reshape(shape)
