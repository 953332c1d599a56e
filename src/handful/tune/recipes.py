"""Recipes by key: what ``--recipe KEY`` and ``--tune KEY`` take."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from handful.errors import BadInput, nearest
from handful.tune.recipe import Recipe

RECIPES: Mapping[str, str] = {
    "anchored": "handful.tune.anchored:Anchored",
    "bitfit": "handful.tune.plain:BitFit",
    "clip-lora": "handful.tune.clip_lora:CLIPLoRA",
    "fastfit": "handful.tune.late:FastFit",
    "film": "handful.tune.plain:FiLM",
    "full": "handful.tune.plain:Full",
    "hierverb": "handful.tune.asked_levels:AskedHierVerb",
    "in-context": "handful.tune.asked:AskedInContext",
    "lm-bff": "handful.tune.asked:AskedLMBFF",
    "lora": "handful.tune.plain:Lora",
    "lora-sb": "handful.tune.lora_sb:LoRASB",
    "lorma": "handful.tune.lorma:LoRMARecipe",
    "perfect": "handful.tune.asked:AskedPerfect",
    "prolip": "handful.tune.prolip:ProLIP",
    "setfit": "handful.tune.setfit:SetFit",
    "setfit-gradient": "handful.tune.setfit_head:SetFitGradient",
    "stable": "handful.tune.stable:Stable",
    "t-few": "handful.tune.asked:AskedTFew",
    "taps": "handful.tune.taps:TAPS",
}
"""Where the recipe of each key is; a dataclass of its settings with a method ``recipe()``."""


_NEXT = re.compile(r",(?=\s*\w+\s*=)|,\s*$")
"""Between two settings: a comma that no setting follows belongs to the value before it."""


def list_recipes() -> list[dict[str, Any]]:
    """A row a recipe: ``key, summary, settings``, the last with their defaults."""
    rows = []
    for key in RECIPES:
        kind = _kind(key)
        summary = (kind.__doc__ or "").strip().split("\n")[0]
        settings = {f.name: list(f.default) if isinstance(f.default, tuple) else f.default for f in fields(kind)}
        rows.append({"key": key, "summary": summary, "settings": settings})
    return rows


def asks(key: str) -> bool:
    """Whether a recipe asks a language model, so that it takes one and none of the other encoders."""
    return getattr(_kind(_named(key)[0]), "asks", False)


def typed(settings: Mapping[str, Any]) -> list[str]:
    """``name=value`` of each setting, as it is typed; text that would not be seen in quotes."""

    def one(value: Any) -> str:
        if isinstance(value, list):
            return "+".join(map(str, value))
        return str(value) if not isinstance(value, str) or (value and value.isprintable()) else repr(value)

    return [f"{name}={one(value)}" for name, value in settings.items()]


def _named(key: object) -> tuple[str, str]:
    """The key of a recipe, and the settings behind its colon as they are typed."""
    if not isinstance(key, str):
        raise BadInput(f"a recipe is named by its key, such as 'lora' or 'lora:rank=4', not {str(key)[:60]!r}")
    name, _, written = key.partition(":")
    return name, written


def _kind(key: str) -> Any:
    if key not in RECIPES:
        raise BadInput(f"there is no recipe {key!r}{nearest(key, RECIPES)}")
    module, _, name = RECIPES[key].partition(":")
    return getattr(importlib.import_module(module), name)


def _read(key: str, written: str, hints: Mapping[str, Any]) -> dict[str, object]:
    """Settings as they are typed, each of the type that it is declared with."""
    found: dict[str, object] = {}
    for part in filter(None, _NEXT.split(written)):
        name, equals, value = part.partition("=")
        name = name.strip()
        if not equals:
            raise BadInput(f"recipe {key!r}: {name!r} has no value; a setting is typed name=value")
        kinds = _kinds(hints.get(name, str))
        try:
            found[name] = _plain(value, kinds)
        except ValueError as error:
            wanted = next(what for kind, what in _TYPED.items() if kind in kinds)
            raise BadInput(f"recipe {key!r}: {name}={value!r} is not {wanted}") from error
    return found


_TYPED = {bool: "true or false", float: "a number", int: "a whole number", tuple: "a list", str: "text"}


def _kinds(hint: Any) -> tuple[Any, ...]:
    """The types that a setting may have: of a choice of words text, of a union each."""
    if get_origin(hint) is Literal:
        return (str,)
    if get_origin(hint) in (Union, UnionType):
        return tuple(kind for one in get_args(hint) for kind in _kinds(one))
    return (get_origin(hint) or hint,)


def _plain(value: str, kinds: tuple[Any, ...]) -> object:
    """What is typed, as the first of these types that it can be. Raises `ValueError` where it can be none."""
    word = value.strip().lower()
    if type(None) in kinds and word == "none":
        return None
    if bool in kinds and word in ("true", "false"):
        return word == "true"
    if tuple in kinds:
        return tuple(value.split("+"))
    for kind in (int, float):
        if kind in kinds:
            with suppress(ValueError):
                return kind(value)
    if str in kinds:
        return value
    raise ValueError(value)


def _given(key: str, name: str, value: object, hint: Any) -> object:
    """A setting as it is given in Python, of the type that it is declared with."""
    kinds = _kinds(hint)
    if tuple in kinds and isinstance(value, list):
        return tuple(value)
    if int in kinds and isinstance(value, float) and value.is_integer():
        return int(value)
    number = isinstance(value, int) and not isinstance(value, bool) and float in kinds
    if not number and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
        wanted = next((what for kind, what in _TYPED.items() if kind in kinds), "what it takes")
        raise BadInput(f"recipe {key!r}: {name}={value!r} is not {wanted}")
    return value


def recipe(key: str, **settings: object) -> Recipe:
    """The recipe of that key.

    Args:
        key: one of `RECIPES`, with settings behind a colon if some differ: ``"lora:rank=4,lr=5e-4"``.
        settings: the same, in Python.

    Raises:
        BadInput: no such recipe or setting, or a setting that makes no sense.
    """
    key, written = _named(key)
    kind = _kind(key)
    hints = get_type_hints(kind)
    typed = _read(key, written, hints)
    known = [f.name for f in fields(kind)]
    for name in (*settings, *typed):
        if name not in known:
            raise BadInput(f"recipe {key!r} has no setting {name!r}{nearest(name, known)}")
        if name in settings and name in typed:
            raise BadInput(f"recipe {key!r}: {name} is given twice, as {settings[name]!r} and {typed[name]!r}")
    own = {name: _given(key, name, value, hints[name]) for name, value in settings.items()}
    made: Recipe = kind(**own, **typed).recipe()
    return made
