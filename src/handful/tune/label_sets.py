"""Recipes for items with several labels, or none: each label is learnt against its absence.

    - sum_c t_c log softmax(z)_c    becomes    - mean_c t_c log sigmoid(z_c) + (1 - t_c) log sigmoid(-z_c)

A recipe can do that whose objectives know such a form and whose readout gives each label a logit of its own. Those that
contrast items cannot: two items that share one of several labels are neither alike nor unlike. Nor can those that
compare an item with class texts: of such similarities the largest wins, and none of them says no.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol, runtime_checkable

from handful.errors import BadInput
from handful.tune.fillers import CrossEntropy
from handful.tune.recipe import Objective, Recipe
from handful.tune.recipes import RECIPES, recipe


@runtime_checkable
class OfLabels(Protocol):
    """An objective that has a form for items with several labels."""

    def each_label(self) -> Objective:
        """That form; itself, where it looks at no label or at each by itself."""
        ...


def for_label_sets(key: str) -> Recipe:
    """The recipe of that key (`handful.tune.recipes.recipe`), learning each label by itself.

    Raises:
        BadInput: no such recipe; it learns which one class an item is of. Those that can are named.
    """
    made = recipe(key)
    found = _of_labels(made)
    if found is None:
        able = [one for one in (*RECIPES, "lora:learns=classes") if _of_labels(recipe(one)) is not None]
        name = key.partition(":")[0]
        raise BadInput(
            f"recipe {name!r} learns which one class an item is of; those for several labels an item: {', '.join(able)}"
        )
    return found


def _of_labels(made: Recipe) -> Recipe | None:
    """The recipe with the forms of its objectives, or ``None`` where it cannot learn labels."""
    if made.readout is None or not made.readout().independent:
        return None
    if not made.objectives and not all(stage.objectives for stage in made.stages):
        made = replace(made, objectives=(CrossEntropy(),))  # what an empty slot stands for
    objectives, stages = _each(made.objectives), []
    for stage in made.stages:
        own = _each(stage.objectives)
        if own is None or objectives is None:
            return None
        stages.append(replace(stage, objectives=own))
    return None if objectives is None else replace(made, objectives=objectives, stages=tuple(stages))


def _each(objectives: tuple[Objective, ...]) -> tuple[Objective, ...] | None:
    """The forms of them all, or ``None`` where one has none."""
    if not all(isinstance(one, OfLabels) for one in objectives):
        return None
    return tuple(one.each_label() for one in objectives if isinstance(one, OfLabels))
