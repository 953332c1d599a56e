"""FastFit as its authors' README trains it, for `tuning.py`.

    pip install 'fast-fit==1.2.1' 'transformers<5'

40 epochs, batches of 32, each example four times in its batch, Adafactor; a class is told by its name. Three things are
set for a processor and for today's libraries, none of which changes the method: columns of a batch that hold nothing
but padding are cut (FastFit pads to the longest text of all), mixed precision is bfloat16 in place of half, which
processors are slow at, and ``datasets.load_metric``, which is no more and is needed for scores on the way only, is left
out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import torch


def learn(texts: list[str], labels: list[str], seed: int) -> Callable[[list[str]], list[str]]:
    """FastFit taught the examples: what labels texts."""
    import datasets

    datasets.load_metric = None  # fastfit imports it
    from fastfit import train
    from transformers import default_data_collator

    from handful.encode.weights import MINILM

    train.load_metric = lambda *_, **__: None
    names = {label.replace("_", " "): label for label in labels}
    columns = {"text": texts, "label": [label.replace("_", " ") for label in labels]}
    examples = datasets.Dataset.from_dict(columns)
    made = train.FastFitTrainer(
        model_name_or_path=str(MINILM.path().parent), dataset=datasets.DatasetDict(
            train=examples, validation=examples, test=examples
        ),
        text_column_name="text", label_column_name="label", max_text_length=128, num_train_epochs=40,
        per_device_train_batch_size=32, dataloader_drop_last=False, num_repeats=4, optim="adafactor",
        clf_loss_factor=0.1, bf16=True, use_cpu=True, report_to="none", save_strategy="no", seed=seed,
        output_dir=tempfile.mkdtemp(), disable_tqdm=True,
    )  # fmt: skip

    def cut(features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = default_data_collator(features)
        for side in ("query", "doc"):
            longest = int(batch[f"{side}_attention_mask"].sum(1).max())
            for part in ("input_ids", "attention_mask"):
                batch[f"{side}_{part}"] = batch[f"{side}_{part}"][:, :longest]
        return batch

    made.trainer.data_collator = cut
    model = made.train().eval()

    def predict(asked: list[str]) -> list[str]:
        found = []
        for begin in range(0, len(asked), 64):
            tokens = made.tokenizer(
                asked[begin : begin + 64],
                padding=True,
                truncation=True,
                max_length=128,
                return_tensors="pt",
                return_attention_mask=True,
            )
            scores = model.inference_forward(tokens["input_ids"], tokens["attention_mask"])
            found += [names[model.config.id2label[i]] for i in scores.argmax(1).tolist()]
        return found

    return predict
