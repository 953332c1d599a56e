"""Room `read`: files, tables, folders, arrays and hub data sets in, one `Dataset` out.

Everything is imported when first used, so that ``import handful.read`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from handful.read.arrays import from_arrays as from_arrays
    from handful.read.classnames import read_class_names as read_class_names
    from handful.read.dataset import Dataset as Dataset
    from handful.read.dataset import ImageFile as ImageFile
    from handful.read.dataset import Provenance as Provenance
    from handful.read.images import open_image as open_image
    from handful.read.reader import read as read
    from handful.read.words import is_code as is_code
    from handful.read.words import readable as readable
    from handful.read.writing import write_table as write_table

_WHERE = {
    "Dataset": "dataset",
    "ImageFile": "dataset",
    "Provenance": "dataset",
    "from_arrays": "arrays",
    "is_code": "words",
    "open_image": "images",
    "read": "reader",
    "read_class_names": "classnames",
    "readable": "words",
    "write_table": "writing",
}
__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"handful.read.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return __all__
