"""What a model file says of itself, and that nothing personal in it goes unmentioned."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from handful.adapt import HEADS, head_class
from handful.commands.fit import fit
from handful.commands.inspect import inspect
from handful.errors import BadInput
from handful.ship.bundle import DESCRIPTION, FORMAT, read_bundle, write_bundle
from handful.ship.model import Model

SENTINEL = "Zanzibar sold xylophones quietly"
TEXTS = {
    "refund": ["I want my money back", f"{SENTINEL} for my last refund", "when do I get my refund"],
    "login": ["I cannot sign in to my account", "my password does not work", "locked out of my account"],
}


def table(folder: Path) -> Path:
    """Six labelled texts."""
    path = folder / "tickets.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("message", "queue"), *((t, c) for c, texts in TEXTS.items() for t in texts)])
    return path


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text model of the default head, with a test set that is a file of its own."""
    folder = tmp_path_factory.mktemp("inspect")
    source, out = table(folder), folder / "m.handful"
    test = folder / "march.csv"
    test.write_text("message,queue\ngive me my money,refund\nno password,login\n", encoding="utf-8")
    names = {"refund": "somebody asks for a quixotic refund", "login": "somebody cannot log in"}
    fit(source, text="message", label="queue", class_names=names, test=test, out=out)
    return out


def test_it_says_what_the_model_is(fitted: Path) -> None:
    found, model = inspect(fitted), Model.load(fitted)
    assert found["modality"] == "text"
    assert found["n"] == 6
    assert found["classes"] == [{"name": "login", "count": 3}, {"name": "refund", "count": 3}]
    assert found["head"] == {"key": "auto", "choice": model.card["head"]["choice"]}
    assert (found["encoder"]["name"], found["encoder"]["dim"], found["encoder"]["inside"]) == ("minilm", 384, False)
    assert found["encoder"]["fingerprint"] == model.fingerprint
    assert found["accuracy"] == model.card["test"]["assessment"]["accuracy"]
    assert "march.csv" in found["method"]
    assert found["bytes"] == fitted.stat().st_size
    assert found["sha256"] == hashlib.sha256(fitted.read_bytes()).hexdigest()
    assert found["format"] == FORMAT
    assert json.loads(json.dumps(found)) == found


def test_it_says_where_the_model_comes_from(fitted: Path) -> None:
    made = inspect(fitted)["provenance"]
    source = fitted.with_name("tickets.csv")
    assert made["sources"] == [str(source)]
    assert list(made["sha256"].values()) == [hashlib.sha256(source.read_bytes()).hexdigest()]
    assert made["seed"] == 0


def test_without_a_test_set_the_estimate_is_quoted(tmp_path: Path) -> None:
    fit(TEXTS, head="prototypes", out=tmp_path / "m.handful")
    found, card = inspect(tmp_path / "m.handful"), Model.load(tmp_path / "m.handful").card
    quoted = card["estimate"].get("accuracy") or card["estimate"]["assessment"]["accuracy"]
    assert found["accuracy"] == quoted
    assert found["method"] == card["estimate"]["method"]


def strings(value: Any, at: str = "") -> Iterator[tuple[str, str]]:
    """Every string in a description, keys of free mappings too, with the dotted place it stands at."""
    if isinstance(value, dict):
        for key, item in value.items():
            if re.search(r"sha256|shares", at):
                yield at, key
            yield from strings(item, f"{at}.{key}".lstrip("."))
    elif isinstance(value, list):
        for item in value:
            yield from strings(item, at)
    elif isinstance(value, str):
        yield at, value


# What tells of the method and the machine, never of the data.
TECHNICAL = re.compile(
    r"head\.|encoder\.|decision\.|parts\.|card\.(handful|metric|head\.|encoder\.|candidates\.|task\.modality|"
    r"task\.sha256|class_text\.(reason|source)|estimate\.method|estimate\.groups|population\.(kind|sentence)|"
    r"selective\.note|experiment\.note|blind_spots\.(kind|message)|provenance\.versions)"
)


def test_nothing_in_the_description_goes_unmentioned(fitted: Path) -> None:
    description, _ = read_bundle(fitted)
    personal = inspect(fitted)["personal"]
    mentioned = {*personal["paths"], *personal["columns"], *personal["class_names"], *personal["items"]}
    mentioned |= {personal["command"]}
    missed = [(at, text) for at, text in strings(description) if text not in mentioned and not TECHNICAL.match(at)]
    assert not missed
    assert personal["columns"] == ["message", "queue"] or set(personal["columns"]) == {"message", "queue"}
    assert {str(fitted.with_name("tickets.csv")), str(fitted.with_name("march.csv"))} <= set(personal["paths"])


def test_no_text_and_no_description_of_a_class_is_in_the_file(fitted: Path) -> None:
    with zipfile.ZipFile(fitted) as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())
    for words in ("Zanzibar", "xylophone", "quixotic", "password"):
        assert words.encode() not in content, words
    personal = inspect(fitted)["personal"]
    assert (personal["texts"], personal["pictures"], personal["class_vectors"]) == (False, False, True)


DECLARED = [key for key in HEADS if head_class(key).shapes]
A_ROW_AN_EXAMPLE = "NK"  # letters of the first axis


