"""Chapter 00: wrong answers to 0.7 to 0.9 that people really give; the table holds what to say about them."""

from __future__ import annotations

import time

# -- 0.7 conv_macs -----------------------------------------------------------------------------------


def _positions(layer, height, width):
    return [(size + 2 * p - d * (k - 1) - 1) // s + 1 for size, p, d, k, s in zip(
        (height, width), layer.padding, layer.dilation, layer.kernel_size, layer.stride, strict=True)]


def macs_at_input_size(layer, height, width):
    return layer.weight.numel() * height * width


def macs_without_groups(layer, height, width):
    h, w = _positions(layer, height, width)
    return layer.in_channels * layer.out_channels * layer.kernel_size[0] * layer.kernel_size[1] * h * w


def macs_groups_twice(layer, height, width):
    h, w = _positions(layer, height, width)
    return layer.weight.numel() * h * w // layer.groups


def macs_as_flops(layer, height, width):
    h, w = _positions(layer, height, width)
    return 2 * layer.weight.numel() * h * w


def macs_without_padding(layer, height, width):
    h, w = ((size - d * (k - 1) - 1) // s + 1 for size, d, k, s in zip(
        (height, width), layer.dilation, layer.kernel_size, layer.stride, strict=True))
    return layer.weight.numel() * h * w


def macs_without_dilation(layer, height, width):
    h, w = ((size + 2 * p - k) // s + 1 for size, p, k, s in zip(
        (height, width), layer.padding, layer.kernel_size, layer.stride, strict=True))
    return layer.weight.numel() * h * w


def macs_as_parameters(layer, height, width):
    return layer.weight.numel()


# -- 0.8 time_fairly ---------------------------------------------------------------------------------


def time_one_after_the_other(functions, repeats, clock=time.perf_counter):
    samples = {}
    for name, function in functions.items():
        function()
        samples[name] = []
        for _ in range(repeats):
            start = clock()
            function()
            samples[name].append(clock() - start)
    return samples


def time_without_warm_up(functions, repeats, clock=time.perf_counter):
    samples = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            start = clock()
            function()
            samples[name].append(clock() - start)
    return samples


def time_sequential_and_cold(functions, repeats, clock=time.perf_counter):
    samples = {}
    for name, function in functions.items():
        samples[name] = []
        for _ in range(repeats):
            start = clock()
            function()
            samples[name].append(clock() - start)
    return samples


def time_keeps_the_warm_up(functions, repeats, clock=time.perf_counter):
    return time_without_warm_up(functions, repeats + 1, clock)


def time_warms_up_the_first(functions, repeats, clock=time.perf_counter):
    next(iter(functions.values()))()
    return time_without_warm_up(functions, repeats, clock)


def time_from_one_start(functions, repeats, clock=time.perf_counter):
    samples = {name: [] for name in functions}
    for turn in range(repeats + 1):
        start = clock()
        for name, function in functions.items():
            function()
            if turn > 0:
                samples[name].append(clock() - start)
    return samples


def time_average_only(functions, repeats, clock=time.perf_counter):
    fair = {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name, function in functions.items():
            start = clock()
            function()
            if turn > 0:
                fair[name].append(clock() - start)
    return {name: [sum(values) / repeats] * repeats for name, values in fair.items()}


# -- 0.9 roofline ------------------------------------------------------------------------------------


def _costs(batch, inputs, outputs):
    return 2 * batch * inputs * outputs, 4 * (batch * inputs + inputs * outputs + batch * outputs)


def roofline_operations_only(batch, inputs, outputs, peak, bandwidth):
    flops, moved = _costs(batch, inputs, outputs)
    return flops / moved, flops / peak


def roofline_sum(batch, inputs, outputs, peak, bandwidth):
    flops, moved = _costs(batch, inputs, outputs)
    return flops / moved, flops / peak + moved / bandwidth


def roofline_min(batch, inputs, outputs, peak, bandwidth):
    flops, moved = _costs(batch, inputs, outputs)
    return flops / moved, min(flops / peak, moved / bandwidth)


def roofline_elements(batch, inputs, outputs, peak, bandwidth):
    flops, moved = _costs(batch, inputs, outputs)
    return flops / (moved / 4), max(flops / peak, moved / 4 / bandwidth)


def roofline_one_per_mac(batch, inputs, outputs, peak, bandwidth):
    flops, moved = _costs(batch, inputs, outputs)
    return flops / 2 / moved, max(flops / 2 / peak, moved / bandwidth)


def roofline_weights_per_image(batch, inputs, outputs, peak, bandwidth):
    flops = 2 * batch * inputs * outputs
    moved = 4 * batch * (inputs + inputs * outputs + outputs)
    return flops / moved, max(flops / peak, moved / bandwidth)


def roofline_weights_only(batch, inputs, outputs, peak, bandwidth):
    flops = 2 * batch * inputs * outputs
    moved = 4 * inputs * outputs
    return flops / moved, max(flops / peak, moved / bandwidth)


def roofline_without_weights(batch, inputs, outputs, peak, bandwidth):
    flops = 2 * batch * inputs * outputs
    moved = 4 * (batch * inputs + batch * outputs)
    return flops / moved, max(flops / peak, moved / bandwidth)
