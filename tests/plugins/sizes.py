"""Parameters with which heads that take long are small enough for tests that go through every head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SMALL: Mapping[str, Mapping[str, Any]] = {
    "ape-t": {"epochs": 5},
    "amu-tuning": {"epochs": 5},
    "lp++": {"epochs": 20},
    "proto-clip-f": {"epochs": 3},
    "real": {"iterations": 60},
    "label-description": {"steps": 20},
    "lfa": {"n_iter": 5},
    "lfa-unsupervised": {"n_iter": 3, "rounds": 2},
    "prolip": {"epochs": 10},
    "prolip-tip-adapter-f": {"epochs": 10},
    "linear-adapter": {"epochs": 10},
    "multi-modal-adapter": {"epochs": 3, "inner": 8, "heads": 2},
    "laso": {"epochs": 3, "hidden": 8, "pairs": 0.1},
    "vdt": {"epochs": 2, "batch_size": 4, "lr": 0.05},
    "putm": {"n_outer": 2, "inner_steps": 2, "hidden": 8},
    "devise": {"epochs": 5},
    "ale": {"epochs": 5},
    "sje": {"epochs": 5},
    "latem": {"epochs": 5, "lr": 0.03, "n_matrices": 3, "prune_every": 2},
    "sse": {"steps": 60, "lr": 0.1},
    "cmt": {"steps": 60, "hidden": 10},
    "zero-shot-prototypes": {"width": 6, "episodes": 20, "lr": 0.1},
    "private-logistic": {"epsilon": None, "noise": "seeded", "epochs": 50, "lr": 0.03, "max_grad_norm": 100.0},
    "private-search": {
        "epsilon": None,
        "noise": "seeded",
        "trials": 3,
        "epochs": (40, 50),
        "lr": (0.02, 0.03),
        "max_grad_norm": (100.0, 100.0),
    },
    "steel": {"hypotheses_independent": True},
    "tim-gd": {"n_steps": 20},
    "gpam": {"steps": 10},
    "tim-adm": {"n_steps": 20},
    "limit-fscil": {"epochs": 2, "tasks": 2},
    "mamba-fscil": {"slots": 6, "width": 8, "states": 3, "rank": 2, "epochs": 3, "grow_steps": 4, "grow_lr": 0.02},
    "fscil-tricks": {"epochs": 10, "width": 16, "slots": 12, "grow_steps": 3},
    "dafos-net": {"way": 2, "unknown": 0, "episodes": 3, "width": 6},
    "aldc": {"steps": 3, "head_steps": 3, "samples": 5},
}
"""By key of the head."""
SMALL_REJECTERS: Mapping[str, Mapping[str, Any]] = {"dafos-net": {"episodes": 5, "width": 8}}
"""By kind of the rejecter."""