@pytest.mark.parametrize("key", DECLARED)
@pytest.mark.parametrize("named", [0, 3], ids=["examples", "examples and names"])
def test_rows_of_examples_are_found_by_shape_alone(key: str, named: int, tmp_path: Path) -> None:
    """What the head declares of its tensors, against what is found without it."""
    n, classes = 50, 3
    size = {"N": n + named, "K": n + named, "C": classes, "D": 7}
    shapes = {name: axes.split() for name, axes in head_class(key).shapes.items()}
    state = {name: torch.zeros([size.get(axis, 11) for axis in axes]) for name, axes in shapes.items()}
    rows = [{"name": name, "count": n // classes} for name in "abc"]
    task = {"modality": "text", "n": n, "classes": rows, "columns": {}, "sources": [], "sha256": {}, "skipped": []}
    card = {"task": task, "head": {"choice": key}, "metric": "accuracy", "seed": 0, "handful": "0"}
    encoder = {"name": None, "fingerprint": ""}
    write_bundle(tmp_path / "m.handful", {"head": {"key": key}, "width": 7, "encoder": encoder, "card": card}, state)
    personal = inspect(tmp_path / "m.handful")["personal"]
    expected = sorted(name for name, axes in shapes.items() if len(axes) > 1 and axes[0] in A_ROW_AN_EXAMPLE)
    assert personal["example_tensors"] == expected
    assert personal["example_vectors"] == (n if expected else 0)


@pytest.mark.parametrize(("key", "rows"), [("auto", 6), ("kernel-ridge", 6), ("prototypes", 0), ("gda", 0)])
def test_rows_of_examples_of_a_fit(key: str, rows: int, tmp_path: Path) -> None:
    fit(TEXTS, head=key, out=tmp_path / "m.handful")
    assert inspect(tmp_path / "m.handful")["personal"]["example_vectors"] == rows


def test_a_row_of_the_named_tensor_is_the_vector_of_an_example(tmp_path: Path) -> None:
    x = np.eye(8, dtype=np.float32)[:, :6] + 0.01
    np.savez(tmp_path / "f.npz", X=x, y=np.array(["a", "b"] * 4))
    fit(tmp_path / "f.npz", head="matching-networks", out=tmp_path / "m.handful")
    found = inspect(tmp_path / "m.handful")
    _, tensors = read_bundle(tmp_path / "m.handful")
    assert found["personal"]["example_tensors"] == ["key", "value"]
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(tensors["key"].numpy(), unit, rtol=1e-5)
    assert (found["modality"], found["encoder"]["name"]) == ("features", None)


def test_one_example_a_class_is_a_vector_of_an_example(tmp_path: Path) -> None:
    fit({label: texts[:1] for label, texts in TEXTS.items()}, head="prototypes", out=tmp_path / "m.handful")
    personal = inspect(tmp_path / "m.handful")["personal"]
    assert personal["example_tensors"] == ["mean"]
    assert personal["single_examples"] == 2


def test_parts_of_an_encoder_are_listed_and_checked(fitted: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.handful"
    write_bundle(path, *read_bundle(fitted), {"model.safetensors": bytes(1000), "tokenizer.json": b"{}"})
    found = inspect(path)
    assert found["encoder"]["inside"]
    sizes = {row["part"]: row["bytes"] for row in found["sizes"]}
    assert sizes["encoder, model.safetensors"] == 1000
    assert sizes.keys() == {"description", "head", "encoder, model.safetensors", "encoder, tokenizer.json"}
    data = path.read_bytes()
    path.write_bytes(data.replace(bytes(1000), b"\1" * 1000))
    with pytest.raises(BadInput, match=r"model\.safetensors"):
        inspect(path)


def test_foreign_members_are_named(fitted: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.handful"
    path.write_bytes(fitted.read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("notes/people.txt", "x")
    assert inspect(path)["foreign"] == ["notes/people.txt"]


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("card", None),
        ("card", []),
        ("card.task", {}),
        ("card.task.classes", {"a": 1}),
        ("card.task.classes", [{"name": "a"}]),
        ("card.task.n", "many"),
        ("card.task.n", 1e300),
        ("card.task.columns", deep(900)),
        ("card.test", {"source": "x"}),
        ("card.test", [1]),
        ("card.estimate", {"accuracy": {"value": 10**400, "low": 0, "high": 1}}),
        ("card.suspicious", [{"row": 1}]),
        ("card.provenance", "x"),
        ("encoder", {}),
        ("encoder.options", 3),
        ("width", None),
        ("head", 1),
    ],
)
def test_a_description_that_makes_no_sense_is_one_line_or_harmless(
    fitted: Path, tmp_path: Path, place: str, value: Any
) -> None:
    description, tensors = read_bundle(fitted)
    *way, last = place.split(".")
    inner = description
    for step in way:
        inner = inner[step]
    inner[last] = value
    write_bundle(tmp_path / "m.handful", description, tensors)
    try:
        json.dumps(inspect(tmp_path / "m.handful"), allow_nan=False)
    except BadInput as error:
        assert "m.handful" in str(error)
        assert "\n" not in str(error)


def test_nothing_heavy_is_loaded(fitted: Path) -> None:
    program = f"""
import sys
from handful.cli import main
assert main(["inspect", {str(fitted)!r}, "--json"]) == 0
sys.exit(", ".join(name for name in ("torch", "numpy", "sklearn", "polars") if name in sys.modules) or 0)
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n"] == 6


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06" + bytes(18), b"text,label\n"])
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.handful"
    path.write_bytes(content)
    with pytest.raises(BadInput, match="not a Handful model"):
        inspect(path)


def test_a_newer_format_says_upgrade(fitted: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.handful"
    with zipfile.ZipFile(fitted) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == DESCRIPTION:
                data = json.dumps({**json.loads(data), "format": FORMAT + 1}).encode()
            new.writestr(name, data)
    with pytest.raises(BadInput, match="upgrade handful"):
        inspect(path)
