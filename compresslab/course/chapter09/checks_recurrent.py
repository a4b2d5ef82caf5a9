"""What a right answer to exercises 9.1 to 9.3 must do. Small inputs first: the last one tried is shown."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from compresslab.course.trial import Trial

# -- 9.1 bits per character --------------------------------------------------------------------------

def surprise(logits: Tensor, targets: Tensor) -> float:
    """The mean of -log2 p, by torch's distribution."""
    return float(-torch.distributions.Categorical(logits=logits.double()).log_prob(targets).mean() / math.log(2))


def verify_bits_per_character(t: Trial) -> str:
    half = torch.tensor([[[0.0, 0.0], [0.0, math.log(3)]]])                    # 1 bit, then 2 bits or log2 4/3
    cases = [(half, torch.tensor([[0, 0]])), (half, torch.tensor([[1, 1]])), (torch.zeros(1, 1, 8), torch.tensor([[5]]))]
    for shape, spread in [((2, 3, 4), 1.0), ((1, 5, 3), 3.0), ((4, 2, 97), 2.0), ((3, 7, 7), 1.0), ((5, 5, 5), 2.0), ((2, 40, 11), 4.0)]:
        cases.append((spread * t.randn(*shape) + t.integer(-30, 30), t.integers(0, shape[2] - 1, shape[:2])))
    for scale in (30.0, 300.0):                                                # confident, and often wrong
        cases.append((scale * t.randn(3, 4, 6), t.integers(0, 5, (3, 4))))
    for logits, targets in cases:
        got, wanted = t.number(t.call(logits, targets)), surprise(logits, targets)
        t.expect(math.isfinite(got), "the answer is not finite: a probability became 0 before its logarithm was taken")
        t.expect(abs(got - wanted) <= 2e-4 * (abs(wanted) + 0.01), f"{targets.numel()} characters cost {wanted:.5g} bits each here, you return {got:.5g}")
    return f"{len(cases)} tensors of logits: -log2 p averaged over all characters, also where p is below 1e-100"


# -- 9.2 load-balanced pruning -----------------------------------------------------------------------

def verify_balanced_mask(t: Trial) -> str:
    cases = [(torch.tensor([[9.0, -8.0], [2.0, 1.0], [7.0, 6.0], [-4.0, 3.0]]), 0.5, 2),
             (torch.tensor([[9.0, -8.0], [2.0, 1.0], [7.0, 6.0], [-4.0, 3.0]]), 0.25, 2),
             (torch.tensor([[1.0, 5.0], [4.0, 2.0], [3.0, 6.0]]), 0.5, 3)]
    for shape, blocks in [((8, 3), 4), ((12, 5), 2), ((12, 7), 6), ((16, 4), 1), ((24, 6), 8), ((5, 9), 5)]:
        weight = t.randn(*shape) * (1 + 3 * torch.rand(shape[0], 1, generator=t.rng))
        cases += [(weight, t.uniform(0.2, 0.5), blocks), (weight, t.uniform(0.5, 0.95), blocks), (weight - 1, t.uniform(0.3, 0.8), blocks),
                  (t.integers(-2, 2, shape).float(), t.uniform(0.3, 0.7), blocks)]
    cases += [(t.randn(6, 4), 0.0, 3), (t.randn(6, 4), 1.0, 3), (t.randn(5, 8).T, 0.4, 4)]
    for weight, sparsity, blocks in cases:
        mask = t.tensor(t.call(weight, sparsity, blocks), shape=weight.shape)
        t.expect(((mask == 0) | (mask == 1)).all(), "a mask holds True and False only")
        dtype, mask = mask.dtype, mask.bool()
        for k in range(blocks):
            kept, size = mask[k::blocks], weight[k::blocks].abs()
            wanted = size.numel() - round(sparsity * size.numel())
            t.expect(int(kept.sum()) == wanted, f"element {k} of {blocks} has {int(kept.sum())} weights left, it must have {wanted}")
            if kept.any() and not kept.all():
                t.expect(size[kept].min() >= size[~kept].max(), f"element {k} of {blocks} drops a weight that is larger than one it keeps")
        t.expect(dtype == torch.bool, f"a mask is of dtype bool, yours is {dtype}")
    return f"{len(cases)} matrices, ties among them: every element has the same number of weights, its largest"


# -- 9.3 one projection for two readers --------------------------------------------------------------

def reader_pairs(t: Trial) -> list[tuple[Tensor, Tensor, int]]:
    """Readers of a state of H numbers: nearly alike, of exact rank, and an output layer that is louder or quieter."""
    cases = [(torch.tensor([[0.0, 2.0], [0.0, 0.0], [0.0, 1.0], [0.0, 1.0]])[:, :2].repeat(2, 1), torch.tensor([[3.0, 0.0]]), 1)]
    for H, V, rank, loud in [(3, 4, 1, 1.0), (4, 3, 2, 1.0), (5, 7, 3, 6.0), (6, 4, 2, 8.0), (4, 9, 4, 1.0), (8, 5, 3, 0.2), (10, 12, 4, 3.0)]:
        cases.append((t.randn(4 * H, H) * torch.linspace(1.5, 0.3, H), loud * t.randn(V, H) * torch.linspace(0.3, 1.5, H) + 0.3, rank))
    low = t.randn(2, 6)
    cases.append((t.randn(24, 2) @ low, t.randn(5, 2) @ low, 2))               # both readers see two directions only
    return cases


def verify_project(t: Trial) -> str:
    cases = reader_pairs(t)
    for weight_hh, head, rank in cases:
        output = t.call(weight_hh, head, rank)
        t.expect(isinstance(output, tuple | list) and len(output) == 3, "return three matrices: P, Z_hh and Z_head")
        H = weight_hh.shape[1]
        P, Z_hh, Z_head = (t.tensor(part, shape=shape).double() for part, shape in
                           zip(output, ((rank, H), (len(weight_hh), rank), (len(head), rank)), strict=True))
        stacked = torch.cat([weight_hh, head]).double()
        error = float((stacked - torch.cat([Z_hh, Z_head]) @ P).square().sum())
        best = float(torch.linalg.svdvals(stacked)[rank:].square().sum())
        t.expect(math.isfinite(error) and error <= best + 1e-4 * float(stacked.square().sum()),
                 f"the squared errors of both readers add up to {error:.5g}; with another P of rank {rank} they are {best:.5g}")
    return f"{len(cases)} pairs of readers: the least error that one projection can have, and none where the rank is enough"
