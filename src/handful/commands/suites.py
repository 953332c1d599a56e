"""`handful bench --suite`: heads judged by a published protocol, on several data sets and encoders."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import handful
from handful.adapt import head_class
from handful.commands.bench import background_of, class_text_of, tower_for, views_of
from handful.commands.sources import Columns, labelled, read_source
from handful.errors import BadInput
from handful.evaluate.fewclue import SPLITS, TASKS, Item, load_fewclue
from handful.evaluate.indices import Count
from handful.evaluate.suite_results import Store, SuiteResult
from handful.evaluate.suites import Suite, SuiteData, feasible, find_suite, judge
from handful.protocols import Progress
from handful.read import Dataset, from_arrays
from handful.ship.model import encode_dataset


def run_suite(
    suite: str,
    sources: Any,
    heads: Sequence[str],
    parameters: Mapping[str, Mapping[str, Any]],
    *,
    shots: Sequence[Count] | None = None,
    episodes: int | None = None,
    base: Any = None,
    seed: int = 0,
    out: str | Path | None = None,
    columns: Columns | None = None,
    class_names: str | Path | Mapping[str, str | Sequence[str]] | None = None,
    encoder: str | None = None,
    merge_labels: bool = False,
    skip_bad: bool = False,
    cache: bool = True,
    progress: Progress | None = None,
) -> SuiteResult:
    """Judge heads by a protocol.

    Args:
        suite: see `handful.evaluate.suites.SUITES`.
        sources: each is a data set of its own; for ``fewclue`` folders that hold its tasks.
        heads, parameters: keys, and parameters by key.
        shots, episodes: others than the protocol's, which the result then says.
        base: a source of base classes; of ``cross-domain`` by default the first source, which is then not judged.
        out: a ``.json`` file, written anew after every cell; where it is there, the run goes on from it.
        encoder: names of encoders, with commas between them.

    Raises:
        BadInput: one line that says what is wrong.
    """
    columns = Columns() if columns is None else columns
    protocol = find_suite(suite)
    protocol = protocol.changed(shots, episodes) if shots is not None or episodes is not None else protocol
    protocol_changed = protocol != find_suite(suite)
    if protocol.seeds and seed != 0:
        raise BadInput(f"--suite {suite} draws with seeds of its own, {protocol.seeds}: leave out --seed")
    encoders: list[str | None] = [None] if encoder is None else [name.strip() for name in encoder.split(",")]
    parts = _read(protocol, sources, columns, merge_labels=merge_labels, skip_bad=skip_bad)
    if not parts:
        raise BadInput("name at least one source to judge on")
    others = None if base is None else read_source(base, None, columns, skip_bad=skip_bad)
    if protocol.key == "cross-domain" and others is None:
        if len(parts) < 2:
            raise BadInput("cross-domain needs the source of base classes first (or --base), and another to judge on")
        others, parts = parts[0][1], parts[1:]

    sets: list[SuiteData] = []
    for name in encoders:
        for title, data, splits in parts:
            tower = tower_for(data, name)
            encoded = encode_dataset(
                data, tower, views=views_of(heads), cache=cache, skip_bad=skip_bad, progress=progress
            )
            if splits and len(encoded.kept) < len(data):
                raise BadInput(
                    f"{title}: its splits need every item, and {len(data) - len(encoded.kept)} are not readable"
                )
            data = data.take(encoded.kept)
            background = None
            if others is not None:
                background = background_of(others, encode_dataset(others, tower, cache=cache, skip_bad=skip_bad))
            sets.append(
                SuiteData(
                    title,
                    "features" if tower is None else tower.name,
                    encoded.features,
                    np.asarray(data.labels),
                    class_text_of(tower, class_names, data),
                    100.0 if tower is None else tower.logit_scale,
                    background,
                    splits,
                )
            )

    setting = {
        "handful": handful.__version__,
        "suite": protocol.key,
        "title": protocol.title,
        "paper": protocol.paper,
        "kind": protocol.kind,
        "heads": [{"head": key, "parameters": dict(parameters[key])} for key in heads],
        "data": [{"data": s.name, "encoder": s.encoder, "n": len(s.labels), "digest": _digest(s)} for s in sets],
        "settings": [s.name for s in protocol.settings],
        "seeds": list(protocol.seeds) or [seed],
        "episodes": protocol.episodes,
        "changed": protocol_changed,
    }
    store = Store(None if out is None else Path(out), setting)
    return _judged(protocol, sets, heads, parameters, store, seed, progress)


def _judged(
    suite: Suite,
    sets: Sequence[SuiteData],
    heads: Sequence[str],
    parameters: Mapping[str, Mapping[str, Any]],
    store: Store,
    seed: int,
    progress: Progress | None,
) -> SuiteResult:
    wanted, left_out = [], []
    for data in sets:
        for setting in suite.settings:
            why = feasible(suite, setting, data.labels)
            if why is None:
                wanted.append(((data.name, data.encoder, setting.name), data, setting))
            else:
                left_out.append(f"{data.name}, {why}")
    if not wanted:
        raise BadInput(f"nothing of --suite {suite.key} can be run: {left_out[0]}")
    done, total = 0, len(wanted) * len(heads)
    for row, data, setting in wanted:
        given: dict[str, Any] = {"text": data.text, "logit_scale": data.logit_scale}
        for key in heads:
            if (row, key) not in store.cells:
                head = head_class(key)(**{**given, **parameters[key]})
                store.add(row, key, judge(suite, setting, head, data, seed))
            done += 1
            if progress is not None:
                progress(done, total)
    cells = {(row, key): store.cells[row, key] for row, *_ in wanted for key in heads}
    result = SuiteResult(store.setting, cells, tuple(left_out))
    store.finish(result)
    return result


Part = tuple[str, Dataset, tuple[tuple[np.ndarray, np.ndarray], ...]]
"""A name, its items, and splits where the data bring them."""


def _read(suite: Suite, sources: Any, columns: Columns, *, merge_labels: bool, skip_bad: bool) -> list[Part]:
    many = sources if isinstance(sources, (list, tuple)) else [sources]
    if suite.kind == "given":
        return [part for root in many for part in _fewclue(root)]
    parts: list[Part] = []
    for source in many:
        data = labelled(read_source(source, None, columns, merge_labels=merge_labels, skip_bad=skip_bad))
        path = (
            source if isinstance(source, (str, Path)) else next(iter(data.provenance.sources), f"data {len(parts) + 1}")
        )
        _refuse_bare_folders(source, data)
        parts.append((Path(str(path)).stem or str(path), data, ()))
    names = [name for name, *_ in parts]
    if twice := next((name for i, name in enumerate(names) if name in names[:i]), None):
        raise BadInput(f"two sources are called {twice!r}: rename one, so that the table can tell them apart")
    return parts


def _refuse_bare_folders(source: Any, data: Dataset) -> None:
    """A class folder without items would make the benchmark an easier one."""
    if isinstance(source, (str, Path)) and Path(source).is_dir():
        folders = {f.name for f in Path(source).iterdir() if f.is_dir() and not f.name.startswith(".")}
        bare = folders - set(data.classes)
        if bare and set(data.classes) <= folders:
            raise BadInput(f"{source}: class folder {min(bare)!r} holds no items; fill it, or remove it")


def _fewclue(root: Any) -> list[Part]:
    if not isinstance(root, (str, Path)) or not Path(root).is_dir():
        raise BadInput(f"--suite fewclue reads a folder with its tasks ({', '.join(TASKS)}), not {root!r}")
    found = [name for name in TASKS if (Path(root) / name / "train_0.json").is_file()]
    if not found:
        raise BadInput(f"{root} holds no task of FewCLUE: {', '.join(TASKS)}, each a folder with train_0.json")
    parts: list[Part] = []
    for name in found:
        task = load_fewclue(root, name)
        trains = [task.splits[split][0] for split in SPLITS]
        items: list[Item] = [*task.test, *(item for train in trains for item in train)]
        ends = len(task.test) + np.cumsum([0, *(len(train) for train in trains)])
        held = np.arange(len(task.test))
        splits = tuple((np.arange(a, b), held) for a, b in pairwise(ends))
        texts = [item.text if item.other is None else f"{item.text} / {item.other}" for item in items]
        parts.append((name, from_arrays(texts, [str(item.label) for item in items]), splits))
    return parts


def _digest(data: SuiteData) -> str:
    """What tells this data set, with its class text and base classes, from others."""
    text, base = data.text or {}, data.base
    bases = base if isinstance(base, tuple) else () if base is None else (base,)
    names = [*map(str, data.labels), *map(str, text)]
    names += [str(label) for part in bases[1:] for label in part]
    found = hashlib.sha256(json.dumps(names).encode())
    for rows in (data.features.x, *data.features.views.values(), *text.values(), *bases[:1]):
        found.update(np.ascontiguousarray(rows).tobytes())
    return found.hexdigest()[:16]
