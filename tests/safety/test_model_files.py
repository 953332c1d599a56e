"""A model file opens nothing, imports nothing and asks no one, whatever it says; what is wrong with it is one line."""

from __future__ import annotations

import json
import os
import pickle
import struct
import sys
import sysconfig
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handful.cli import main
from handful.commands.inspect import inspect
from handful.errors import BadInput
from handful.ship.bundle import DESCRIPTION, PARTS, TENSORS, write_bundle
from handful.ship.model import Model

from .conftest import write_tickets

NETWORK = ("socket.", "urllib.", "http.", "ftplib.", "smtplib.")
PROCESSES = ("subprocess.", "os.exec", "os.system", "os.posix_spawn", "os.spawn", "os.fork", "pty.", "ctypes.dlopen")
_seen: list[tuple[str, str]] | None = None


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if _seen is not None and (event == "open" or event.startswith((*NETWORK, *PROCESSES, "os.listdir", "os.scandir"))):
        _seen.append((event, os.fsdecode(args[0]) if args and isinstance(args[0], (str, bytes)) else ""))


sys.addaudithook(_watch)  # there is no way to take one away: it watches only while it is asked to

Watched = Callable[[Callable[[], object]], list[tuple[str, str]]]


@pytest.fixture
def touched() -> Iterator[Watched]:
    """``touched(do)``: what ``do()`` opens, lists, calls or connects to, beside the installed packages."""
    known = {*sysconfig.get_paths().values(), *sys.path, sys.prefix, sys.base_prefix} - {"", os.getcwd()}
    installed = tuple(os.path.realpath(path) for path in known)

    def watch(do: Callable[[], object]) -> list[tuple[str, str]]:
        global _seen
        seen = _seen = []
        try:
            do()
        except BadInput as error:
            assert "\n" not in str(error)
        finally:
            _seen = None
        return [(e, path) for e, path in seen if not os.path.realpath(path).startswith(installed)]

    yield watch


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of texts."""
    from handful.commands.fit import fit

    folder = tmp_path_factory.mktemp("texts")
    fit(write_tickets(folder / "t.csv"), out=folder / "m.handful")
    return folder / "m.handful"


def rewritten(path: Path, to: Path, change: Callable[[dict[str, Any]], object], **extra: bytes) -> Path:
    """A copy of a model file with another description, and other members beside."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    description = json.loads(members[DESCRIPTION])
    change(description)
    with zipfile.ZipFile(to, "w") as archive:
        for name, data in {**members, DESCRIPTION: json.dumps(description).encode(), **extra}.items():
            archive.writestr(name, data)
    return to


ELSEWHERE = [
    "hf:some-owner/some-model",
    "hf:some-owner/some-model@main",
    "hf:../../outside",
    "hf:{folder}/model",
    "hf:~/model",
    "hf:\\\\evil.example\\share\\model",
    "hf://evil.example/share",
    "\\\\evil.example\\share",
    "//evil.example/share/model",
    "file:///etc/passwd",
    "https://evil.example/model",
    "{folder}/model",
    "../outside",
    "evil:Encoder",
    "",
    "minilm\0",
    "NUL",
]


