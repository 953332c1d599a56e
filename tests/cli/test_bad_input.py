"""Bad input gets exit status 2 and one line that names it; nothing is half-written."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

HEAD = ("--head", "prototypes")


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest, tmp_path: Path):
    """The working folder holds after the test what the test itself put there."""
    yield
    left = [p.name for p in tmp_path.rglob("*") if p.name.endswith(".part") or p.name in ("out.handful", "out.html")]
    assert left == []


def csv(tmp_path: Path, text: str, name: str = "t.csv") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def outs(tmp_path: Path) -> tuple[str, ...]:
    return ("--out", str(tmp_path / "out.handful"), "--report", str(tmp_path / "out.html"))


GOOD = "text,label\nmy card is lost,card\nwhere is my card,card\ncannot log in,login\nwrong password,login\n"

TABLES = {
    "no such column": (GOOD, ["--label", "intent"], ["'intent'", "text, label"]),
    "no such text column": (GOOD, ["--text", "body"], ["'body'", "text, label"]),
    "no text to guess": ("a,b,label\nx,y,one\nz,w,two\n", [], ["--text", "a, b"]),
    "no label to guess": ("text,b\nx,y\nz,w\n", [], ["--label"]),
    "one class": ("text,label\na b,x\nc d,x\n", [], ["one class", "'x'"]),
    "more shots than a class has": (
        GOOD + "refund me,refund\n",
        ["--shots", "2"],
        ["--shots 2", "'refund'", "1 example"],
    ),
    "none left to test": (GOOD, ["--shots", "2"], ["nothing to test"]),
    "shots 0": (GOOD, ["--shots", "0"], ["--shots", "0"]),
    "labels all missing": ("text,label\na,\nb,\n", [], ["label"]),
    "empty text": (GOOD + ",card\n", [], ["row 6", "empty"]),
    "duplicate columns": ("text,text,label\na,b,c\nd,e,f\n", [], ["columns 1 and 2", "'text'"]),
    "labels differ in case": (GOOD + "x y,Card\n", [], ["'Card'", "--merge-labels"]),
    "rows of different length": (GOOD + "a,b,c\n", [], ["row 6"]),
    "nothing in it": ("", [], ["empty"]),
    "a header only": ("text,label\n", [], ["t.csv"]),
    "unknown encoder": (GOOD, ["--encoder", "minilmm"], ["'minilmm'", "minilm"]),
    "encoder of something else": (GOOD, ["--encoder", "efficientnet-lite0"], ["image", "text"]),
    "unknown metric": (GOOD, ["--metric", "acuracy"], ["'acuracy'", "accuracy"]),
    "no time": (GOOD, ["--time-limit", "0"], ["--time-limit"]),
}


@pytest.mark.parametrize("case", TABLES)
def test_tables(run, tmp_path: Path, case: str) -> None:
    text, options, named = TABLES[case]
    line = run("fit", csv(tmp_path, text), *HEAD, *outs(tmp_path), *options)
    assert line.status == 2, line.err
    for word in named:
        assert word in line.complaint


def test_no_such_file(run, tmp_path: Path) -> None:
    csv(tmp_path, GOOD, "tickets.csv")
    result = run("fit", tmp_path / "ticket.csv", *HEAD, *outs(tmp_path))
    assert result.status == 2
    assert "ticket.csv" in result.complaint
    assert "'tickets.csv'" in result.complaint  # the nearest


def test_unknown_head_names_the_nearest(run, tickets: Path, tmp_path: Path) -> None:
    result = run("fit", tickets, "--head", "prototype", *outs(tmp_path))
    assert (result.status, "'prototypes'" in result.complaint) == (2, True)


def test_class_names_of_other_classes(run, tickets: Path, tmp_path: Path) -> None:
    names = csv(tmp_path, "label,description\nfoo,bar\n", "names.csv")
    result = run("fit", tickets, *HEAD, "--class-names", names, *outs(tmp_path))
    assert (result.status, "foo" in result.complaint) == (2, True)


def test_test_set_with_another_class(run, tickets: Path, tmp_path: Path) -> None:
    test = csv(tmp_path, "text,label\nhello,greeting\n")
    result = run("fit", tickets, *HEAD, "--test", test, *outs(tmp_path))
    assert (result.status, "'greeting'" in result.complaint) == (2, True)


def test_a_megabyte_of_text_is_read(run, tmp_path: Path) -> None:
    long = csv(tmp_path, GOOD + "refund " * 150_000 + ",card\n")
    result = run("fit", long, *HEAD, "--quiet")
    assert (result.status, result.err) == (0, "")


def picture(size: int = 32, kind: str = "PNG", colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(buffer, kind)
    return buffer.getvalue()


def animated() -> bytes:
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "green", "blue")]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def giant() -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(buffer, "PNG")
    return buffer.getvalue()


BAD_IMAGES = {
    "truncated.png": lambda: picture()[:-30],
    "empty.png": lambda: b"",
    "pixel.png": lambda: picture(1),
    "animated.gif": animated,
    "giant.png": giant,
    "text.jpg": lambda: b"not an image at all",
}


def image_folder(tmp_path: Path, name: str, data: bytes) -> Path:
    folder = tmp_path / "pictures"
    for label, colour in (("red", "red"), ("blue", "blue")):
        (folder / label).mkdir(parents=True)
        for i in range(2):
            (folder / label / f"{i}.png").write_bytes(picture(32 + i, colour=colour))
    (folder / "red" / name).write_bytes(data)
    return folder


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_images_are_named_and_skipped_on_demand(run, tmp_path: Path, name: str) -> None:
    folder = image_folder(tmp_path, name, BAD_IMAGES[name]())
    result = run("fit", folder, *HEAD, *outs(tmp_path))
    assert result.status == 2
    assert name in result.complaint
    skipping = run("fit", folder, *HEAD, "--skip-bad", "--json")
    assert skipping.status == 0, skipping.err
    task = json.loads(skipping.out)["task"]
    assert task["n"] == 4
    assert [name in why for why in task["skipped"]] == [True]


def test_features_that_are_not_numbers(run, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(6, 4))
    x[3, 2] = np.nan
    np.savez(tmp_path / "f.npz", X=x, y=np.array(["a", "b"] * 3))
    result = run("fit", tmp_path / "f.npz", *HEAD, *outs(tmp_path))
    assert result.status == 2
    assert "nan" in result.complaint.lower()
    assert "3" in result.complaint


def test_features_with_object_labels(run, tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", X=np.ones((2, 2)), y=np.array(["a", "b"], dtype=object), allow_pickle=True)
    result = run("fit", tmp_path / "f.npz", *HEAD, *outs(tmp_path))
    assert (result.status, "f.npz" in result.complaint) == (2, True)


@pytest.mark.parametrize("what", ["text", "zip", "empty", "folder", "missing"])
@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_not_a_model(run, tickets: Path, tmp_path: Path, what: str, command: str) -> None:
    path = tmp_path / "m.handful"
    if what == "text":
        path.write_text("hello")
    elif what == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x", "y")
    elif what == "empty":
        path.touch()
    elif what == "folder":
        path.mkdir()
    result = run(command, path, tickets)
    assert result.status == 2
    assert "m.handful" in result.complaint


def rewritten(model: Path, out: Path, **encoder: str) -> Path:
    """A copy of a model that names another encoder."""
    with zipfile.ZipFile(model) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith(".json"):
                description = json.loads(data)
                description["encoder"] |= encoder
                data = json.dumps(description).encode()
            new.writestr(name, data)
    return out


@pytest.mark.parametrize("encoder", [{"name": "no-such-encoder"}, {"fingerprint": "0" * 64}])
def test_encoder_that_is_not_here_or_another(run, model: Path, tickets: Path, tmp_path: Path, encoder: dict) -> None:
    changed = rewritten(model, tmp_path / "changed.handful", **encoder)
    out = tmp_path / "answers.csv"
    result = run("predict", changed, csv(tmp_path, "text\nhello there\n"), "--out", out)
    assert result.status == 2
    assert "encoder" in result.complaint
    assert not out.exists()


def test_existing_output_is_refused_before_any_work(run, tmp_path: Path) -> None:
    out = csv(tmp_path, "precious\n", "answers.csv")
    result = run("predict", tmp_path / "no-such-model", tmp_path / "no-such-file", "--out", out)
    assert result.status == 2
    assert "answers.csv" in result.complaint
    assert "--force" in result.complaint
    assert out.read_text() == "precious\n"


def test_an_output_that_is_no_table(run, model: Path, tickets: Path, tmp_path: Path) -> None:
    result = run("predict", model, tickets, "--out", tmp_path / "answers.doc")
    assert (result.status, ".csv" in result.complaint) == (2, True)


@pytest.mark.parametrize(
    "option", [("--top", "9"), ("--top", "0"), ("--min-confidence", "80"), ("--min-confidence", "-1")]
)
def test_numbers_that_make_no_sense(run, model: Path, tickets: Path, option: tuple[str, str]) -> None:
    result = run("predict", model, tickets, *option)
    assert result.status == 2
    assert option[0] in result.complaint
    assert option[1] in result.complaint


def test_evaluate_without_labels_or_with_unknown_ones(run, model: Path, tmp_path: Path) -> None:
    nothing = run("evaluate", model, csv(tmp_path, "text\nhello\n"))
    assert (nothing.status, "label" in nothing.complaint) == (2, True)
    unknown = run("evaluate", model, csv(tmp_path, "text,label\nhello,greeting\n", "u.csv"))
    assert (unknown.status, "'greeting'" in unknown.complaint) == (2, True)


def test_a_model_of_texts_given_features(run, model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", X=np.ones((3, 384)))
    result = run("predict", model, tmp_path / "f.npz")
    assert (result.status, "text" in result.complaint, "features" in result.complaint) == (2, True, True)


def test_an_experiment_never_replaces_a_model(run, tickets: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.handful"
    assert run("fit", tickets, *HEAD, "--out", path, "--quiet").status == 0
    before = path.read_bytes()
    result = run("fit", tickets, *HEAD, "--shots", 1, "--out", path)
    assert (result.status, "m.handful" in result.complaint) == (2, True)
    assert path.read_bytes() == before


def test_a_file_that_is_no_model_is_not_replaced(run, tickets: Path, tmp_path: Path) -> None:
    precious = csv(tmp_path, "precious", "notes.txt")
    result = run("fit", tickets, *HEAD, "--out", precious)
    assert (result.status, "notes.txt" in result.complaint) == (2, True)
    assert precious.read_text() == "precious"
