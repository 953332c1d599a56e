"""The same source, options and seed are the same model, byte for byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from handful.commands.fit import fit

from .conftest import TEXTS, Learn, write_tickets


@pytest.mark.parametrize("threads", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_in_processes_that_hash_differently(threads: str, tmp_path: Path, learn: Learn) -> None:
    """Another order of sets, a cold and a warm cache; the number of threads may move the last bits."""
    source = write_tickets(tmp_path / "t.csv", copies=4)
    models = []
    for i, (hashing, cache) in enumerate([("0", "a"), ("1", "b"), ("random", "a")]):
        out = tmp_path / f"{i}.handful"
        how = {"PYTHONHASHSEED": hashing, "OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE"}
        process = learn(source, out, cache=tmp_path / cache, head="prototypes", **how)
        assert process.communicate()[1] == ""
        models.append(out.read_bytes())
    assert [model == models[0] for model in models] == [True] * 3


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache for this test."""
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path / "cache"))


def test_with_and_without_a_cache(tmp_path: Path, own_cache: None) -> None:
    source = write_tickets(tmp_path / "t.csv")
    fit(source, out=tmp_path / "cold.handful")
    fit(source, out=tmp_path / "warm.handful")
    fit(source, out=tmp_path / "none.handful", cache=False)
    cold, warm, none = ((tmp_path / f"{name}.handful").read_bytes() for name in ("cold", "warm", "none"))
    assert (warm == cold, none == cold) == (True, True)


def test_whatever_else_the_cache_holds(tmp_path: Path, own_cache: None) -> None:
    """Half of the texts are there from a run on other texts. They were worked out beside others, which moves the last
    digits of reduced arithmetic, and no answer."""
    source = write_tickets(tmp_path / "t.csv", copies=4)
    alone = fit(source, cache=False)
    fit(write_tickets(tmp_path / "half.csv", copies=2))
    mixed = fit(source)
    asked = [f"{text}?" for some in TEXTS.values() for text in some]
    assert mixed.predict(asked) == alone.predict(asked)
    np.testing.assert_allclose(mixed.predict_proba(asked), alone.predict_proba(asked), atol=0.01)


@pytest.mark.parametrize("head", ["prototypes", "gda", "logistic", "tip-adapter-f", "proker"])
def test_of_every_kind_of_head(head: str, tmp_path: Path) -> None:
    source = write_tickets(tmp_path / "t.csv")
    for name in ("a", "b"):
        fit(source, head=head, seed=3, out=tmp_path / f"{name}.handful")
    assert (tmp_path / "a.handful").read_bytes() == (tmp_path / "b.handful").read_bytes()
