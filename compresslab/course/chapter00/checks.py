"""Chapter 00: what is verified of 0.1 to 0.6, ratio, accuracy and bytes. Properties, the smallest inputs first."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from compresslab.course.trial import Trial

# -- 0.1 ---------------------------------------------------------------------------------------------


def verify_compression_ratio(t: Trial) -> str:
    def bits(*values: int) -> Tensor:
        return torch.tensor(values)

    t.close(t.number(t.call(bits(320), bits(32))), 10.0, "320 bits in 32 bits are a ratio of 10")
    t.close(t.number(t.call(bits(320, 320), bits(32, 32))), 10.0, "two layers that both shrink 10 times, "
                                                                  "together")
    t.close(t.number(t.call(bits(64, 640), bits(64, 64))), 704 / 128, "the ratio of the whole network")
    for layers in (1, 2, 3, 5):
        compressed = t.integers(1, 500, (layers,))
        dense = compressed * t.integers(1, 40, (layers,))
        ratio = t.number(t.call(dense, compressed))
        t.close(ratio, dense.sum().item() / compressed.sum().item(), "the ratio of the whole network")
        merged = t.number(t.call(dense.sum()[None], compressed.sum()[None]))
        t.close(merged, ratio, "calling all layers one layer must not change the ratio")
        t.close(t.number(t.call(dense, dense)), 1.0, "a network that is not compressed has ratio 1")
    return "one to five layers; merging layers changes nothing; nothing compressed is 1"


# -- 0.2 ---------------------------------------------------------------------------------------------


def _draw_pair(t: Trial, n: int, accuracy: float = 0.9, changed: float = 0.06) -> tuple[Tensor, Tensor, Tensor]:
    """Labels and two correlated prediction vectors, as a network and its compressed version give them."""
    labels = t.integers(0, 9, (n,))
    a = torch.where(torch.rand(n, generator=t.rng) < accuracy, labels, t.integers(0, 9, (n,)))
    b = torch.where(torch.rand(n, generator=t.rng) < changed, t.integers(0, 9, (n,)), a)
    return a, b, labels


def _verify_interval(t: Trial, a: Tensor, b: Tensor, labels: Tensor) -> tuple[float, float, float]:
    result = t.call(a, b, labels)
    t.expect(isinstance(result, tuple | list) and len(result) == 3, "return three numbers: difference, low, "
                                                                    "high")
    difference, low, high = (t.number(value) for value in result)
    right_a, right_b = (a == labels).double(), (b == labels).double()
    t.close(difference, (right_a.mean() - right_b.mean()).item(), "difference is the accuracy of A minus "
                                                                  "that of B")
    t.close(difference - low, high - difference, "the interval must lie evenly around the difference")
    d, root = right_a - right_b, len(labels) ** 0.5
    wanted = [1.96 * d.std(correction=correction).item() / root for correction in (0, 1)]  # n or n - 1: both are used
    fits = any(math.isclose((high - low) / 2, margin, rel_tol=2e-3, abs_tol=1e-9) for margin in wanted)
    t.expect(fits, f"the margin must be 1.96 s / sqrt(n) = {wanted[1]:.4g}, yours is {(high - low) / 2:.4g}")
    return difference, low, high


def verify_paired_difference(t: Trial) -> str:
    same = torch.tensor([1, 2, 3, 4])
    _verify_interval(t, torch.tensor([1, 2, 3, 9]), torch.tensor([1, 2, 9, 8]), same)
    _verify_interval(t, torch.tensor([1, 2, 3, 9]), torch.tensor([1, 2, 3, 8]), same)  # both wrong: a tie
    for n in (50, 400, 2000):
        a, b, labels = _draw_pair(t, n)
        forward, backward = _verify_interval(t, a, b, labels), _verify_interval(t, b, a, labels)
        t.close(forward[0], -backward[0], "exchanging A and B must change the sign")
    covered = 0
    for _ in range(100):  # a and b are equally good here: the true difference is 0
        a, b, labels = _draw_pair(t, 500)
        swap = torch.rand(500, generator=t.rng) < 0.5
        _, low, high = (t.number(v) for v in t.call(torch.where(swap, a, b), torch.where(swap, b, a), labels))
        covered += low <= 0 <= high
    t.expect(88 <= covered, f"of 100 intervals around a true difference of 0, only {covered} hold it")
    return f"sign, margin and ties; of 100 intervals for two equally good networks, {covered} hold 0"


# -- 0.3 ---------------------------------------------------------------------------------------------


class NetWithDropout(nn.Module):
    """A small network that behaves very differently in train mode."""

    def __init__(self, rng: torch.Generator) -> None:
        super().__init__()
        self.norm, self.drop, self.fc = nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3)
        for tensor in (self.fc.weight, self.fc.bias, self.norm.running_mean):
            tensor.data.copy_(torch.randn(tensor.shape, generator=rng))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.drop(self.norm(x)))


def _and_mode(function: Callable, model: nn.Module, batches: list) -> tuple[Any, bool]:
    return function(model, batches), model.training


def verify_evaluate(t: Trial) -> str:
    def check(model: nn.Module, sizes: tuple[int, ...], errors: float) -> None:
        with torch.no_grad():
            xs = [t.randn(size, 4) for size in sizes]
            ys = [model.eval()(x).argmax(1) for x in xs]
        ys = [torch.where(torch.rand(len(y), generator=t.rng) < errors, (y + 1) % 3, y) for y in ys]
        right = sum(int((model(x).argmax(1) == y).sum()) for x, y in zip(xs, ys, strict=True))
        for mode in (False, True):
            given = copy.deepcopy(model).train(mode)  # a trial remembers its inputs: do not touch them afterwards
            result, after = t.use(_and_mode, given, list(zip(xs, ys, strict=True)))
            t.close(t.number(result), right / sum(sizes), "the accuracy is that of the network in eval mode")
            t.expect(after == mode, f"the model came in {_name(mode)} mode and must come back in it")

    check(NetWithDropout(t.rng), (8,), 0.0)
    check(NetWithDropout(t.rng), (16, 4), 0.0)
    for _ in range(3):
        check(NetWithDropout(t.rng), (32, 32, 5), 0.3)
        model, x, x_last = NetWithDropout(t.rng), t.randn(40, 4), t.randn(3, 4)  # every error in the small last batch
        with torch.no_grad():
            y, last = model(x).argmax(1), (model(x_last).argmax(1) + 1) % 3
        result, _ = t.use(_and_mode, model, [(x, y), (x_last, last)])
        t.close(t.number(result), 40 / 43, "each image counts once, also in a smaller last batch")
    return "batch norm and dropout switched off, each image counted once, the model back as it came"


def _name(mode: bool) -> str:
    return "train" if mode else "eval"


# -- 0.4 ---------------------------------------------------------------------------------------------

def _tied(n: int) -> dict[str, Tensor]:
    weight = torch.ones(n)
    return {"embed.weight": weight, "head.weight": weight}


def _views(n: int) -> dict[str, Tensor]:
    base = torch.ones(2 * n)
    return {"q.weight": base[:n], "k.weight": base[n:]}


def _base_and_views(n: int) -> dict[str, Tensor]:
    base = torch.ones(2 * n)
    return {"qkv.weight": base, "k.weight": base[n:], "v.weight": base[n:].view(1, n)}


def _small_view_first(n: int) -> dict[str, Tensor]:
    base = torch.ones(2 * n)
    return {"q.weight": base[:n], "qkv.weight": base}


STATES: tuple[tuple[str, Callable[[int], dict[str, Tensor]], Callable[[int], int]], ...] = (
    ("one float32 tensor, {n} numbers", lambda n: {"weight": torch.ones(n)}, lambda n: 32 * n),
    ("one float32 tensor, {n} zeros", lambda n: {"weight": torch.zeros(n)}, lambda n: 32 * n),
    ("two float32 tensors, {n} numbers each", lambda n: {"a": torch.ones(n), "b": torch.ones(n)}, lambda n: 64 * n),
    ("one float16 tensor, {n} numbers", lambda n: {"weight": torch.ones(n).half()}, lambda n: 16 * n),
    ("{n} float32 and {n} int8 numbers",
     lambda n: {"scale": torch.ones(n), "codes": torch.ones(n, dtype=torch.int8)}, lambda n: 40 * n),
    ("{n} booleans and one int64 counter",
     lambda n: {"mask": torch.ones(n, dtype=torch.bool), "steps": torch.tensor(3)}, lambda n: 8 * n + 64),
    ("one float32 tensor, {n} numbers, under two names", _tied, lambda n: 32 * n),
    ("two views of one storage, {n} float32 numbers each, side by side", _views, lambda n: 64 * n),
    ("a float32 tensor of 2 x {n} numbers, and two views of its second half", _base_and_views, lambda n: 64 * n),
    ("a view of {n} float32 numbers, then the tensor of 2 x {n} that it looks into", _small_view_first,
     lambda n: 64 * n),
    ("an empty tensor and {n} float32 numbers", lambda n: {"a": torch.ones(0), "b": torch.ones(n)}, lambda n: 32 * n),
)


class _State:
    """A state_dict to be built: inside the use, so that every function meets storages that are really shared."""

    def __init__(self, name: str, build: Callable[[int], dict[str, Tensor]], n: int) -> None:
        self.__name__, self.build, self.n = name.format(n=n), build, n  # the name is what a learner reads

    def __call__(self) -> dict[str, Tensor]:
        return self.build(self.n)


def _build_and_count(function: Callable, state: _State) -> Any:
    return function(state())


def verify_storage_bits(t: Trial) -> str:
    for n in (3, t.integer(4, 90)):
        for name, build, bits in STATES:
            got = t.number(t.use(_build_and_count, _State(name, build, n)))
            t.expect(got == bits(n), f"expected {bits(n)} bits, got {got:g}")
    return f"{len(STATES)} kinds of state: six dtypes, zeros, tied tensors, views that overlap"


# -- 0.5 ---------------------------------------------------------------------------------------------


def _unpack(packed: Tensor, bits: int, n: int) -> list[int]:
    """As slow and as plain as possible: a big number, cut into codes."""
    number = int.from_bytes(bytes(packed.tolist()), "little")
    return [(number >> (i * bits)) & (2**bits - 1) for i in range(n)]


def verify_pack_bits(t: Trial) -> str:
    cases = [(torch.tensor([1, 0, 1]), 1), (torch.tensor([1, 2]), 4), (torch.tensor([5, 3, 6]), 3)]
    for bits in (1, 2, 3, 4, 5, 6, 7, 8):
        for n in (1, 8, 13, t.integer(20, 60)):
            cases.append((t.integers(0, 2**bits - 1, (n,)), bits))
    cases += [(torch.zeros(0, dtype=torch.int64), 3), (torch.full((9,), 255, dtype=torch.uint8), 8),
              (t.integers(0, 1, (11,)).bool(), 1), (t.integers(0, 15, (7,)).to(torch.uint8), 4)]
    for codes, bits in cases:
        n = codes.numel()
        packed = t.call(codes, bits)
        size = math.ceil(n * bits / 8)
        packed = t.tensor(packed)
        t.expect(packed.numel() == size, f"{n} codes of {bits} bits fit into {size} bytes, yours take "
                                         f"{packed.numel()}")
        t.tensor(packed, shape=(size,), dtype=torch.uint8)
        back = torch.tensor(_unpack(packed, bits, n), dtype=torch.int64)
        t.expect(back.equal(codes.long()), "unpacking, lowest bit first, must give the codes back; it gives "
                                           f"{back[:8].tolist()} ... for {codes[:8].long().tolist()} ...")
        rest = int.from_bytes(bytes(packed.tolist()), "little") >> (n * bits)
        t.expect(rest == 0, "the unused bits of the last byte must be 0")
    return f"{len(cases)} round trips with 1 to 8 bits, odd lengths and an empty tensor included"


# -- 0.6 ---------------------------------------------------------------------------------------------


def verify_sparse_code(t: Trial) -> str:
    weights = [torch.tensor([0.0, 2.0, 0.0, -1.0])]
    for shape in ((3, 5), (8, 16), (4, 3, 3, 3)):
        for density in (0.1, 0.5):
            weights.append(t.randn(*shape) * (torch.rand(shape, generator=t.rng) < density))
    weights += [weights[-1].permute(3, 1, 0, 2), torch.zeros(2, 9), t.randn(5, 5), torch.zeros(0, 4)]
    for weight in weights:
        n, nonzeros = weight.numel(), int(weight.count_nonzero())
        code = t.call(weight)
        t.expect(isinstance(code, dict) and set(code) == {"mask", "values"}, 'return {"mask": ..., "values": ...}')
        mask, values = t.tensor(code["mask"]), t.tensor(code["values"])
        t.tensor(values, shape=(nonzeros,), dtype=torch.float32)
        size = math.ceil(n / 8)
        taken = mask.numel() * mask.element_size()
        t.expect(taken == size, f"one bit for each of {n} weights is {size} bytes, your mask takes {taken}")
        t.tensor(mask, shape=(size,), dtype=torch.uint8)
        t.expect(values.untyped_storage().nbytes() == 4 * nonzeros,
                 "the storage behind your values is larger than the values: a view keeps all of it")
        kept = torch.tensor(_unpack(mask, 1, n), dtype=torch.bool)
        back = torch.zeros(n)
        if kept.sum() == nonzeros:
            back[kept] = values
        t.expect(back.view(weight.shape).equal(weight), "decoding must give exactly the weight back")
    return f"{len(weights)} weights come back exactly, from n/8 bytes of mask and 4 bytes per nonzero"
