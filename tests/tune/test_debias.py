"""PEFTDebias (188): counterfactual texts, plug-ins against bias, and where they go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_lm
import torch
from torch import nn

from handful.encode.lm import LanguageModel
from handful.errors import BadInput
from handful.tune import Data, Delta, Masked, Own, load_delta, save_delta
from handful.tune.cloze import IGNORED, Cloze, covered
from handful.tune.counterfactual import AXES, counterfactual
from handful.tune.debias import Debias, Lasso, inside, prompts_of, untied, with_debias
from handful.tune.first_token import FirstToken
from handful.tune.recipe import Seen

WORDS = ["he", "she", "king", "queen", "his", "her", "doctor", "nurse", "is", "was", "a", "the", "tall", "kind", "."]
TEXTS = ["he was a doctor .", "she is a nurse .", "the king is tall .", "his nurse was kind .", "the doctor was kind ."]


def model() -> LanguageModel:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(special + WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer = tiny_lm._fast(
        made, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]"
    )
    return LanguageModel(tiny_lm.body("masked", len(tokenizer)), tokenizer, "masked")


def bits(module: nn.Module) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in module.state_dict().items()}


def quick(**options: Any) -> Debias:
    return Debias(**({"steps": 6, "lr": 1e-2, "batch": 4} | options))


@pytest.mark.paper(188, oracle="a")
def test_a_swap_undoes_itself_and_leaves_out_what_it_does_not_touch() -> None:
    pairs = [row for row in AXES["gender"] if sum(set(row) & set(other) != set() for other in AXES["gender"]) == 1]
    assert len(pairs) > 40  # him, his and her are not among them
    texts = [f"The {a} saw a {b}, and {a}!" for a, b in pairs] + ["Nothing here."]
    once = counterfactual(texts, pairs)
    assert len(once) == 2 * len(pairs) and once[1::2] == texts[:-1]
    assert all(new != old for new, old in zip(once[::2], once[1::2], strict=True))
    assert counterfactual(once[::2], pairs)[::2] == texts[:-1]
    assert counterfactual(["saw her"], "gender")[0] == "saw his"  # of him/her and his/her the last


@pytest.mark.paper(188, oracle="b")
def test_signs_at_the_end_of_a_word_stay() -> None:
    assert counterfactual(["he said. Said he."])[0] == "she said. Said she."
    assert counterfactual(["Mr. Ray, a king; Queen?"])[0] == "Mrs. Ray, a queen; King?"
    with pytest.raises(BadInput, match="none of the 1 texts"):
        counterfactual(["said he."], ends="")


def test_copies_exchange_one_word_at_a_time() -> None:
    out = counterfactual(["a jewish church and a jewish bible", "no word"], "religion")
    assert out == [
        "a jewish church and a jewish bible",
        "a christian church and a christian bible", "a muslim church and a muslim bible",
        "a jewish synagogue and a jewish bible", "a jewish mosque and a jewish bible",
        "a jewish church and a jewish torah", "a jewish church and a jewish quran",
        "no word",
    ]  # fmt: skip
    drawn = {tuple(counterfactual(["rabbi and torah and imam", "no"], "religion", "random", seed=s)) for s in range(40)}
    first = {tuple(one[0].split()[::2]) for one in drawn}
    # One draw for each place in a row: rabbi and torah stand first in theirs, so they go together.
    assert first == {(a, b, c) for (a, b) in (("priest", "bible"), ("imam", "quran")) for c in ("rabbi", "priest")}
    assert all(one[1:] == ("rabbi and torah and imam",) for one in drawn)


def test_what_no_counterfactual_can_be_made_of_is_refused() -> None:
    with pytest.raises(BadInput, match=r"axis 'gendr'.*gender"):
        counterfactual(["he"], "gendr")
    with pytest.raises(BadInput, match="two different words"):
        counterfactual(["he"], [("he",)])
    with pytest.raises(BadInput, match="take mode 'copies'"):
        counterfactual(["a jewish man"], "religion", "swap")
    with pytest.raises(BadInput, match="two different words"):
        counterfactual(["he"], [("he", 1)])  # type: ignore[list-item]
    with pytest.raises(BadInput, match="not the one text 'he said'"):
        counterfactual("he said")
    with pytest.raises(BadInput, match="item 1 is 'None', a NoneType, not a text"):
        counterfactual(["he said", None])  # type: ignore[list-item]
    with pytest.raises(BadInput, match="none of the 2 texts has a word"):
        counterfactual(["no", "words"])


def test_words_are_covered_as_in_bert() -> None:
    lm = model()
    prompts = prompts_of(lm, TEXTS * 200)
    shown, asked = covered(prompts, lm.tokenizer, torch.Generator().manual_seed(0))
    words = torch.tensor([one.ids for one in prompts if len(one.ids) == 7])
    rows = torch.tensor([i for i, one in enumerate(prompts) if len(one.ids) == 7])
    seen = torch.tensor([shown[i].ids for i in rows.tolist()])
    chosen = asked[rows][:, :7] != IGNORED
    assert torch.equal(seen[~chosen], words[~chosen]) and not chosen[:, [0, 6]].any()
    assert float(chosen[:, 1:6].float().mean()) == pytest.approx(0.15, abs=0.02)
    masked = (seen == lm.tokenizer.mask_token_id)[chosen].float().mean()
    same = (seen == words)[chosen].float().mean()
    assert float(masked) == pytest.approx(0.8, abs=0.05) and float(same) == pytest.approx(0.105, abs=0.05)


@pytest.mark.paper(188, oracle="f")
def test_a_sparse_plug_in_is_where_full_tuning_moves_most_and_stays_as_it_is_downstream() -> None:
    lm = model()
    was = bits(lm.tower)
    phi = quick(keep=0.05).fit(lm, TEXTS)
    assert bits(lm.tower) == was and phi.rows == 8  # the text without a listed word is left out
    assert lm.tower.body.get_output_embeddings().weight is lm.tower.body.get_input_embeddings().weight
    with untied(lm.tower):
        body = {
            f"{h.site}.{h.parameter}": h.P.numel()
            for h in Delta.begin(lm.tower, inside(lm.tower), torch.Generator()).each()
        }
    bert = dict(lm.tower.named_parameters())
    assert body == {name: p.numel() for name, p in bert.items() if name.startswith("body.bert.") and "Norm" not in name}
    assert phi.delta.trainable() == int(0.05 * sum(body.values()))
    entries = {f"{h.site}.{h.parameter}": h for h in phi.delta.each()}
    assert all(isinstance(h.change, Masked) for h in entries.values())
    kept = phi.delta.merge(lm.tower)
    with_phi = {name: p.detach().clone() for name, p in lm.tower.named_parameters()}
    kept.undo()
    for name, p in lm.tower.named_parameters():
        at = entries[name].tensors["at"] if name in entries else torch.tensor([], dtype=torch.long)
        outside = torch.ones(p.numel(), dtype=torch.bool).index_fill(0, at, False)
        assert torch.equal(with_phi[name].flatten()[outside], p.flatten()[outside])
    frozen = {name: h.D.detach().clone() for name, h in entries.items()}
    data = Data(prompts_of(lm, TEXTS), torch.tensor([0, 1, 0, 1, 0]), ("tall", "kind"))
    tuned = with_debias(lm, phi.delta, data, epochs=20, lr=1e-2)
    assert bits(lm.tower) == was
    assert all(torch.equal(h.D, frozen[name]) for name, h in entries.items())
    assert tuned.logits(data.inputs).argmax(1).tolist() == [0, 1, 0, 1, 0]
    tuned.merge()
    moved = 0
    for name, h in entries.items():
        now = lm.tower.get_parameter(name).flatten()
        assert torch.equal(now[h.tensors["at"]], with_phi[name].flatten()[h.tensors["at"]])
        moved += int((now != with_phi[name].flatten()).sum())
    assert moved > 1000


@pytest.mark.parametrize("peft", ["sft", "lora", "adapter"])
def test_a_plug_in_answers_as_it_did_in_training_and_from_its_file(peft: str, tmp_path: Path) -> None:
    lm = model()
    phi = quick(peft=peft, keep=0.05).fit(lm, TEXTS).delta
    data = Data(prompts_of(lm, TEXTS), torch.tensor([0, 1, 0, 1, 0]))
    idle = {when: with_debias(lm, phi, data, when=when, epochs=1, lr=0.0) for when in ("before", "after")}
    with phi.attached(lm.tower), torch.no_grad():
        by_hand = idle["before"].readout(idle["before"].readout.look(lm.tower, data.inputs), lm.tower)
    for tuned in idle.values():
        torch.testing.assert_close(tuned.logits(data.inputs), by_hand, atol=1e-5, rtol=1e-5)
    save_delta(phi, tmp_path / "phi")
    with untied(lm.tower):
        again = load_delta(tmp_path / "phi", lm.tower)
    assert bits(again) == bits(phi)
    other = with_debias(lm, again, data, epochs=1, lr=0.0)
    assert torch.equal(other.logits(data.inputs), idle["before"].logits(data.inputs))


def test_after_training_a_sparse_plug_in_is_added_to_what_was_learnt() -> None:
    lm = model()
    phi = quick(keep=0.05).fit(lm, TEXTS).delta
    data = Data(prompts_of(lm, TEXTS), torch.tensor([0, 1, 0, 1, 0]))
    with untied(lm.tower):
        plain = with_debias(lm, None, data, when="none", epochs=3, lr=1e-2).merge()
        learnt = {name: p.detach().clone() for name, p in lm.tower.named_parameters()}
        plain.undo()
        with_debias(lm, phi, data, when="after", epochs=3, lr=1e-2).merge()
    for h in phi.each():
        name = f"{h.site}.{h.parameter}"
        expected = learnt[name].flatten().index_add(0, h.tensors["at"], h.tensors["D"].detach())
        torch.testing.assert_close(lm.tower.get_parameter(name).detach().flatten(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("peft", ["lora", "adapter"])
def test_other_plug_ins_go_in_before_or_after_training(peft: str) -> None:
    lm = model()
    was = bits(lm.tower)
    phi = quick(peft=peft).fit(lm, TEXTS).delta
    frozen = bits(phi)
    data = Data(prompts_of(lm, TEXTS), torch.tensor([0, 1, 0, 1, 0]))
    answers = {when: with_debias(lm, phi, data, when=when, epochs=10, lr=1e-2) for when in ("before", "after", "none")}
    assert bits(lm.tower) == was and bits(phi) == frozen
    assert answers["after"].losses == answers["none"].losses != answers["before"].losses
    logits = {when: tuned.logits(data.inputs) for when, tuned in answers.items()}
    assert not torch.equal(logits["after"], logits["none"])
    # After: what was trained without phi, with phi on top of it.
    plain = answers["none"]
    with plain.delta.attached(lm.tower), phi_on_top(lm, phi, plain.delta):
        by_hand = plain.readout(plain.readout.look(lm.tower, data.inputs), lm.tower)
    torch.testing.assert_close(logits["after"], by_hand.detach(), atol=1e-5, rtol=1e-5)


def phi_on_top(lm: LanguageModel, phi: Delta, task: Delta) -> Any:
    """Phi as hooks beside the modules, whose weights hold the task."""
    from contextlib import contextmanager

    @contextmanager
    def attached() -> Any:
        handles = [lm.tower.get_submodule(h.site).register_forward_hook(h.hook) for h in phi.each()]
        yield
        for handle in handles:
            handle.remove()

    return attached()


@pytest.mark.paper(188, oracle="i")
def test_a_reversed_gradient_is_minus_its_strength_times_the_plain_one() -> None:
    lm = model()
    prompts = prompts_of(lm, TEXTS)
    data = Data(prompts, torch.tensor([0, 1, 0, 1, 0]))
    embedding = lm.tower.body.get_input_embeddings().weight
    found = {}
    for s in (0.0, 1.0, 2.5):
        head = FirstToken(0.3, None, s)
        head.begin(lm.tower, data, torch.Generator().manual_seed(0))
        head.eval()
        logits = head(head.look(lm.tower, prompts), lm.tower)
        loss = nn.functional.cross_entropy(logits, data.labels)
        found[s] = torch.autograd.grad(loss, [embedding, head.w])
    for s in (1.0, 2.5):
        torch.testing.assert_close(found[s][0], -s * found[0.0][0], atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(found[s][1], found[0.0][1], atol=1e-6, rtol=1e-4)
    assert found[0.0][0].abs().max() > 1e-3


def test_the_group_is_unlearnt_by_adversarial_plug_ins() -> None:
    lm = model()
    texts, groups = TEXTS[:4] * 2, ["m", "f", "m", "m"] * 2
    found = quick(way="adversarial", peft="lora", cloze=True).fit(lm, texts, groups, weights={"f": 3.0})
    assert found.rows == 8 and found.delta.trainable() > 0
    assert {type(h.change).__name__ for h in found.delta.each()} == {"LoRA"}
    with pytest.raises(BadInput, match="8 texts need a group each"):
        quick(way="adversarial").fit(lm, texts)
    with pytest.raises(BadInput, match="groups are for"):
        quick().fit(lm, texts, groups)
    with pytest.raises(BadInput, match="is causal"):
        quick().fit(tiny_lm.tiny("causal"), texts)
    with pytest.raises(BadInput, match="peft is"):
        Debias(peft="prefix")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="weight for the group 'men'"):
        quick(way="adversarial").fit(model(), TEXTS, ["m", "f", "m", "f", "m"], weights={"men": 2.0})
    with pytest.raises(BadInput, match="item 4 is '7', a int, not a text"):
        quick(way="adversarial").fit(model(), [*TEXTS[:4], 7], ["m", "f", "m", "f", "m"])  # type: ignore[list-item]
    for wrong in ({"l1": -1.0}, {"reverse": -1.0}, {"steps": 0}, {"length": 2}):
        with pytest.raises(BadInput, match=r"must not be negative|at least 1 and length at least 3"):
            quick(**wrong)
    plain = Data(prompts_of(model(), TEXTS), torch.tensor([0, 1, 0, 1, 0]))
    with pytest.raises(BadInput, match="a single class, '0'"):
        with_debias(model(), None, Data(plain.inputs, torch.zeros(5, dtype=torch.long)), when="none")
    with pytest.raises(BadInput, match="make them of texts with prompts_of"):
        with_debias(model(), None, Data(TEXTS, plain.targets), when="none")
    with pytest.raises(BadInput, match="no plug-in"):
        with_debias(lm, None, Data(prompts_of(lm, texts), torch.arange(8) % 2))


def test_the_penalty_is_on_what_was_moved() -> None:
    lm = model()
    with untied(lm.tower):
        placed = [one for one in inside(lm.tower) if isinstance(one.change, Own)]
        delta = Delta.begin(lm.tower, placed, torch.Generator())
        with torch.no_grad():
            for parameter in delta.parameters():
                parameter += 0.5
        many = sum(p.numel() for p in lm.tower.parameters())
        nothing = torch.zeros(1)
        with delta.attached(lm.tower):
            learns = tuple(delta.parameters())
            seen = Seen(lm.tower, FirstToken(), nothing, [], nothing, nothing, 0, 1, torch.Generator(), learns)
            penalty = float(Lasso(0.1)(seen).detach())
    assert penalty == pytest.approx(0.1 * 0.5 * delta.trainable() / many, rel=1e-4)


def test_a_batch_without_a_covered_word_costs_nothing() -> None:
    lm = model()
    nothing = torch.zeros(1)
    prompts = prompts_of(lm, ["he"])
    seen = Seen(lm.tower, FirstToken(), nothing, prompts, nothing, nothing, 0, 1, torch.Generator().manual_seed(0))
    assert float(Cloze(lm.tokenizer, 1e-9)(seen).detach()) == 0.0
