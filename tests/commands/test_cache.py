"""`cache` looks at the kept features and removes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from handful.commands.cache import cache
from handful.encode import encoder
from handful.errors import BadInput


def test_info_and_clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path / "cache"))
    encoder("minilm").encode(["some text", "another"])
    info = cache("info")
    assert str(tmp_path) in info["path"]
    assert info["rows"] == 2
    assert 0 < info["bytes"] <= info["limit"]
    assert cache("clear")["freed"] > 0
    assert cache("info")["rows"] == 0


def test_unknown_action() -> None:
    with pytest.raises(BadInput, match="'clear'"):
        cache("clera")  # type: ignore[arg-type]
