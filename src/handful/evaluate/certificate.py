"""Certificates over many episodes: how often they say something, and whether they hold.

Paper 005: Rezk, Lee, Gouk, Hospedales, Kim, "Model Diffusion for Certifiable Few-shot Transfer Learning", 2025. Of each
episode: the error on the support, the certificate, the error on items held out, and the gap of the latter two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from handful.core.certificate import Certificate as Certificate
from handful.core.certificate import risk_certificate as risk_certificate
from handful.errors import BadInput


@dataclass(frozen=True)
class CertifiedEpisodes:
    """Means over episodes.

    Attributes:
        episodes: how many.
        support: error on the support.
        certificate: what is certified.
        held_out: error on items held out.
        gap: certificate less held-out error.
        non_vacuous: share of the episodes whose certificate is below 1.
        better_than_chance: share of those whose certificate is below the error of guessing.
        violated: share of those whose held-out error is above the certificate. It may exceed delta by chance, and
            because the held-out error is itself measured.
    """

    episodes: int
    support: float
    certificate: float
    held_out: float
    gap: float
    non_vacuous: float
    better_than_chance: float
    violated: float

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def certified_episodes(certificates: Sequence[Certificate], held_out: Any) -> CertifiedEpisodes:
    """Put the certificates of episodes beside errors on items held out.

    Args:
        certificates: one an episode.
        held_out: error on other items, ``[E]``, from 0 to 1.

    Raises:
        BadInput: no episodes, another number of errors, errors outside 0 to 1.
    """
    errors = np.asarray(held_out, dtype=np.float64)
    if not len(certificates) or errors.shape != (len(certificates),):
        raise BadInput(f"{len(certificates)} certificates and held-out errors of shape {errors.shape}: one each")
    if not ((errors >= 0) & (errors <= 1)).all():
        raise BadInput("held-out errors are shares from 0 to 1")
    risk = np.asarray([c.risk for c in certificates])
    return CertifiedEpisodes(
        len(certificates),
        float(np.mean([c.errors / c.n for c in certificates])),
        float(risk.mean()),
        float(errors.mean()),
        float((risk - errors).mean()),
        float(np.mean([not c.vacuous for c in certificates])),
        float(np.mean([not c.worse_than_chance for c in certificates])),
        float((errors > risk).mean()),
    )
