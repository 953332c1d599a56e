"""Choose what to learn from: so far, which task to train on first; scoring examples is planned, see papers.toml."""

from __future__ import annotations

from handful.curate.select_source import (
    by_chance,
    by_few_shots,
    by_proxy,
    by_size,
    by_task_embedding,
    by_vector,
    few_shot_embedding,
    fused,
    of_kind_first,
)
from handful.curate.task_vectors import TaskEmb, text_vector
from handful.curate.transfer import Source, Transfer, brought, ndcg, regret, train_source, transfer

__all__ = [
    "Source",
    "TaskEmb",
    "Transfer",
    "brought",
    "by_chance",
    "by_few_shots",
    "by_proxy",
    "by_size",
    "by_task_embedding",
    "by_vector",
    "few_shot_embedding",
    "fused",
    "ndcg",
    "of_kind_first",
    "regret",
    "text_vector",
    "train_source",
    "transfer",
]
