"""Wrong answers to exercises 11.7 and 11.8, each of a kind of its own."""

from __future__ import annotations

from math import prod

from compresslab.course.chapter11.references_limits import on_the_roof as right_roof
from compresslab.course.chapter11.references_limits import predict_gain as right_gain

# -- 11.7 a layer on the roof ------------------------------------------------------------------------

def _macs(weight, out, batch):
    return batch * prod(out) * prod(weight[1:])


def _roof(macs, numbers, bits, peak, bandwidth):
    intensity = macs / (numbers * bits / 8)
    return intensity, min(peak, bandwidth * intensity)


def weights_for_each_image(weight, image, out, batch, bits, peak, bandwidth):
    return _roof(_macs(weight, out, batch), batch * (prod(weight) + prod(image) + prod(out)), bits, peak, bandwidth)


def weights_only(weight, image, out, batch, bits, peak, bandwidth):
    return _roof(_macs(weight, out, batch), prod(weight), bits, peak, bandwidth)


def activations_only(weight, image, out, batch, bits, peak, bandwidth):
    return _roof(_macs(weight, out, batch), batch * (prod(image) + prod(out)), bits, peak, bandwidth)


def one_image_moved(weight, image, out, batch, bits, peak, bandwidth):
    return _roof(_macs(weight, out, batch), prod(weight) + prod(image) + prod(out), bits, peak, bandwidth)


def output_forgotten(weight, image, out, batch, bits, peak, bandwidth):
    return _roof(_macs(weight, out, batch), prod(weight) + batch * prod(image), bits, peak, bandwidth)


def input_forgotten(weight, image, out, batch, bits, peak, bandwidth):
    return _roof(_macs(weight, out, batch), prod(weight) + batch * prod(out), bits, peak, bandwidth)


def input_once_per_weight(weight, image, out, batch, bits, peak, bandwidth):
    return _roof(_macs(weight, out, batch), _macs(weight, out, batch) + prod(weight) + batch * prod(out), bits, peak, bandwidth)


def bits_as_bytes(weight, image, out, batch, bits, peak, bandwidth):
    return right_roof(weight, image, out, batch, 8 * bits, peak, bandwidth)


def always_float(weight, image, out, batch, bits, peak, bandwidth):
    return right_roof(weight, image, out, batch, 32, peak, bandwidth)


def only_weights_rounded(weight, image, out, batch, bits, peak, bandwidth):
    numbers = prod(weight) * bits / 32 + batch * (prod(image) + prod(out))
    return _roof(_macs(weight, out, batch), numbers, 32, peak, bandwidth)


def cheaper_macs(weight, image, out, batch, bits, peak, bandwidth):
    return right_roof(weight, image, out, batch, bits, peak * 32 / bits, bandwidth)


def operations(weight, image, out, batch, bits, peak, bandwidth):
    intensity = 2 * right_roof(weight, image, out, batch, bits, peak, bandwidth)[0]
    return intensity, min(peak, bandwidth * intensity)


def macs_of_one_image(weight, image, out, batch, bits, peak, bandwidth):
    return _roof(_macs(weight, out, 1), prod(weight) + batch * (prod(image) + prod(out)), bits, peak, bandwidth)


def weights_used_once(weight, image, out, batch, bits, peak, bandwidth):
    return _roof(batch * prod(weight), prod(weight) + batch * (prod(image) + prod(out)), bits, peak, bandwidth)


def at_every_input(weight, image, out, batch, bits, peak, bandwidth):
    return _roof(batch * prod(image[1:]) * prod(weight), prod(weight) + batch * (prod(image) + prod(out)), bits, peak, bandwidth)


def outputs_times_kernels(weight, image, out, batch, bits, peak, bandwidth):
    return _roof(batch * prod(out) * prod(weight), prod(weight) + batch * (prod(image) + prod(out)), bits, peak, bandwidth)


def all_channels(weight, image, out, batch, bits, peak, bandwidth):
    return _roof(batch * prod(out) * image[0] * prod(weight[2:]), prod(weight) + batch * (prod(image) + prod(out)), bits, peak, bandwidth)


def larger_limit(weight, image, out, batch, bits, peak, bandwidth):
    intensity = right_roof(weight, image, out, batch, bits, peak, bandwidth)[0]
    return intensity, max(peak, bandwidth * intensity)


def added_clocks(weight, image, out, batch, bits, peak, bandwidth):
    intensity = right_roof(weight, image, out, batch, bits, peak, bandwidth)[0]
    return intensity, 1 / (1 / peak + 1 / (bandwidth * intensity))


def always_peak(weight, image, out, batch, bits, peak, bandwidth):
    return right_roof(weight, image, out, batch, bits, peak, bandwidth)[0], peak


def slope_without_roof(weight, image, out, batch, bits, peak, bandwidth):
    intensity = right_roof(weight, image, out, batch, bits, peak, bandwidth)[0]
    return intensity, bandwidth * intensity


