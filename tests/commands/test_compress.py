"""`handful compress`: a tuned model in fewer bytes, and what became of its answers."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from jsonschema import Draft202012Validator

import handful
from handful.cli import main
from handful.commands import tuned as module
from handful.commands.compress import compress, divergence
from handful.commands.inspect import inspect
from handful.errors import BadInput
from handful.ship.model import Model
from handful.tune.recipes import recipe

THINGS = ["soup", "film", "road", "coat", "song", "shop", "desk", "garden"]
GOOD = [f"the {thing} was wonderful, I loved it" for thing in THINGS]
BAD = [f"the {thing} was awful, I hated it" for thing in THINGS]
TEXTS, LABELS = [*GOOD, *BAD], ["good"] * 8 + ["bad"] * 8
NEW = [f"what a {word} {thing}" for word in ("lovely", "great", "poor", "bad") for thing in THINGS[:3]]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "recipe", lambda key: recipe(key, steps=4))
        model = handful.fit(TEXTS, LABELS, tune="lora", head="simpleshot", time_limit=1.0)
    path = tmp_path_factory.mktemp("compress") / "m.handful"
    model.save(path)
    return path


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("items") / "new.csv"
    path.write_text("text\n" + "\n".join(f'"{text}"' for text in NEW) + "\n", encoding="utf-8")
    return path


def test_a_tenth_of_the_bytes_and_nearly_the_same_answers(saved: Path, items: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.handful"
    small = compress(saved, items, out=out)
    made = small.card["compressed"]
    assert made["ratio"] > 10 and made["n"] == len(NEW) and made["density"] == 0.5
    assert out.stat().st_size < saved.stat().st_size / 10
    model = handful.load(saved)
    before, after = model.predict_proba(NEW), small.predict_proba(NEW)
    assert made["divergence"] == pytest.approx(divergence(before, after), abs=1e-9)
    assert made["same"] == np.mean(before.argmax(1) == after.argmax(1)) >= 0.9
    frozen = handful.load(saved)
    frozen.delta = None
    assert made["divergence"] < 0.2 * divergence(before, frozen.predict_proba(NEW))  # the changes are still there
    again = handful.load(out)
    np.testing.assert_array_equal(again.predict_proba(NEW), after)
    again.save(tmp_path / "again.handful")
    assert (tmp_path / "again.handful").read_bytes() == out.read_bytes()
    assert "not estimated" in small.card["estimate"]["method"] and model.card["estimate"] != small.card["estimate"]
    told, plain = inspect(out), inspect(saved)
    assert told["tuning"] == plain["tuning"] == model.card["tuning"]["sentence"]
    assert told["compressed"] == {"density": 0.5, "ratio": made["ratio"]} and plain["compressed"] is None
    small.report(tmp_path / "r.html")


def test_what_was_said_of_none_of_these_is_gone(
    items: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "recipe", lambda key: recipe(key, steps=4))
    model = handful.fit(TEXTS, LABELS, tune="lora", head="simpleshot", reject="energy", false_alarms=0.3)
    assert model.rejection is not None and model.card["reject"]["false_alarms"] is not None
    small = compress(model, items, out=tmp_path / "s.handful")
    assert small.rejection is not None and small.card["reject"]["other"] == model.card["reject"]["other"]
    assert "false_alarms" not in small.card["reject"] and "none of the classes" in small.card["compressed"]["notes"][0]
    assert model.card["reject"]["false_alarms"] is not None  # the other model's card is its own
    small.report(tmp_path / "r.html")
    assert main(["inspect", str(tmp_path / "s.handful")]) == 0
    assert model.card["reject"]["other"] in capsys.readouterr().out


def test_what_cannot_be_compressed_is_refused(saved: Path, items: Path, tmp_path: Path) -> None:
    plain = handful.fit(TEXTS, LABELS, head="simpleshot")
    with pytest.raises(BadInput, match="was not tuned"):
        compress(plain, items)
    with pytest.raises(BadInput, match="density is a share"):
        compress(saved, items, density=0.0)
    with pytest.raises(BadInput, match="--force"):
        compress(saved, items, out=saved)
    out = tmp_path / "s.handful"
    compress(saved, items, out=out, density=0.2)
    with pytest.raises(BadInput, match="compressed already"):
        compress(out, items)
    damaged: Model = handful.load(out)
    assert damaged.delta is not None
    described, tensors = damaged.delta
    code = tensors["ternary"].clone()
    code[-1] ^= 1
    for wrong, complaint in (
        (tensors | {"ternary": code}, "cut off or damaged"),
        (tensors | {"ternary": code.float()}, "no compressed changes"),
        (tensors | {"999.A": torch.zeros(2, 2)}, "of no change"),
        (tensors | {"9.A": torch.zeros(8, 384)}, "beside the code"),
    ):
        damaged.delta = (described, wrong)
        with pytest.raises(BadInput, match=complaint):
            _ = damaged.encoder


def test_the_command_says_what_it_did(
    saved: Path, items: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "s.handful"
    assert main(["compress", str(saved), str(items), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    for part in ("times smaller than in 16 bits", "50 % of 331,776 numbers", f"of {len(NEW)} items answered as before"):
        assert part in shown, shown
    assert main(["compress", str(saved), str(items), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    schema = json.loads((resources.files("handful") / "schemas" / "compress.json").read_text("utf-8"))
    Draft202012Validator(schema).validate(found)
    assert found["model"] is None and found["numbers"] == 331_776
    assert main(["inspect", str(out)]) == 0
    assert main(["compress", str(out), str(items)]) == 2
    assert "compressed already" in capsys.readouterr().err
