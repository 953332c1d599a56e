"""Language models of two layers with random weights and real tokenizers of a few words: one of each kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

WORDS = [
    "the",
    "a",
    "film",
    "is",
    "was",
    "it",
    "great",
    "terrible",
    "good",
    "bad",
    "fine",
    "review",
    "news",
    "about",
    "of",
    "and",
    "dull",
    "moving",
    "long",
    "story",
    "actors",
    "plot",
    ".",
    ",",
    "?",
    "!",
    ":",
    "not",
    "very",
    "in",
    "short",
    "yes",
    "no",
    "maybe",
]
CORPUS = [
    "The film was great. It was not very long and the story was moving.",
    "A terrible film, a dull plot and bad actors. It was not good.",
    "It was great, a moving story. Review: good news about the actors",
]


def _fast(tokenizer: Any, **special: str) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=48, **special)


def word_tokenizer() -> Any:
    """As BERT's: one token a word, [CLS] … [SEP]."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(special + WORDS)}, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return _fast(made, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]")


def byte_tokenizer() -> Any:
    """As RoBERTa's and GPT-2's: byte-level, a word holds the space in front of it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    made.train_from_iterator(CORPUS * 3, trainer)
    return _fast(
        made, bos_token="<s>", cls_token="<s>", pad_token="<pad>", eos_token="</s>", sep_token="</s>",
        unk_token="<unk>", mask_token="<mask>",
    )  # fmt: skip


def gap_tokenizer() -> Any:
    """As T5's: gaps have tokens of their own, the end has one, there is no beginning."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    special = ["<pad>", "</s>", "<unk>"]
    gaps = [f"<extra_id_{i}>" for i in range(3)]
    vocabulary = {w: i for i, w in enumerate(special + WORDS + gaps[::-1])}  # the highest number stands first, as in T5
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.add_special_tokens(gaps)
    made.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    return _fast(made, unk_token="<unk>", pad_token="<pad>", eos_token="</s>")


def body(kind: str, vocabulary: int, **options: Any) -> Any:
    """A model of ``kind`` ("masked", "roberta", "causal", "seq2seq")."""
    import torch
    import transformers

    common = {"vocab_size": vocabulary, "pad_token_id": 0}
    bert = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
            "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # fmt: skip
    name, settings = {
        "masked": ("BertForMaskedLM", {**bert, "max_position_embeddings": 48, "initializer_range": 0.5}),
        "roberta": ("RobertaForMaskedLM", {**bert, "max_position_embeddings": 50, "pad_token_id": 1,
                                           "type_vocab_size": 1, "initializer_range": 0.5}),
        "causal": ("LlamaForCausalLM", {**bert, "intermediate_size": 24, "num_key_value_heads": 1, "pad_token_id": 1,
                                        "max_position_embeddings": 48, "initializer_range": 0.5}),
        "seq2seq": ("T5ForConditionalGeneration", {
            "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "feed_forward_proj": "gated-gelu",
            "decoder_start_token_id": 0, "eos_token_id": 1, "initializer_factor": 1.0, "dropout_rate": 0.0}),
    }[kind]  # fmt: skip
    make = getattr(transformers, name)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make(make.config_class(**{**common, **settings, **options}))
    return model.eval()


TOKENIZERS = {"masked": word_tokenizer, "roberta": byte_tokenizer, "causal": byte_tokenizer, "seq2seq": gap_tokenizer}


def tiny(kind: str, **options: Any) -> Any:
    """A `LanguageModel`."""
    from handful.encode.lm import LanguageModel

    tokenizer = TOKENIZERS[kind]()
    return LanguageModel(body(kind, len(tokenizer), **options), tokenizer, _KIND.get(kind, kind), kind)  # type: ignore[arg-type]


_KIND = {"roberta": "masked"}


def save(kind: str, folder: Path) -> Path:
    """Its files, as its authors would save them."""
    tokenizer = TOKENIZERS[kind]()
    tokenizer.save_pretrained(folder)
    body(kind, len(tokenizer)).save_pretrained(folder)
    return folder


def logits_everywhere(tower: Any, prompts: Any) -> Any:
    """Logits at every place of the prompts ``[B, L, V]``, of a seq2seq model the decoder's first."""
    import torch

    inputs = tower.inputs(prompts)
    if tower.kind == "seq2seq":
        inputs["decoder_input_ids"] = torch.full((len(prompts), 1), tower.body.config.decoder_start_token_id)
        return tower.body(**inputs).logits
    return tower.body(**inputs).logits[:, tower.front.ahead :]
