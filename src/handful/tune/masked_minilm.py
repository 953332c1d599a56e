"""A masked language model made of the embedded sentence encoder, for where no other can be had.

    body    MiniLM's layers and word embeddings
    head    u = norm(gelu(W h + b)),  logits of words E u + c, with E the word embeddings; W, b, c begin anew
    learns  everything, by covering words of sentences without labels (`handful.tune.cloze`)

A stand-in: give it tens of thousands of sentences and as much time as there is; a model that its authors trained for
this is better. The folder that `save` writes is read by `language_model("hf:FOLDER")`.

    made = masked_minilm()
    losses = teach(made, sentences, leave_out=test_sentences, time_limit=900)
    save(made, "minilm-mlm")
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from handful.core.train import AdamW, seeded
from handful.encode.lm import LanguageModel
from handful.encode.minilm import HEADS, TOKENIZER, MiniLM
from handful.encode.prompt import Prompt
from handful.errors import BadInput
from handful.files import refuse_existing, whole_folder
from handful.protocols import Progress
from handful.tune.cloze import Cloze
from handful.tune.loop import tune
from handful.tune.prompting import everything
from handful.tune.recipe import Data, Recipe, Stage

SPECIAL = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]",
           "mask_token": "[MASK]"}  # fmt: skip


def masked_minilm(encoder: MiniLM | None = None, *, seed: int = 0) -> LanguageModel:
    """MiniLM with a head for words that knows nothing yet.

    Args:
        encoder: by default the embedded one; a tuned one keeps what it has learnt.
        seed: of the head's first numbers.
    """
    import transformers
    from tokenizers import Tokenizer

    library: Any = transformers  # without types
    encoder = encoder or MiniLM()
    weights = encoder.tower().state_dict()
    words, places = (weights[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position"))
    blocks = [name for name in weights if name.endswith("intermediate.dense.bias")]
    config = library.BertConfig(
        vocab_size=len(words), hidden_size=words.shape[1], num_hidden_layers=len(blocks), num_attention_heads=HEADS,
        intermediate_size=len(weights[blocks[0]]), max_position_embeddings=len(places),
    )  # fmt: skip
    with seeded(seed):
        body = library.BertForMaskedLM(config).eval()
    body.bert.load_state_dict(weights)
    cut = Tokenizer.from_buffer(encoder.parts()[TOKENIZER])
    cut.no_padding()
    cut.no_truncation()
    tokenizer = library.PreTrainedTokenizerFast(tokenizer_object=cut, model_max_length=len(places), **SPECIAL)
    return LanguageModel(body, tokenizer, "masked", "minilm-mlm")


def teach(
    model: LanguageModel,
    texts: Sequence[str],
    *,
    leave_out: Sequence[str] = (),
    epochs: float = 3,
    lr: float = 5e-4,
    batch: int = 32,
    length: int = 128,
    share: float = 0.15,
    seed: int = 0,
    time_limit: float | None = None,
    progress: Progress | None = None,
) -> list[float]:
    """Let ``model`` learn to say which words are covered; its weights change.

    Args:
        model: masked.
        texts: sentences.
        leave_out: those that are never to be learnt from, such as test sentences; letters' case and spaces do not
            count.
        epochs, lr, batch: of training; the rate rises for a twentieth of it, then falls linearly.
        length: tokens of a text that are read, at most.
        share: of the words that are asked.
        seed: of every draw.
        time_limit: seconds after which no further step is taken.
        progress: called with (steps done, steps in all).

    Returns:
        The loss of each step.

    Raises:
        BadInput: the model is not masked; no text is left.
    """
    if model.kind != "masked":
        raise BadInput(f"{model.name!r} is {model.kind}; words are covered for a masked model")
    barred = {_plain(text) for text in leave_out} | {""}
    prompts = [_prompt(model, text, length) for text in dict.fromkeys(texts) if _plain(text) not in barred]
    if not prompts:
        raise BadInput("no text to learn from is left")
    stage = Stage(
        epochs=epochs, lr=lr, batch=batch, warmup=0.05, weight_decay=0.01, clip=1.0, trains=("delta",),
        update=lambda decay: AdamW(1e-6, decay),
    )  # fmt: skip
    recipe = Recipe(everything(model.tower), (Cloze(model.tokenizer, share),), (stage,))
    data = Data(prompts, torch.zeros(len(prompts), dtype=torch.long), ("text",))
    found = tune(model.tower, data, recipe, seed=seed, time_limit=time_limit, progress=progress)
    found.merge()
    return found.losses


def save(model: LanguageModel, folder: str | Path, *, force: bool = False) -> None:
    """Write model and tokenizer as `transformers` does, whole or not at all.

    Args:
        model: what is written.
        folder: made; its parents too.
        force: replace one that is there.

    Raises:
        BadInput: the folder is there and ``force`` is not given.
    """
    refuse_existing(folder, force)
    body: Any = model.tower.body
    with whole_folder(folder) as part:
        body.save_pretrained(part)
        model.tokenizer.save_pretrained(part)


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _prompt(model: LanguageModel, text: str, length: int) -> Prompt:
    ids = model.tokenizer.encode(text, truncation=True, max_length=min(length, model.most))
    return Prompt.of(ids, model.tokenizer.mask_token_id)
