"""Make a model, or what it learnt, smaller, and say what that costs; more is planned, see papers.toml."""

from __future__ import annotations

from handful.compress.compeft import balanced, choose, compose, compress, merged, task_vector, with_vector
from handful.compress.delta_file import load_compressed, save_compressed
from handful.compress.lowrank import low_rank_replace, merge_factors
from handful.compress.pela import PELA
from handful.compress.ternary import Masks, Ternary

__all__ = [
    "PELA",
    "Masks",
    "Ternary",
    "balanced",
    "choose",
    "compose",
    "compress",
    "load_compressed",
    "low_rank_replace",
    "merge_factors",
    "merged",
    "save_compressed",
    "task_vector",
    "with_vector",
]
