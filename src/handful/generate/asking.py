"""Asking a language model about many things at once, and reading the lists it answers with."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from handful.errors import BadInput

Ask = Callable[[Sequence[str]], Sequence[str]]
"""What a language model says to each of some prompts, such as `handful.encode.say` with a model."""
_BULLET = re.compile(r"^(?:[-*•]+|\(?(?:\d+|[a-z])[.)])\s+")


def answers(ask: Ask, prompts: Sequence[str]) -> list[str]:
    """One answer to each prompt. Raises `BadInput` for another number of them."""
    said = [str(answer) for answer in ask(prompts)]
    if len(said) != len(prompts):
        raise BadInput(f"ask gave {len(said)} answers to {len(prompts)} prompts: it must give one to each")
    return said


def listed(said: str) -> list[str]:
    """What a list names, in its order and once each, without bullets, numbers and what explains it."""
    parts = (_BULLET.sub("", part.strip()).partition(":")[0] for part in re.split(r"[\n,;]", said))
    return list(dict.fromkeys(part.strip(" .").lower() for part in parts if part.strip(" .")))
