"""Models of the Hugging Face family, by name or folder: ``hf:intfloat/e5-small-v2``, ``hf:./my-model``.

What is loaded is data, never code: safetensors weights, architectures that ``transformers`` itself has, no remote code.
A folder is read without any network; a name is looked up on the hub, downloaded once, and then treated as a folder.
Needs the extra ``hub``.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from handful.encode.arithmetic import Arithmetic, Precision, chosen, dtype
from handful.encode.base import FeatureEncoder
from handful.encode.weights import checked_sha256
from handful.errors import BadInput

PREFIX = "hf:"
_DATA = ("*.json", "*.safetensors", "*.txt", "*.model")
_OTHER_RUNTIMES = ("onnx", "openvino")


def hub_encoder(name: str, precision: Precision = "auto") -> FeatureEncoder:
    """The encoder for ``"hf:NAME"``, ``"hf:NAME@REVISION"`` or ``"hf:FOLDER"``.

    What it is follows from its files: a sentence-transformers folder or a plain text encoder (texts), CLIP or SigLIP
    (images, with a text tower), another vision model such as DINO (images).

    Args:
        name: with its prefix.
        precision: ``"auto"`` is float32 here, since what bfloat16 does to these weights was not measured.

    Raises:
        BadInput: ``transformers`` is not installed; no such model; its files are not of a known kind or not safe.
    """
    if find_spec("transformers") is None:
        raise BadInput(f'encoder {name!r} needs transformers; run: pip install "handful[hub]"')
    source = _find(name)
    arithmetic = chosen(precision, fast=False)
    if (source.folder / "modules.json").is_file() or not source.reads_images:
        from handful.encode.hf_sentence import sentence_recipe
        from handful.encode.hf_text import HubText

        return HubText(source, sentence_recipe(source), arithmetic)
    from handful.encode.hf_vision import HubImages

    return HubImages(source, arithmetic)


@dataclass(frozen=True)
class Source:
    """The files of a model on this machine; ``revision`` is the hub's, where it comes from there."""

    name: str
    folder: Path
    revision: str | None = None

    @cached_property
    def config(self) -> dict[str, Any]:
        """``config.json``."""
        return dict(self.read_json("config.json"))

    @property
    def reads_images(self) -> bool:
        """Whether an image processor comes with it."""
        return any((self.folder / file).is_file() for file in ("preprocessor_config.json", "processor_config.json"))

    @cached_property
    def digest(self) -> str:
        """One hash of all its data files, so that the same model has the same identity under any name."""
        files = sorted(path for pattern in _DATA for path in self.folder.rglob(pattern) if self._counts(path))
        listed = "\n".join(f"{path.relative_to(self.folder).as_posix()} {checked_sha256(path)}" for path in files)
        return hashlib.sha256(listed.encode()).hexdigest()[:16]

    def read_json(self, file: str) -> Any:
        """A JSON file of the folder. Raises `BadInput` naming it when it is absent or damaged."""
        try:
            return json.loads((self.folder / file).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise BadInput(f"encoder {self.name!r} has no {file}; is {self.folder} the folder of a model?") from error
        except (OSError, ValueError) as error:
            raise BadInput(f"encoder {self.name!r}: {file} cannot be read ({first_line(error)})") from error

    def load(self, kind: str, folder: Path | None = None, **options: Any) -> Any:
        """``transformers.<kind>.from_pretrained`` on the folder, or on one inside it. Raises `BadInput`."""
        with quiet():
            import transformers

            try:
                return getattr(transformers, kind).from_pretrained(
                    folder or self.folder, local_files_only=True, trust_remote_code=False, **options
                )
            except Exception as error:  # from_pretrained raises nearly everything
                raise BadInput(f"encoder {self.name!r} cannot be loaded: {first_line(error)}") from error

    def load_model(self, arithmetic: Arithmetic, folder: Path | None = None) -> Any:
        """The model, for inference, in ``arithmetic``. Raises `BadInput` when weights it would use are missing."""
        if ((folder or self.folder) / "adapter_config.json").exists():  # would open whatever base model it names
            raise BadInput(f"encoder {self.name!r} is an adapter without its base model; merge the two and save that")
        model, info = self.load("AutoModel", folder, use_safetensors=True, output_loading_info=True)
        # A pooler that was never trained is common in text models and harmless: it is not used.
        missing = sorted(key for key in info["missing_keys"] if "pooler" not in key)
        if missing:
            raise BadInput(
                f"encoder {self.name!r} lacks {len(missing)} of the weights of {type(model).__name__}, {missing[0]!r} "
                "among them; random ones would stand in for them"
            )
        return model.eval().requires_grad_(False).to(dtype(arithmetic))

    def _counts(self, path: Path) -> bool:
        inside = path.relative_to(self.folder).parts[:-1]
        return path.is_file() and not any(part.startswith(".") or part in _OTHER_RUNTIMES for part in inside)


def first_line(error: Exception) -> str:
    """What an error says, as one line of bearable length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:199] + "…"


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing printed by ``transformers`` inside the block; its settings are as before afterwards."""
    from transformers.utils import logging as their_logging

    level, bar = their_logging.get_verbosity(), their_logging.is_progress_bar_enabled()
    their_logging.set_verbosity(logging.CRITICAL)
    their_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        their_logging.set_verbosity(level)
        if bar:
            their_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _find(name: str) -> Source:
    wanted = name.removeprefix(PREFIX)
    folder = Path(wanted).expanduser()
    if wanted and folder.is_dir():
        return Source(name, folder.resolve())
    if not wanted or wanted.startswith((".", "~", "/")) or "\\" in wanted or wanted.count("/") > 1:
        raise BadInput(f"encoder {name!r}: there is no such folder; give hf:FOLDER or hf:NAME as on the hub")
    return _downloaded(name, *wanted.partition("@")[::2])


def _downloaded(name: str, model: str, revision: str) -> Source:
    from huggingface_hub import snapshot_download

    others = [f"{folder}/*" for folder in _OTHER_RUNTIMES]
    try:
        folder = snapshot_download(model, revision=revision or None, allow_patterns=[*_DATA], ignore_patterns=others)
    except Exception as error:  # no network, no such model, no permission, full disk: each has its own class
        raise BadInput(
            f"encoder {name!r} cannot be had from the hub ({first_line(error)}); check name and network, or give the "
            "folder of a model: hf:FOLDER"
        ) from error
    return Source(name, Path(folder), Path(folder).name)