def bandwidth_divided(weight, image, out, batch, bits, peak, bandwidth):
    intensity = right_roof(weight, image, out, batch, bits, peak, bandwidth)[0]
    return intensity, min(peak, bandwidth / intensity)


def bytes_per_mac(weight, image, out, batch, bits, peak, bandwidth):
    intensity, rate = right_roof(weight, image, out, batch, bits, peak, bandwidth)
    return 1 / intensity, rate


def seconds(weight, image, out, batch, bits, peak, bandwidth):
    intensity, rate = right_roof(weight, image, out, batch, bits, peak, bandwidth)
    return intensity, _macs(weight, out, batch) / rate


def share_of_peak(weight, image, out, batch, bits, peak, bandwidth):
    intensity, rate = right_roof(weight, image, out, batch, bits, peak, bandwidth)
    return intensity, rate / peak


def turned(weight, image, out, batch, bits, peak, bandwidth):
    return right_roof(weight, image, out, batch, bits, peak, bandwidth)[::-1]


# -- 11.8 the gain of a network ----------------------------------------------------------------------

def _times(layers, bandwidth):
    return [max(macs / peak, moved / bandwidth) for macs, moved, peak in layers]


def _gains(before, after, bandwidth):
    return [old / new for old, new in zip(_times(before, bandwidth), _times(after, bandwidth), strict=False)]


def mean_of_gains(before, after, bandwidth, rest):
    gains = _gains(before, after, bandwidth)
    return sum(gains) / len(gains)


def mean_of_shares(before, after, bandwidth, rest):
    gains = _gains(before, after, bandwidth)
    return len(gains) / sum(1 / gain for gain in gains)


def rest_added_to_the_gain(before, after, bandwidth, rest):
    return right_gain(before, after, bandwidth, 0.0) + rest


def weighted_by_time(before, after, bandwidth, rest):
    old = _times(before, bandwidth)
    parts = [time * gain for time, gain in zip(old, _gains(before, after, bandwidth), strict=False)]
    return (rest + sum(parts)) / (rest + sum(old))


def weighted_by_macs(before, after, bandwidth, rest):
    macs = [layer[0] for layer in before]
    return sum(weight * gain for weight, gain in zip(macs, _gains(before, after, bandwidth), strict=False)) / sum(macs)


def product_of_gains(before, after, bandwidth, rest):
    out = 1.0
    for gain in _gains(before, after, bandwidth):
        out *= gain
    return out


def best_layer(before, after, bandwidth, rest):
    return max(_gains(before, after, bandwidth))


def slowest_layer(before, after, bandwidth, rest):
    return max(_times(before, bandwidth)) / max(_times(after, bandwidth))


def _sums(layers, bandwidth):
    return sum(macs / peak for macs, _, peak in layers), sum(moved for _, moved, _ in layers) / bandwidth


def roof_of_the_sums(before, after, bandwidth, rest):
    return (rest + max(_sums(before, bandwidth))) / (rest + max(_sums(after, bandwidth)))


def clocks_added(before, after, bandwidth, rest):
    return (rest + sum(_sums(before, bandwidth))) / (rest + sum(_sums(after, bandwidth)))


def computing_only(before, after, bandwidth, rest):
    return right_gain(before, after, float("inf"), rest)


def moving_only(before, after, bandwidth, rest):
    return (rest + _sums(before, bandwidth)[1]) / (rest + _sums(after, bandwidth)[1])


def faster_clock(before, after, bandwidth, rest):
    old, new = (rest + sum(min(macs / peak, moved / bandwidth) for macs, moved, peak in layers) for layers in (before, after))
    return old / new


def rest_forgotten(before, after, bandwidth, rest):
    return right_gain(before, after, bandwidth, 0.0)


def rest_vanishes(before, after, bandwidth, rest):
    return (rest + sum(_times(before, bandwidth))) / sum(_times(after, bandwidth))


def rest_per_layer(before, after, bandwidth, rest):
    return (rest * len(before) + sum(_times(before, bandwidth))) / (rest * len(after) + sum(_times(after, bandwidth)))


def rest_subtracted(before, after, bandwidth, rest):
    return (sum(_times(before, bandwidth)) - rest) / (sum(_times(after, bandwidth)) - rest)


def upside_down(before, after, bandwidth, rest):
    return 1 / right_gain(before, after, bandwidth, rest)


def share_saved(before, after, bandwidth, rest):
    return 1 - 1 / right_gain(before, after, bandwidth, rest)


def macs_saved(before, after, bandwidth, rest):
    return sum(layer[0] for layer in before) / sum(layer[0] for layer in after)


def old_peak(before, after, bandwidth, rest):
    return right_gain(before, [(macs, moved, before[0][2]) for macs, moved, _ in after], bandwidth, rest)
