"""Chapter 00: the right answers. Each body is also the solution region of `solutions/00_start_here.py`.

Together they are the ruler of the course: bits, operations, seconds, and an accuracy with its uncertainty.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def compression_ratio(dense_bits: Tensor, compressed_bits: Tensor) -> Tensor:
    """Dense bits over compressed bits of a whole network, > 1 is smaller.

    Args:
        dense_bits, compressed_bits: bits per layer, int64 (layers,).
    """
    return dense_bits.sum() / compressed_bits.sum()


def paired_difference(predictions_a: Tensor, predictions_b: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Accuracy of A minus accuracy of B on the same images, with its 95 % interval.

    Args:
        predictions_a, predictions_b, labels: int64 (n,), n >= 2.
    Returns:
        difference, low, high: fractions.
    """
    d = (predictions_a == labels).double() - (predictions_b == labels).double()
    difference = d.mean()
    margin = 1.96 * d.std() / len(d) ** 0.5
    return difference, difference - margin, difference + margin


def evaluate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """The fraction of right answers of the network that would be deployed; the model comes back as it was given."""
    was_training = model.training
    model.eval()
    correct = total = 0
    with torch.no_grad():
        for x, y in batches:
            correct += (model(x).argmax(1) == y).sum().item()
            total += len(y)
    model.train(was_training)
    return correct / total


def storage_bits(state: Mapping[str, Tensor]) -> int:
    """The bits of all distinct storages behind a state_dict."""
    sizes = {}
    for tensor in state.values():
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
    return 8 * sum(sizes.values())


def pack_bits(codes: Tensor, bits: int) -> Tensor:
    """n whole numbers below 2^bits in ceil(n bits / 8) bytes, least significant bit first: uint8."""
    planes = (codes.reshape(-1, 1).long() >> torch.arange(bits)) & 1
    stream = planes.flatten()
    stream = F.pad(stream, (0, -len(stream) % 8)).view(-1, 8)
    return (stream << torch.arange(8)).sum(1).to(torch.uint8)


def sparse_code(weight: Tensor) -> dict[str, Tensor]:
    """A weight as one bit per entry, packed, and the values of those that are not zero."""
    keep = weight.flatten() != 0
    return {"mask": pack_bits(keep, 1), "values": weight.flatten()[keep]}


def conv_macs(layer: nn.Conv2d, height: int, width: int) -> int:
    """Multiply-accumulates of a convolution for one image of height x width pixels."""
    out = []
    for axis, size in enumerate((height, width)):
        reach = layer.dilation[axis] * (layer.kernel_size[axis] - 1) + 1
        out.append((size + 2 * layer.padding[axis] - reach) // layer.stride[axis] + 1)
    return layer.weight.numel() * out[0] * out[1]


def time_fairly(functions: Mapping[str, Callable[[], object]], repeats: int,
                clock: Callable[[], float] = time.perf_counter) -> dict[str, list[float]]:
    """Seconds of each function, `repeats` samples each, in turns and after a warm-up."""
    samples = {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name, function in functions.items():
            start = clock()
            function()
            seconds = clock() - start
            if turn > 0:
                samples[name].append(seconds)
    return samples


def roofline(batch: int, inputs: int, outputs: int, peak: float, bandwidth: float) -> tuple[float, float]:
    """Arithmetic intensity (FLOP per byte) and attainable seconds of x W^T in float32.

    Args:
        batch, inputs, outputs: x is (batch, inputs), W is (outputs, inputs).
        peak: floating-point operations per second. bandwidth: bytes per second.
    """
    flops = 2 * batch * inputs * outputs
    moved = 4 * (batch * inputs + inputs * outputs + batch * outputs)
    return flops / moved, max(flops / peak, moved / bandwidth)
