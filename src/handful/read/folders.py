"""A folder per class, or a ZIP archive of such folders: images, or text files where there are no images."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path, PurePosixPath

from handful.errors import BadInput
from handful.read.columns import IMAGE_SUFFIXES
from handful.read.dataset import Dataset, ImageFile, Provenance, file_sha256
from handful.read.delimited import decode
from handful.read.places import one_line
from handful.read.tables import frame_of
from handful.read.zips import Member, members

SYSTEM_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir"})
SPLITS = frozenset({"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"})


@dataclass(frozen=True)
class Entry:
    """One file below a folder or in an archive; ``name`` is relative, with forward slashes."""

    name: str
    path: Path
    member: Member | None = None

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix.lower()

    def image(self) -> ImageFile:
        return ImageFile(self.name, path=self.path, member=self.member)

    def text(self, source: str) -> str:
        data = self.image().read_bytes()
        return decode(data, f"{source}: {one_line(self.name)}").strip() if data else ""

    def sha256(self) -> str:
        return file_sha256(self.path) if os.path.isfile(self.path) else "missing"  # a link that leads nowhere


def dataset_of_folder(path: Path, name: str) -> Dataset:
    """Images (or ``.txt`` files) below a folder; its folders are the classes, files beside them are unlabelled."""
    entries = [Entry(file.relative_to(path).as_posix(), file) for file in _walk(path)]
    entries.sort(key=lambda entry: entry.name)
    lines = "".join(f"{entry.name}\t{entry.sha256()}\n" for entry in entries)
    digest = hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()
    return _dataset(entries, name, digest, archive=False)


def dataset_of_zip(path: Path, name: str) -> Dataset:
    """The same of an archive. One folder around everything, as packing programs add it, is no class."""
    entries = [Entry(m.name.replace("\\", "/"), path, m) for m in members(path) if not _hidden(m.name)]
    return _dataset(entries, name, file_sha256(path), archive=True)


def dataset_of_image(path: Path, name: str) -> Dataset:
    """A single image without a label."""
    return Dataset(
        [ImageFile(name, path=path)],
        (None,),
        "image",
        where=(name,),
        table=frame_of({"file": [name]}),
        item_columns=("file",),
        provenance=Provenance(sha256={name: file_sha256(path)}),
    )


def _walk(path: Path) -> Iterator[Path]:
    """Files below a folder. Links are followed, but no folder is entered twice on the way down."""
    seen: set[tuple[int, int]] = set()
    for folder, inner, files in os.walk(path, followlinks=True):
        stat = os.stat(folder)
        if (stat.st_dev, stat.st_ino) in seen and stat.st_ino:
            inner.clear()
            continue
        seen.add((stat.st_dev, stat.st_ino))
        inner[:] = sorted(name for name in inner if not _hidden(name))
        yield from (Path(folder, name) for name in files if not _hidden(name))


def _hidden(name: str) -> bool:
    """Files of the operating system and hidden ones, which are nobody's data."""
    parts = name.replace("\\", "/").split("/")
    return any(part.startswith((".", "~$")) or part.casefold() in SYSTEM_FILES for part in parts)


def _dataset(entries: Sequence[Entry], source: str, digest: str, archive: bool) -> Dataset:
    images = [entry for entry in entries if entry.suffix in IMAGE_SUFFIXES]
    used = images or [entry for entry in entries if entry.suffix == ".txt"]
    if not used:
        raise BadInput(f"{source} holds no images and no .txt files{_instead(entries)}")
    depth = _wrappers(used, archive)
    labels = [_class_of(entry, depth) for entry in used]
    _refuse_splits(labels, source)
    table = {"file": [entry.name for entry in used]}
    classes = any(label is not None for label in labels)
    if classes:
        table["label"] = [label or "" for label in labels]
    return Dataset(
        [entry.image() for entry in used] if images else [entry.text(source) for entry in used],
        tuple(labels),
        "image" if images else "text",
        where=tuple(f"{source}: {one_line(entry.name)}" for entry in used),
        table=frame_of(table),
        label_column="label" if classes else None,
        item_columns=("file",),
        provenance=Provenance(sha256={source: digest}, skipped=_left_out(entries, used, source)),
    )


def _left_out(entries: Sequence[Entry], used: Sequence[Entry], source: str) -> tuple[str, ...]:
    """How many files of each kind are not read, with the first of them."""
    taken = {entry.name for entry in used}
    kinds: dict[str, list[str]] = defaultdict(list)
    for entry in entries:
        if entry.name not in taken:
            kinds[entry.suffix].append(entry.name)
    return tuple(
        f"{source}: {len(names)} {one_line(kind) or 'nameless'} file{'s' if len(names) > 1 else ''} left out, not a "
        f"kind that is read ({one_line(names[0])})"
        for kind, names in sorted(kinds.items())
    )


def _wrappers(entries: Sequence[Entry], archive: bool) -> int:
    """How many folders lie around everything and are no class.

    The last folder above the files of a folder stays a class, so that one class of images is seen as such; in an
    archive it is most likely the name of the archive.
    """
    folders = [PurePosixPath(entry.name).parts[:-1] for entry in entries]
    shared = sum(1 for _ in takewhile(lambda names: len(set(names)) == 1, zip(*folders, strict=False)))
    last = shared > 0 and all(len(parts) == shared for parts in folders)
    return shared - 1 if last and not archive else shared


def _class_of(entry: Entry, depth: int) -> str | None:
    parts = PurePosixPath(entry.name).parts[depth:]
    return parts[0] if len(parts) > 1 else None


def _refuse_splits(labels: Sequence[str | None], source: str) -> None:
    names = sorted({label for label in labels if label is not None})
    if len(names) > 1 and all(name.casefold() in SPLITS for name in names):
        raise BadInput(
            f"{source}: its folders {', '.join(names)} are parts of a data set, not classes; give one of them, "
            "and another with --test"
        )


def _instead(entries: Sequence[Entry]) -> str:
    """What there is instead."""
    if not entries:
        return "; it is empty"
    names = [one_line(entry.name, 60) for entry in entries[:3]]
    return f"; it holds {', '.join(names)}{', …' if len(entries) > 3 else ''}: a table is given by its own name"