@pytest.mark.parametrize("name", ELSEWHERE)
def test_an_encoder_that_a_file_names_is_not_opened(name: str, texts: Path, tmp_path: Path, touched: Watched) -> None:
    """Neither by loading nor by predicting: only who runs the program may name one."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    name = name.replace("{folder}", str(tmp_path))
    path = rewritten(texts, tmp_path / "m.handful", lambda d: d["encoder"].update(name=name))
    Model.load(texts).predict(["warm up"])  # what is imported on the way is imported
    refused: list[bool] = []

    def use() -> None:
        try:
            Model.load(path).predict(["I want my money back"])
        except BadInput:
            refused.append(True)
            raise

    assert {place for _, place in touched(use)} <= {str(path)}
    assert refused
    assert {place for _, place in touched(lambda: inspect(path))} <= {str(path)}


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_on_the_command_line_it_is_one_line(
    command: str, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = rewritten(texts, tmp_path / "m.handful", lambda d: d["encoder"].update(name="hf:some-owner/some-model"))
    source = write_tickets(tmp_path / "t.csv", mark=" today")
    if command == "predict":
        source.write_text("text\nI want my money back\n", encoding="utf-8")
    status = main([command, str(path), str(source)])
    (line,) = capsys.readouterr().err.splitlines()
    assert status == 2
    assert "hf:some-owner/some-model" in line
    assert "--encoder" in line


def test_the_encoder_a_user_names_must_be_the_one_of_the_model(texts: Path, tmp_path: Path) -> None:
    path = rewritten(texts, tmp_path / "m.handful", lambda d: d["encoder"].update(name="hf:some-owner/some-model"))
    assert Model.load(path, encoder="minilm").predict(["I want my money back"]) == ["refund"]
    path = rewritten(texts, path, lambda d: d["encoder"].update(name="hf:x/y", fingerprint="another"))
    with pytest.raises(BadInput, match="another"):
        Model.load(path, encoder="minilm").predict(["I want my money back"])


def test_sources_in_the_card_are_words(texts: Path, tmp_path: Path, touched: Watched) -> None:
    """Paths of the data are told, never opened."""
    secret = tmp_path / "secret.csv"
    secret.write_text("text,label\n", encoding="utf-8")

    def change(description: dict[str, Any]) -> None:
        description["card"]["task"].update(sources=[str(secret), "//evil.example/x"], sha256={str(secret): "0" * 64})

    path = rewritten(texts, tmp_path / "m.handful", change)
    for do in (lambda: Model.load(path), lambda: Model.load(path).predict(["hello"]), lambda: inspect(path)):
        assert not {place for _, place in touched(do) if "secret" in place or "evil" in place}


def test_loading_opens_the_file_and_nothing_else(texts: Path, touched: Watched) -> None:
    Model.load(texts)
    found = touched(lambda: Model.load(texts))
    assert found
    assert {place for _, place in found} == {str(texts)}


@pytest.mark.parametrize(
    "key", ["os:system", "subprocess:Popen", "handful.cli:main", "..gda", "gda\0", "GDA", "__import__"]
)
def test_a_head_that_a_file_names_is_not_imported(key: str, texts: Path, tmp_path: Path, touched: Watched) -> None:
    path = rewritten(texts, tmp_path / "m.handful", lambda d: d["head"].update(key=key))
    before = set(sys.modules)
    refused: list[bool] = []

    def load() -> None:
        try:
            Model.load(path)
        except BadInput:
            refused.append(True)

    assert {place for _, place in touched(load)} <= {str(path)}
    assert refused
    assert set(sys.modules) == before


class Bomb:
    """What a pickle may hold."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("place", ["whole", TENSORS, DESCRIPTION, "data.pkl", f"{PARTS}model.safetensors"])
def test_pickles_are_never_opened(place: str, texts: Path, tmp_path: Path) -> None:
    bomb, path = pickle.dumps({"state": Bomb(tmp_path / "exploded")}), tmp_path / "m.handful"
    if place == "whole":
        path.write_bytes(bomb)
    elif place == "data.pkl":  # as torch.save packs it
        torch.save({"state": torch.eye(2)}, path)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("evil/data.pkl", bomb)
    else:
        rewritten(texts, path, lambda d: None, **{place: bomb})
    try:
        Model.load(path).predict(["I want my money back"])
    except BadInput as error:
        assert "\n" not in str(error)
    else:
        assert place.startswith(PARTS), "a member that no description tells of is not looked at"
    assert not (tmp_path / "exploded").exists()


def test_members_with_names_of_paths_are_never_written(texts: Path, tmp_path: Path) -> None:
    names = ["../../up.txt", "/absolute.txt", "C:\\windows.txt", "a/../../b.txt", "\\\\host\\share.txt"]
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    path = rewritten(texts, folder / "m.handful", lambda d: None, **dict.fromkeys(names, b"x"))
    assert Model.load(path).predict(["I want my money back"]) == ["refund"]
    assert inspect(path)["foreign"] == names
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a", "b", "m.handful"]


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    with zipfile.ZipFile(path) as archive:
        return safetensors.torch.load(archive.read(TENSORS))


