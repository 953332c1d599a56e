"""Data sets by name, with a stand-in for the package that loads them."""

from __future__ import annotations

import sys
import types

import pytest

from handful.read import open_image, read


class _ClassLabel:
    def __init__(self, names):
        self.names = names


class _Image:
    def __init__(self, decode=True):
        self.decode = decode


class _Split:
    """As much of a `datasets.Dataset` as is used."""

    def __init__(self, columns, features):
        self.columns, self.features = columns, features
        self.column_names = list(columns)

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def __getitem__(self, name):
        if isinstance(self.features.get(name), _Image):
            assert not self.features[name].decode
        return self.columns[name]

    def cast_column(self, name, feature):
        return _Split(self.columns, {**self.features, name: feature})


@pytest.fixture
def hub(monkeypatch, picture):
    """Two data sets, and what was asked for."""
    texts = _Split(
        {"text": ["x", "y", "z"], "label": [0, 1, -1]}, {"text": None, "label": _ClassLabel(["bad", "good"])}
    )
    images = _Split({"image": [{"bytes": picture(), "path": None}], "label": ["a"]}, {"image": _Image(), "label": None})
    known = {
        ("owner/texts", None): {"test": texts, "train": texts},
        ("owner/texts", "small"): {"only": texts},
        ("images", None): {"train": images},
    }
    asked = []

    def load_dataset(path, config=None):
        asked.append((path, config))
        if (path, config) not in known:
            raise FileNotFoundError(f"Dataset {path!r} doesn't exist\non the Hub")
        return known[path, config]

    module = types.ModuleType("datasets")
    module.__version__ = "4.0.0"
    module.load_dataset, module.ClassLabel, module.Image = load_dataset, _ClassLabel, _Image
    monkeypatch.setitem(sys.modules, "datasets", module)
    return asked


def test_texts_with_names_of_classes(hub):
    data = read("hub:owner/texts")
    assert data.items == ["x", "y", "z"]
    assert data.labels == ("bad", "good", None)
    assert data.where[0] == "hub:owner/texts row 0"
    assert "'train'" in data.provenance.notes[0]
    assert data.provenance.sources == ("hub:owner/texts",)
    assert read("hub:owner/texts:test").provenance.notes == ()
    assert len(read("hub:owner/texts@small")) == 3
    assert hub[-1] == ("owner/texts", "small")


def test_images(hub):
    data = read("hub:images")
    assert data.modality == "image"
    assert open_image(data.items[0]).size == (4, 3)


def test_unknown_names(hub, refused):
    with refused("hub:owner/nothing", "doesn't exist on the Hub"):
        read("hub:owner/nothing")
    with refused("hub:owner/texts:tes", "'tes'", "did you mean 'test'"):
        read("hub:owner/texts:tes")


def test_versions_that_run_code_are_refused(hub, refused, monkeypatch):
    monkeypatch.setattr(sys.modules["datasets"], "__version__", "3.6.0")
    with refused("datasets 4", "3.6.0"):
        read("hub:owner/texts")
    assert hub == []


def test_extra_not_installed(monkeypatch, refused):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with refused("hub:owner/texts", "handful[hub]"):
        read("hub:owner/texts")
