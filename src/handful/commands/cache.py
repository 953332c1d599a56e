"""`handful cache`: the features kept on this machine."""

from __future__ import annotations

from typing import Any, Literal, get_args

from handful.errors import BadInput, nearest

Action = Literal["info", "clear"]


def cache(action: Action) -> dict[str, Any]:
    """Look at the feature cache, or empty it.

    Args:
        action: ``"info"``: ``path``, ``bytes`` on disk, ``limit`` in bytes, ``rows``, and ``problem`` when it cannot be
            read. ``"clear"``: remove all features; ``path`` and the bytes ``freed``.

    Raises:
        BadInput: there is no such action, or a file cannot be removed.
    """
    if action not in get_args(Action):
        raise BadInput(f"cannot do {action!r} with the cache{nearest(action, get_args(Action))}")
    from handful.encode.cache import cache_info, clear_cache

    if action == "info":
        return dict(cache_info())
    path = cache_info()["path"]
    return {"path": path, "freed": clear_cache()}
