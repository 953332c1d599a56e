"""Models of the Hugging Face family, by name or folder: ``hf:intfloat/e5-small-v2``, ``hf:./my-model``.

What is loaded is data, never code: safetensors weights, architectures that ``transformers`` itself has, no remote code
(`handful.encode.hf_safety`).
A folder is read without any network; a name is looked up on the hub, downloaded once, and then treated as a folder.
Needs the extra ``hub``.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any

from handful.encode.arithmetic import Arithmetic, Precision, chosen, dtype
from handful.encode.base import FeatureEncoder
from handful.encode.hf_safety import check_files
from handful.encode.options import USUAL, Options
from handful.encode.parts import check_names
from handful.encode.weights import checked_sha256
from handful.errors import BadInput, HandfulError

PREFIX = "hf:"
_DATA = ("*.json", "*.safetensors", "*.txt", "*.model")
_SMALL = 1 << 24
"""Weights that a model may lack: a pooler that is not used."""
_OTHER_RUNTIMES = ("onnx", "openvino")


def hub_encoder(name: str, precision: Precision = "auto", options: Options = USUAL) -> FeatureEncoder:
    """The encoder for ``"hf:NAME"``, ``"hf:NAME@REVISION"`` or ``"hf:FOLDER"``.

    What it is follows from its files: a sentence-transformers folder or a plain text encoder (texts), CLIP or SigLIP
    (images, with a text tower), another vision model such as DINO (images).

    Args:
        name: with its prefix.
        precision: ``"auto"`` is float32 here, since what bfloat16 does to these weights was not measured.
        options: what is read of long texts and what is shown of images.

    Raises:
        BadInput: ``transformers`` is not installed; no such model; its files are not of a known kind or not safe; an
            option that is for texts is given for images, or the other way round.
    """
    needs_transformers(name)
    return _encoder(find(name), precision, options)


def encoder_of_files(name: str, files: Mapping[str, bytes], options: Options = USUAL) -> FeatureEncoder:
    """The encoder that these files are; ``name`` is what it is called and is not looked up anywhere.

    They are written to a temporary folder, since `transformers` reads folders only; it goes when the encoder does.
    Their names must have been checked.

    Raises:
        BadInput: as `hub_encoder`; a file is of a kind that is not read.
        HandfulError: the folder cannot be written.
    """
    needs_transformers(name)
    for file in files:
        if not any(PurePosixPath(file).match(pattern) for pattern in _DATA):
            raise BadInput(f"encoder {name!r} has a file {file[:80]!r}, of a kind that no model needs")
    room = tempfile.TemporaryDirectory(prefix="handful-", ignore_cleanup_errors=True)
    try:
        for file, data in files.items():
            path = Path(room.name, *file.split("/"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    except OSError as error:
        raise HandfulError(f"encoder {name!r} cannot be unpacked to {room.name}: {error.strerror or error}") from error
    return _encoder(Source(name, Path(room.name).resolve(), room=room), "auto", options)


def needs_transformers(name: str) -> None:
    """Raise `BadInput` saying what to install when `transformers` is not there."""
    if find_spec("transformers") is None:
        raise BadInput(f'encoder {name!r} needs transformers; run: pip install "handful[hub]"')


def _encoder(source: Source, precision: Precision, options: Options) -> FeatureEncoder:
    try:
        return _built(source, precision, options)
    except HandfulError:
        raise
    except Exception as error:  # settings of any type and value: each trips something else
        raise BadInput(f"encoder {source.name!r} cannot be loaded: {first_line(error)}") from error


def _built(source: Source, precision: Precision, options: Options) -> FeatureEncoder:
    check_files(source)
    if options.language_model:
        from handful.encode.speaker import language_encoder

        return language_encoder(source)
    arithmetic = chosen(precision, fast=False)
    if (source.folder / "modules.json").is_file() or not source.reads_images:
        from handful.encode.hf_sentence import sentence_recipe
        from handful.encode.hf_text import HubText

        options.check(source.name, "text")
        return HubText(source, sentence_recipe(source), arithmetic, options.long)
    from handful.encode.hf_vision import HubImages

    options.check(source.name, "image")
    return HubImages(source, arithmetic, options.frame)


@dataclass(frozen=True)
class Source:
    """The files of a model on this machine.

    Args:
        name: as the user has it.
        folder: where they lie.
        revision: the hub's commit, where they come from there.
        room: the temporary folder that they lie in, kept as long as this is.
    """

    name: str
    folder: Path
    revision: str | None = None
    room: tempfile.TemporaryDirectory[str] | None = None

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """Its data files, sorted: what is looked at, and what makes its identity."""
        return tuple(sorted({path for pattern in _DATA for path in self.folder.rglob(pattern) if self._counts(path)}))

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
        digest = checked_sha256 if self.room is None else _sha256  # a temporary path is not worth remembering
        listed = "\n".join(f"{path.relative_to(self.folder).as_posix()} {digest(path)}" for path in self.files)
        return hashlib.sha256(listed.encode()).hexdigest()[:16]

    def parts(self) -> dict[str, bytes]:
        """Every data file by its path in the folder. Raises `BadInput` for names that fit no model file."""
        named = {path.relative_to(self.folder).as_posix(): path for path in self.files}
        check_names(self.name, named)
        return {name: path.read_bytes() for name, path in named.items()}

    def read_json(self, file: str) -> Any:
        """A JSON file of the folder. Raises `BadInput` naming it when it is absent or damaged."""
        try:
            return json.loads((self.folder / file).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise BadInput(f"encoder {self.name!r} has no {file}; is {self.folder} the folder of a model?") from error
        except (OSError, ValueError, RecursionError) as error:
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

    def load_model(self, arithmetic: Arithmetic, folder: Path | None = None, loader: str = "AutoModel") -> Any:
        """The model, for inference, in ``arithmetic``. Raises `BadInput` when weights it would use are missing.

        ``loader`` is the class of `transformers` that reads it, such as one with a head for words.
        """
        if ((folder or self.folder) / "adapter_config.json").exists():  # would open whatever base model it names
            raise BadInput(f"encoder {self.name!r} is an adapter without its base model; merge the two and save that")
        if self.room is not None:
            self._check_size(folder or self.folder)
        model, info = self.load(loader, folder, use_safetensors=True, output_loading_info=True)
        # A pooler that was never trained is common in text models and harmless: it is not used.
        missing = sorted(key for key in info["missing_keys"] if "pooler" not in key)
        if missing:
            raise BadInput(
                f"encoder {self.name!r} lacks {len(missing)} of the weights of {type(model).__name__}, {missing[0]!r} "
                "among them; random ones would stand in for them"
            )
        return model.eval().requires_grad_(False).to(dtype(arithmetic))

    def _check_size(self, folder: Path) -> None:
        # What the configuration claims and the file lacks would be made up before it is missed, at any size.
        import torch

        config = self.load("AutoConfig", folder)
        with quiet(), torch.device("meta"):
            import transformers

            claimed = sum(p.numel() for p in transformers.AutoModel.from_config(config).parameters())  # type: ignore[no-untyped-call]
        held = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        if claimed > held + _SMALL:
            raise BadInput(f"encoder {self.name!r} claims {claimed:,} weights, but its files hold {held:,} bytes")

    def _counts(self, path: Path) -> bool:
        steps = path.relative_to(self.folder).parts
        return path.is_file() and not any(step.startswith(".") or step in _OTHER_RUNTIMES for step in steps)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def find(name: str) -> Source:
    """The files of ``hf:FOLDER`` or ``hf:NAME@REVISION``, downloaded where they are not here. Raises `BadInput`."""
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
