from __future__ import annotations

import json
from importlib.resources import files

import pytest
import torch

from handful.errors import BadInput
from handful.read import read_class_names, write_table
from handful.read.tables import frame_of

NAMES = {"refund": ["Refund", "The customer wants money back."], "login": ["Login, or password"]}


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "json", "parquet", "xlsx"])
def test_tables(suffix, tmp_path):
    rows = [(label, text) for label, texts in NAMES.items() for text in texts]
    frame = frame_of({"label": [a for a, _ in rows], "description": [b for _, b in rows]})
    write_table(frame, tmp_path / f"n.{suffix}")
    assert read_class_names(tmp_path / f"n.{suffix}") == NAMES


def test_the_example():
    names = read_class_names(str(files("handful") / "examples" / "intents.csv"))
    assert len(names) == 14
    assert names["refund_status"][0] == "Refund status"
    assert all(len(texts) == 2 for texts in names.values())


def _read(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return read_class_names(tmp_path / name)


def test_other_shapes(tmp_path):
    assert _read(tmp_path, "n.json", json.dumps({**NAMES, "login": "Login, or password"})) == NAMES
    assert _read(tmp_path, "n.txt", "refund\tRefund\tMoney back\n\nlogin: cannot: sign in\n") == {
        "refund": ["Refund", "Money back"],
        "login": ["cannot: sign in"],
    }
    assert _read(tmp_path, "n.csv", "id,name,title\n3,cat,Cat\n4,dog,\n4,dog,Dog\n") == {
        "3": ["cat", "Cat"],
        "4": ["dog", "Dog"],
    }
    assert _read(tmp_path, "n.csv", "label,label_text\n0,negative\n1,positive\n") == {
        "0": ["negative"],
        "1": ["positive"],
    }
    assert _read(tmp_path, "n.csv", "class,was\n0,negative\n") == {"0": ["negative"]}
    assert _read(tmp_path, "n.jsonl", '{"label": 1, "description": ["a", "b"]}\n') == {"1": ["a", "b"]}


def test_what_torch_saved(tmp_path):
    torch.save({**NAMES, "login": "Login, or password"}, tmp_path / "n.pt")
    assert read_class_names(tmp_path / "n.pt") == NAMES


class Runs:
    """What would be called when it is unpickled."""

    def __reduce__(self):
        return (print, ("it ran",))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"a": Runs()}, "n.pt is damaged, or more than plain texts"),
        ([["a"]], "n.pt must hold a dictionary"),
        ({0: ["a"]}, "n.pt must hold a dictionary"),
        ({"a": torch.ones(2)}, "label 'a' needs a text or a list"),
        ({"a": ["x", 3]}, "label 'a' needs a text or a list"),
        ({"a": ["x"], "b": []}, "label 'b' has no description"),
        ({}, "no class names"),
    ],
)
def test_what_torch_saved_and_is_not_read(value, said, tmp_path, capsys):
    torch.save(value, tmp_path / "n.pt")
    with pytest.raises(BadInput, match=said) as error:
        read_class_names(tmp_path / "n.pt")
    assert "\n" not in str(error.value) and not capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("n.json", '["a", "b"]', "plain list"),
        ("n.json", '{"a": ["x"], "b": []}', "label 'b' has no description"),
        ("n.pt", "no such thing", "n.pt is damaged"),
        ("n.txt", "a\nb\n", "n.txt line 1 is a plain list"),
        ("n.csv", "label\na\nb\n", "plain list"),
        ("n.csv", "label,description\na,\n", "label 'a' has no description"),
        ("n.csv", "label,description\na,x\n,y\n", "n.csv row 3"),
        ("n.csv", "p,q,r\n1,2,3\n", "p, q, r"),
        ("n.json", '{"a": 3}', "label 'a' needs"),
        ("n.json", "{", "n.json is not JSON"),
        ("n.txt", "\n", "no class names"),
        ("n.yaml", "a: b", "n.yaml"),
    ],
)
def test_names_that_cannot_be_used(name, text, said, tmp_path, refused):
    with refused(said):
        _read(tmp_path, name, text)


def test_missing_file(tmp_path, refused):
    with refused("no such file", "n.csv"):
        read_class_names(tmp_path / "n.csv")


def test_a_list_of_banking_intents_is_not_mapped(shared_data, refused):
    with refused("categories.json", "plain list"):
        read_class_names(shared_data / "banking77" / "categories.json")