@pytest.mark.parametrize(
    "kind", ["missing", "one more", "wrong shape", "nan", "infinite", "empty", "integers", "nested"]
)
def test_tensors_that_do_not_fit_the_head(kind: str, tmp_path: Path) -> None:
    from handful.commands.fit import fit

    x = np.random.default_rng(0).normal(size=(8, 5))
    np.savez(tmp_path / "f.npz", X=x, y=np.array(["a", "b"] * 4))
    fit(tmp_path / "f.npz", head="prototypes", out=tmp_path / "m.handful")
    state = _tensors(tmp_path / "m.handful")
    changes: dict[str, Callable[[], object]] = {
        "missing": lambda: state.pop("mean"),
        "one more": lambda: state.update(other=torch.eye(2)),
        "wrong shape": lambda: state.update(mean=state["mean"][:, :-1].clone()),
        "nan": lambda: state.update(mean=state["mean"] * float("nan")),
        "infinite": lambda: state.update(mean=state["mean"] / 0),
        "empty": lambda: state.update(mean=state["mean"][:0]),
        "integers": lambda: state.update(mean=state["mean"].to(torch.int8)[:1]),
        "nested": lambda: state.update(mean=state["mean"][None]),
    }
    changes[kind]()
    blob = safetensors.torch.save(state)
    path = rewritten(tmp_path / "m.handful", tmp_path / "n.handful", lambda d: None, **{TENSORS: blob})
    with pytest.raises(BadInput) as caught:
        Model.load(path)
    assert "\n" not in str(caught.value)


def test_tensors_that_claim_more_than_there_is_memory_for(texts: Path, tmp_path: Path) -> None:
    for shape, offsets in (([1 << 50], [0, 8]), ([2], [0, 1 << 50]), ([0, 1 << 62], [0, 0])):
        header = json.dumps({"mean": {"dtype": "F32", "shape": shape, "data_offsets": offsets}}).encode()
        blob = struct.pack("<Q", len(header)) + header + bytes(8)
        path = rewritten(texts, tmp_path / "m.handful", lambda d: None, **{TENSORS: blob})
        with pytest.raises(BadInput):
            Model.load(path)


@pytest.mark.parametrize("version", [2, 99, 10**30])
def test_a_future_version_says_upgrade(version: int, texts: Path, tmp_path: Path) -> None:
    path = rewritten(texts, tmp_path / "m.handful", lambda d: d.update(format=version))
    for read in (Model.load, inspect):
        with pytest.raises(BadInput, match="upgrade handful"):
            read(path)


# --- any description --------------------------------------------------------------------------------------------------

LEAF = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.just(10**400),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.sampled_from(["hf:x/y", "../..", "minilm", "gda", "auto", "os:system", "\ud800"]),
)
JSON = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner), max_leaves=8
)


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where there is something in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for key, item in inner:
        yield (*at, key)
        yield from places(item, (*at, key))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_description_is_one_line_or_a_model_that_answers(data: st.DataObject, texts: Path, tmp_path: Path) -> None:
    from handful.adapt.base import Features
    from handful.ship.bundle import read_bundle

    description, state = read_bundle(texts)
    for _ in range(data.draw(st.integers(1, 3))):
        *way, last = data.draw(st.sampled_from(list(places(description))))
        inner = description
        for step in way:
            inner = inner[step]
        if isinstance(inner, dict) and data.draw(st.booleans()):
            del inner[last]
        else:
            inner[last] = data.draw(JSON)
    write_bundle(tmp_path / "m.handful", description, state)
    for read in (Model.load, inspect):
        try:
            found = read(tmp_path / "m.handful")
        except BadInput as error:
            assert "\n" not in str(error)
        else:
            if isinstance(found, Model):
                proba = found.proba_of(Features(np.eye(2, 384, dtype=np.float32), {}))
                assert np.allclose(proba.sum(1), 1)
