"""Chapter 00: other right answers, written the way other people would write them. Every one must pass."""

from __future__ import annotations

import math
import random
import time

import numpy as np
import torch
from torch.nn import functional as F


def ratio_with_a_loop(dense_bits, compressed_bits):
    dense = compressed = 0
    for d, c in zip(dense_bits.tolist(), compressed_bits.tolist(), strict=True):
        dense, compressed = dense + d, compressed + c
    return dense / compressed


def ratio_weighted_mean(dense_bits, compressed_bits):
    share = compressed_bits / compressed_bits.sum()
    return (share * dense_bits / compressed_bits).sum().item()


def paired_from_flips(predictions_a, predictions_b, labels):
    right_a, right_b = predictions_a == labels, predictions_b == labels
    n = len(labels)
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    difference = (only_a - only_b) / n
    margin = 1.96 * math.sqrt((only_a + only_b) / n - difference**2) / math.sqrt(n)
    return difference, difference - margin, difference + margin


def paired_with_numpy(predictions_a, predictions_b, labels):
    a, b, y = (tensor.numpy() for tensor in (predictions_a, predictions_b, labels))
    d = (a == y).astype(float) - (b == y).astype(float)
    margin = 1.959964 * d.std(ddof=1) / np.sqrt(len(d))
    return [d.mean(), d.mean() - margin, d.mean() + margin]


@torch.inference_mode()
def evaluate_by_concatenating(model, batches):
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    right = torch.cat([model(x).argmax(1) == y for x, y in batches])
    for module, mode in modes:
        module.training = mode
    return right.double().mean()


def evaluate_weighted(model, batches):
    before, total, score = model.training, 0, 0.0
    model.train(False)
    for x, y in batches:
        with torch.no_grad():
            mean = (model(x).max(1).indices == y).float().mean()
        score = (score * total + float(mean) * len(y)) / (total + len(y))
        total += len(y)
    model.train(before)
    return score


def storage_with_a_set(state):
    seen, bits = set(), 0
    for tensor in state.values():
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            bits += storage.size() * 8
    return bits


def storage_through_c_pointers(state):
    storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage() for tensor in state.values()}
    return torch.tensor(sum(8 * len(storage) for storage in storages.values()))


def pack_as_one_number(codes, bits):
    number = 0
    for code in reversed(codes.flatten().tolist()):
        number = (number << bits) | int(code)
    size = math.ceil(codes.numel() * bits / 8)
    return torch.tensor(list(number.to_bytes(size, "little")), dtype=torch.uint8)


def pack_with_numpy(codes, bits):
    planes = (codes.numpy().reshape(-1, 1).astype(np.int64) >> np.arange(bits)) & 1
    return torch.from_numpy(np.packbits(planes.astype(np.uint8).ravel(), bitorder="little"))


def pack_with_a_carry(codes, bits):
    packed, buffer, filled = [], 0, 0
    for code in codes.flatten().tolist():
        buffer |= int(code) << filled
        filled += bits
        while filled >= 8:
            packed.append(buffer & 255)
            buffer, filled = buffer >> 8, filled - 8
    if filled:
        packed.append(buffer)
    return torch.tensor(packed, dtype=torch.uint8)


def sparse_with_numpy(weight):
    flat = weight.contiguous().numpy().ravel()
    mask = np.packbits(flat != 0, bitorder="little")
    return {"values": torch.from_numpy(flat[flat != 0]), "mask": torch.from_numpy(mask)}


def sparse_with_a_loop(weight):
    mask, values = bytearray(math.ceil(weight.numel() / 8)), []
    for i, value in enumerate(weight.reshape(-1).tolist()):
        if value:
            mask[i // 8] |= 1 << i % 8
            values.append(value)
    return {"mask": torch.tensor(list(mask), dtype=torch.uint8), "values": torch.tensor(values)}


def macs_by_running_it(layer, height, width):
    with torch.no_grad():
        y = F.conv2d(torch.zeros(1, layer.in_channels, height, width), layer.weight, None, layer.stride,
                     layer.padding, layer.dilation, layer.groups)
    return y.numel() * layer.weight[0].numel()


def macs_from_the_channels(layer, height, width):
    (kh, kw), (ph, pw), (sh, sw), (dh, dw) = layer.kernel_size, layer.padding, layer.stride, layer.dilation
    h = math.floor((height + 2 * ph - dh * (kh - 1) - 1) / sh + 1)
    w = math.floor((width + 2 * pw - dw * (kw - 1) - 1) / sw + 1)
    return layer.out_channels * (layer.in_channels // layer.groups) * kh * kw * h * w


def time_there_and_back(functions, repeats, clock=time.perf_counter):
    for function in functions.values():
        function()
    samples = {name: [] for name in functions}
    names = list(functions)
    for turn in range(repeats):
        for name in names if turn % 2 == 0 else reversed(names):
            before = clock()
            functions[name]()
            after = clock()
            samples[name].append(after - before)
    return samples


def time_in_random_order(functions, repeats, clock=time.perf_counter):
    rng = random.Random(0)
    samples = {name: [] for name in functions}
    for turn in range(-2, repeats):
        for name in rng.sample(list(functions), len(functions)):
            start = clock()
            functions[name]()
            if turn >= 0:
                samples[name].append(clock() - start)
    return samples


def roofline_by_intensity(batch, inputs, outputs, peak, bandwidth):
    flops = 2 * batch * inputs * outputs
    intensity = batch * inputs * outputs / (2 * (batch * inputs + inputs * outputs + batch * outputs))
    return intensity, flops / min(peak, intensity * bandwidth)


def roofline_with_branches(batch, inputs, outputs, peak, bandwidth):
    numbers = batch * inputs + inputs * outputs + batch * outputs
    moving, computing = numbers * 4 / bandwidth, batch * outputs * inputs * 2 / peak
    seconds = moving
    if computing > moving:
        seconds = computing
    return torch.tensor([2 * batch * inputs * outputs / (4 * numbers), seconds], dtype=torch.float64).tolist()
