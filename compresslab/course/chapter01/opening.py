"""The first figure of chapter 01, measured once and shipped: the entry "opening" of the evidence.

Its bytes are exact. Its milliseconds belong to the machine that measured them: an entry to look at, not to recompute.
"""

from __future__ import annotations

import copy

import torch
from torch import nn


def opening() -> dict[str, dict[str, float]]:
    """{"sizes": {name: bytes}, "speeds": {name: milliseconds}}, as `figures.smaller_faster` wants them."""
    from compresslab.core import GapSparseCode, SparseCode, bake, encode
    from compresslab.core.measure import file_size, time_models
    from compresslab.models import VGGLike, load_baseline
    from compresslab.pruning import prune_magnitude

    lenet = load_baseline("lenet300")
    sparse = bake(prune_magnitude(lenet, 0.95, scope="global"))
    sizes = {"dense": file_size(lenet), "95 % zeros": file_size(sparse),
             "zeros left out, bit mask": file_size(encode(sparse, SparseCode.from_dense)),
             "zeros left out, gap codes": file_size(encode(sparse, GapSparseCode.from_dense))}
    vgg = VGGLike().eval()  # the clock does not care for the values of the weights
    networks = {"dense": vgg, "90 % zeros": bake(prune_magnitude(vgg, 0.9)), "half the MACs": half_the_macs(vgg)}
    times = time_models(networks, torch.randn(16, 3, 32, 32), repeats=30, threads=1)
    return {"sizes": {name: float(size) for name, size in sizes.items()},
            "speeds": {name: round(timing.median, 3) for name, timing in times.items()}}


def channels_left(channels: int, share: float = 0.7) -> int:
    """About this share of the channels, as a multiple of 16: kernels work on blocks of channels.

    Example:
        >>> [channels_left(n) for n in (32, 64, 128, 256)]
        [16, 48, 96, 176]
    """
    return 16 * max(1, round(share * channels / 16))


def half_the_macs(vgg: nn.Module) -> nn.Module:
    """A VGG-like network with the first channels of every layer only."""
    from compresslab.course.chapter01.references import remove_channels
    small = copy.deepcopy(vgg).eval()
    places = [place for place, layer in enumerate(small.features) if isinstance(layer, nn.Conv2d)]
    for here, after in zip(places, [*places[1:], None]):
        following = small.classifier if after is None else small.features[after]
        keep = torch.arange(channels_left(small.features[here].out_channels))
        small.features[here], small.features[here + 1], following = remove_channels(
            small.features[here], small.features[here + 1], following, keep)
        if after is None:
            small.classifier = following
        else:
            small.features[after] = following
    return small
