"""ComPEFT (149): what is kept, what it costs in bits, merging, and the authors' code."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from handful.compress import (
    Ternary,
    balanced,
    choose,
    compose,
    compress,
    load_compressed,
    merged,
    save_compressed,
    task_vector,
    with_vector,
)
from handful.compress.compeft import FarFromNothing
from handful.compress.golomb import mean_bits, remainder_bits
from handful.compress.ternary import total
from handful.core.merging import flat, largest, merge, unflat
from handful.errors import BadInput
from handful.tune import BRA, IA3, Delta, Intrinsic, LoRA, Masked, Own, Placed

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "compeft.json").read_text(encoding="utf-8"))


def normal(d: int, seed: int = 0, std: float = 1.0) -> torch.Tensor:
    return std * torch.randn(d, generator=torch.Generator().manual_seed(seed))


def random(d: int, share: float, seed: int = 0) -> Ternary:
    draw = torch.Generator().manual_seed(seed)
    kept = torch.rand(d, generator=draw) < share
    return Ternary((torch.randint(0, 2, (d,), generator=draw) * 2 - 1).to(torch.int8) * kept, 0.25)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.fc1, self.fc2 = nn.Linear(6, 8), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(torch.tanh(self.fc1(x)))  # type: ignore[no-any-return]


def learnt(net: nn.Module, change: object, seed: int = 3) -> Delta:
    delta = Delta.begin(net, [Placed(change)], torch.Generator().manual_seed(7))  # type: ignore[arg-type]
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in delta.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=draw)
    return delta


@pytest.mark.paper(149, oracle="a")
def test_with_all_kept_only_the_magnitudes_are_lost() -> None:
    tau = normal(1000)
    torch.testing.assert_close(compress(tau, 1.0, 2.0).dense(), 2 * tau.std() * tau.sign())


@pytest.mark.paper(149, oracle="b")
@pytest.mark.parametrize("density", [0.001, 0.05, 0.2, 0.5, 0.99])
def test_the_largest_are_kept_and_one_more(density: float) -> None:
    tau = normal(1000)
    kept = compress(tau, density).signs != 0
    assert int(kept.sum()) == int(1000 * density) + 1
    assert tau[kept].abs().min() > tau[~kept].abs().max()
    assert torch.equal(kept, largest(tau, density))


@pytest.mark.paper(149, oracle="c")
def test_the_error_of_a_normal_vector_is_the_closed_form() -> None:
    from scipy.stats import norm

    tau, k = normal(1_000_000, std=3.0), 0.2
    m1 = 2 * norm.pdf(norm.ppf(1 - k / 2))
    assert m1 == pytest.approx(0.35100, abs=1e-5)
    for alpha, share in ((1.0, 0.4980), (m1 / k, 0.3840)):
        error = (tau - compress(tau, k, alpha).dense()).square().mean() / 9
        assert float(error) == pytest.approx(1 - 2 * alpha * m1 + alpha**2 * k, rel=0.01)
        assert float(error) == pytest.approx(share, rel=0.01)
    # The mean magnitude of what is kept is the alpha that is nearest in squares.
    assert compress(tau, k, magnitude="mean").scale == pytest.approx(3 * m1 / k, rel=0.01)


@pytest.mark.paper(149, oracle="d")
@given(
    st.lists(st.sampled_from([-1, 0, 0, 0, 0, 1]), min_size=1, max_size=300), st.floats(-(2.0**100), 2.0**100, width=32)
)
def test_what_is_read_is_what_was_written(signs: list[int], scale: float) -> None:
    one = Ternary(torch.tensor(signs, dtype=torch.int8), scale)
    again = Ternary.from_bytes(one.to_bytes(), len(signs))
    assert torch.equal(again.signs, one.signs) and again.scale == one.scale
    assert torch.equal(one.masks().dense(), one.dense())


@pytest.mark.paper(149, oracle="d")
@pytest.mark.parametrize("places", [[], [0], [99_999], [0, 99_999], [50_000], [0, 1, 2, 99_997], "all"])
def test_codes_at_the_ends(places: list[int] | str) -> None:
    signs = torch.zeros(100_000, dtype=torch.int8)
    signs[slice(None) if places == "all" else torch.tensor(places, dtype=torch.long)] = -1
    assert torch.equal(Ternary.from_bytes(Ternary(signs, 1.0).to_bytes()).signs, signs)


@pytest.mark.paper(149, oracle="e")
@pytest.mark.parametrize(("share", "entropy", "code"), [(0.05, 0.336, 0.339), (0.1, 0.569, 0.576), (0.2, 0.922, 0.939)])
def test_the_code_is_as_long_as_its_formula(share: float, entropy: float, code: float) -> None:
    one = random(200_000, share)
    a_bit = one.bits / len(one)
    assert share * (mean_bits(share) + 1) == pytest.approx(code, abs=5e-4)
    assert a_bit == pytest.approx(code, rel=0.03) and a_bit > 0.999 * one.entropy
    assert one.entropy == pytest.approx(entropy, rel=0.02)
    assert one.ratio == pytest.approx(16 / a_bit)


@pytest.mark.paper(149, oracle="e")
def test_no_other_length_of_remainders_is_shorter() -> None:
    def bits(share: float, b: int) -> float:
        return b + 1 / (1 - (1 - share) ** (2**b))

    for share in np.linspace(0.01, 0.99, 99):
        best = min(range(9), key=lambda b, k=float(share): bits(k, b))
        assert bits(float(share), remainder_bits(float(share))) == pytest.approx(bits(float(share), best), rel=0.01)


@pytest.mark.paper(149, oracle="f")
@settings(max_examples=50)
@given(st.integers(1, 200), st.integers(0, 10**6))
def test_masks_reckon_as_dense_vectors_do(d: int, seed: int) -> None:
    one, other = random(d, 0.4, seed), random(d, 0.7, seed + 1)
    whole = int((one.signs.int() * other.signs.int()).sum())
    assert one.dot(other) == 0.25**2 * whole
    distance = (one.dense() - other.dense()).norm()
    assert one.masks().distance(other.masks()) == pytest.approx(float(distance), abs=1e-6)
    assert torch.equal(total([one.masks(), other.masks()]), one.dense() + other.dense())


@pytest.mark.paper(149, oracle="g")
def test_compressing_twice_keeps_places_and_signs() -> None:
    first = compress(normal(5000), 0.1, 4.0)
    again = compress(first.dense(), 0.1, 1 / math.sqrt(first.share))
    assert torch.equal(again.signs, first.signs)
    assert again.scale == pytest.approx(first.scale, rel=0.01)


@pytest.mark.paper(149, oracle="h")
@pytest.mark.parametrize("density", [5, 20, 50])
@pytest.mark.parametrize("alpha", [1.0, 3.0])
def test_as_the_authors_compress(density: int, alpha: float) -> None:
    tau = torch.tensor(GOLDEN["inputs"]["vector"])
    theirs = torch.tensor(GOLDEN["expected"]["compressed"][f"{density},{alpha}"])
    torch.testing.assert_close(compress(tau, density / 100, alpha).dense(), theirs, atol=1e-6, rtol=1e-6)


@pytest.mark.paper(149, oracle="i")
def test_ties_is_the_authors_and_pefts() -> None:
    rows = torch.tensor(GOLDEN["inputs"]["rows"])
    assert bool((rows.sum(0) == 0).any())  # where the sign of most entries decides
    torch.testing.assert_close(merge(rows, "ties"), torch.tensor(GOLDEN["expected"]["ties"]))

    from peft.utils.merge_utils import ties

    vectors = [normal(500, seed) for seed in range(4)]
    weights = [1.0, 0.5, 2.0, 1.5]
    cut = [v * largest(v, 0.3) for v in vectors]
    theirs = ties(cut, torch.tensor(weights), 1.0)
    ours = merge(vectors, "ties", weights=weights, density=0.3)
    decided = torch.stack(cut).sum(0) != 0  # elsewhere nothing, in both
    torch.testing.assert_close(ours[decided], theirs[decided])
    assert not ours[~decided].any()


def test_merging_by_hand() -> None:
    rows = torch.tensor([[1.0, -2.0, 0.0], [3.0, 1.0, 0.0]])
    torch.testing.assert_close(merge(rows, "mean"), torch.tensor([2.0, -0.5, 0.0]))
    torch.testing.assert_close(merge(rows, "mean", weights=[3, 1]), torch.tensor([1.5, -1.25, 0.0]))
    torch.testing.assert_close(merge(rows, "arithmetic", scale=0.5), torch.tensor([2.0, -0.5, 0.0]))
    torch.testing.assert_close(merge(rows, "ties"), torch.tensor([2.0, -2.0, 0.0]))
    for bad, match in (
        (lambda: merge(rows, "median"), "merged by mean"),  # type: ignore[arg-type]
        (lambda: merge(rows, weights=[1.0]), "2 vectors, but 1 weights"),
        (lambda: merge([rows[0], rows[0, :2]]), "of one length"),
        (lambda: merge([]), "of one length"),
        (lambda: merge(rows, weights=[1.0, -1.0]), "must not sum to 0"),
    ):
        with pytest.raises(BadInput, match=match):
            bad()


def test_vectors_are_in_the_order_of_names() -> None:
    tensors = {"b": torch.arange(4.0).reshape(2, 2), "a": torch.tensor([9.0])}
    assert flat(tensors).tolist() == [9, 0, 1, 2, 3]
    again = unflat(flat(tensors), tensors)
    assert all(torch.equal(again[name], tensors[name]) for name in tensors)
    with pytest.raises(BadInput, match="does not fit tensors of 5"):
        unflat(torch.zeros(4), tensors)


def test_shares_of_each_tensor() -> None:
    tau = torch.cat([normal(100, 1), 100 * normal(100, 2)])
    assert not compress(tau, 0.2).signs[:100].any()
    each = compress(tau, 0.2, parts=[100, 100]).signs
    assert int((each[:100] != 0).sum()) == int((each[100:] != 0).sum()) == 21


def test_what_did_not_change_is_not_kept() -> None:
    tau = torch.cat([torch.zeros(90), normal(10)])
    one = compress(tau, 0.5, magnitude="mean")
    assert one.scale == pytest.approx(float(tau[90:].abs().mean())) and one.share == pytest.approx(0.1)


def test_the_best_on_examples_is_chosen_and_of_equal_ones_the_smallest() -> None:
    tau = normal(2000)

    def near(vector: torch.Tensor) -> float:
        return -float((vector - tau).square().sum())

    found = choose(tau, near)
    assert len(found.tried) == 45 and found.best.score == max(one.score for one in found.tried)
    assert found.best.density == 0.5 and found.best.alpha == 1.0  # m1 / k = 1.27 is nearest to it
    assert near(found.update.dense()) == found.best.score
    assert choose(tau, lambda vector: 1.0).best.density == 0.05


def test_where_a_delta_begins() -> None:
    net = Net()
    x = normal(12).reshape(2, 6)
    for change in (LoRA(2), IA3(), Own(), Masked(9), BRA(2)):
        delta = learnt(net, change)
        tau = task_vector(delta, net)
        assert len(tau) == delta.trainable()
        if isinstance(change, (IA3, Own, Masked)):  # nothing learnt is nothing
            assert not task_vector(Delta.begin(net, [Placed(change)], torch.Generator()), net).any()
            assert tau.std() == pytest.approx(0.1, rel=0.5)
        same = with_vector(delta, net, tau)
        with delta.attached(net):
            before = net(x)
        with same.attached(net):
            torch.testing.assert_close(net(x), before)
    lora = learnt(net, LoRA(2))
    assert torch.equal(task_vector(lora, net), flat(dict(lora.named_parameters())))


def test_balanced_factors_do_the_same_and_lose_less() -> None:
    net, x = Net(), normal(120).reshape(20, 6)
    delta = learnt(net, LoRA(4))
    with torch.no_grad():
        for holder in delta.each():
            holder.tensors["B"].mul_(0.05)
    even = balanced(delta, net)
    for holder in even.each():
        a, b = (float(holder.tensors[name].detach().square().mean()) for name in "AB")
        assert a == pytest.approx(b, rel=1e-4)
    base = net(x)
    with delta.attached(net):
        wanted = net(x)
    with even.attached(net):
        torch.testing.assert_close(net(x), wanted)

    def lost(one: Delta) -> float:
        """Share of the change of the output that is lost, at the best alpha."""

        def score(vector: torch.Tensor) -> float:
            with torch.no_grad(), with_vector(one, net, vector).attached(net):
                return -float((net(x) - wanted).norm() / (base - wanted).norm())

        return -choose(task_vector(one, net), score, (0.5,)).best.score

    assert lost(even) < 0.7 * lost(delta)


def test_the_narrowest_factors_are_balanced_too() -> None:
    """One number has no spread, and factors of zeros no size: what they do stays."""
    net = nn.ModuleDict({"fc1": nn.Linear(6, 1)})
    delta = learnt(net, LoRA(1))
    x = normal(12).reshape(2, 6)
    for factor in (1.0, 0.0):
        with torch.no_grad():
            delta.holders[0].A *= factor
        answers = []
        for one in (delta, balanced(delta, net)):
            with one.attached(net):
                answers.append(net["fc1"](x))
        torch.testing.assert_close(*answers)


def test_numbers_that_places_share_are_compressed_once(tmp_path: Path) -> None:
    net, x = Net(), normal(12).reshape(2, 6)
    delta = learnt(net, Intrinsic(12))
    update = compress(task_vector(delta, net), 0.5)
    assert len(update) == delta.trainable() == 12 + 2
    save_compressed(update, delta, tmp_path / "d")
    with load_compressed(tmp_path / "d", net).attached(net):
        found = net(x)
    with with_vector(delta, net, update.dense()).attached(net):
        torch.testing.assert_close(net(x), found)
    assert not torch.equal(found, net(x))


def test_a_file_gives_what_was_compressed(tmp_path: Path) -> None:
    net, x = Net(), normal(12).reshape(2, 6)
    for change in (LoRA(2), IA3("in"), Own(), BRA(2)):
        delta = learnt(net, change)
        update = compress(task_vector(delta, net), 0.3)
        save_compressed(update, delta, tmp_path / "d")
        with load_compressed(tmp_path / "d", net).attached(net):
            found = net(x)
        with with_vector(delta, net, update.dense()).attached(net):
            assert torch.equal(net(x), found)


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    net, path = Net(), tmp_path / "d"
    delta = learnt(net, LoRA(2))
    update = compress(task_vector(delta, net))
    save_compressed(update, delta, path)
    other = Net()
    with torch.no_grad():
        other.fc1.weight += 1
    with pytest.raises(BadInput, match="belong to a model with the fingerprint"):
        load_compressed(path, other)
    whole = path.read_bytes()
    for at in (-1, -20):
        broken = bytearray(whole)
        broken[at] ^= 1
        path.write_bytes(broken)
        with pytest.raises(BadInput, match="damaged"):
            load_compressed(path, net)
    with pytest.raises(BadInput, match="numbers learnt"):
        save_compressed(Ternary(update.signs[1:], 1.0), delta, path)
    code = update.to_bytes()
    for bad, match in (
        (code[:-1], "cut off or damaged"), (b"", "no code"), (b"PK" + code, "no code"),
    ):  # fmt: skip
        with pytest.raises(BadInput, match=match):
            Ternary.from_bytes(bad)
    with pytest.raises(BadInput, match="it must be of 7"):
        Ternary.from_bytes(code, 7)


def test_vectors_that_cannot_be_compressed_are_refused() -> None:
    tau = normal(10)
    for bad, match in (
        (lambda: compress(tau, 0.0), "density is a share above 0"),
        (lambda: compress(tau, 1.5), "density is a share above 0"),
        (lambda: compress(tau, alpha=-1.0), "alpha is above 0"),
        (lambda: compress(tau, alpha=1e39), "finite in single precision"),
        (lambda: compress(torch.zeros(10)), "nothing was learnt"),
        (lambda: compress(torch.ones(10)), "no spread"),
        (lambda: compress(tau * float("nan")), "finite"),
        (lambda: compress(tau[None]), "one row"),
        (lambda: compress(tau, magnitude="max"), "'std' or 'mean'"),  # type: ignore[arg-type]
        (lambda: compress(tau, parts=[4, 4]), "must make the 10 of it"),
        (lambda: compress(tau, parts=[10, 0]), "none of them empty"),
        (lambda: with_vector(learnt(Net(), LoRA(2)), Net(), tau), r"shape \(10,\) does not fit tensors of"),
        (lambda: choose(tau, lambda v: 0.0, ()), "no density"),
        (lambda: choose(tau, lambda v: float("nan")), "no score"),
        (lambda: Ternary(torch.tensor([2], dtype=torch.int8), 1.0), "signs are -1, 0 and 1"),
        (lambda: Ternary(torch.tensor([0.5]), 1.0), "signs are -1, 0 and 1"),
        (lambda: random(5, 0.5).dot(random(6, 0.5)), "no inner product"),
        (lambda: total([random(5, 0.5).masks(), random(6, 0.5).masks()]), "no sum"),
    ):
        with pytest.raises(BadInput, match=match):
            bad()


def test_a_vector_that_still_holds_its_beginning_is_doubted() -> None:
    with pytest.warns(FarFromNothing, match="taken off, 1 for the vectors of"):
        compress(0.995 + normal(500, std=0.09))


def test_experts_are_merged_as_they_are_compressed() -> None:
    net = Net()
    deltas = [learnt(net, LoRA(2), seed) for seed in range(3)]
    one = merged(deltas, net, "mean")
    rows = [compress(task_vector(delta, net)).dense() for delta in deltas]
    torch.testing.assert_close(task_vector(one, net), torch.stack(rows).mean(0))
    plain = merged(deltas, net, "mean", compressed=None)
    torch.testing.assert_close(
        task_vector(plain, net), torch.stack([task_vector(d, net) for d in deltas]).mean(0), atol=1e-6, rtol=1e-5
    )
    with pytest.raises(BadInput, match="2 or more"):
        merged(deltas[:1], net)
    with pytest.raises(BadInput, match="number 1 are of another kind"):
        merged([deltas[0], learnt(net, IA3())], net)


def test_weights_of_experts_are_found_without_a_gradient() -> None:
    vectors = [normal(200, seed) for seed in range(3)]
    wanted = torch.tensor([0.8, 0.0, -0.5])
    target = wanted @ torch.stack(vectors)
    asked = 0

    def loss(vector: torch.Tensor) -> float:
        nonlocal asked
        asked += 1
        return float((vector - target).square().mean())

    weights, vector = compose(vectors, loss, evaluations=200, penalty=0.0)
    assert asked <= 200
    torch.testing.assert_close(weights.float(), wanted, atol=0.02, rtol=0)
    torch.testing.assert_close(vector, weights.float() @ torch.stack(vectors))
    few, _ = compose(vectors, loss, evaluations=1)
    assert not few.any()  # the beginning, where nothing else was tried
    heavy, _ = compose(vectors, loss, penalty=100.0)
    assert heavy.abs().sum() < 0.05
    for bad, match in (
        (lambda: compose([], loss), "at least one vector"),
        (lambda: compose([vectors[0], vectors[1][:9]], loss), "of one length"),
        (lambda: compose(vectors, lambda vector: float("nan")), "no number"),
    ):
        with pytest.raises(BadInput, match=match):
            bad()


@pytest.mark.paper(149, oracle="j")
def test_a_real_vector(shared_data: Path) -> None:
    """The (IA)^3 vectors of T0-3B that r-three/t-few publishes (MIT)."""
    file = shared_data / "t03b_ia3_finish.pt"
    if not file.is_file():
        pytest.skip("the vectors of T0-3B are not here")
    tau = flat(torch.load(file, map_location="cpu", weights_only=True)) - 1
    assert len(tau) == 540_672 and float(tau.std()) == pytest.approx(0.092886, abs=1e-6)
    for k, share, threshold in (
        (0.05, 0.646, 0.18621), (0.1, 0.756, 0.14511), (0.2, 0.865, 0.10565), (0.5, 0.976, 0.05189)
    ):  # fmt: skip
        kept = largest(tau, k)
        assert float(tau[kept].norm() / tau.norm()) == pytest.approx(share, abs=6e-4)
        assert float(tau[kept].abs().min()) == pytest.approx(threshold, abs=6e-6)
    assert compress(tau, 0.2).ratio > 16
