"""Compact networks: blocks and whole networks that are small by design."""

from compresslab.compact.blocks import ConvBN
from compresslab.compact.depth import (
    LayerDrop,
    StochasticDepth,
    add_stochastic_depth,
    every_other,
    expected_depth,
    layer_drop,
    prune_depth,
    removable_blocks,
    residual_branches,
    survival_probabilities,
)
from compresslab.compact.early_exit import (
    EarlyExit,
    ExitReport,
    early_exit_loss,
    exit_head,
    exit_macs,
    exit_report,
)
from compresslab.compact.efficientnet import EfficientNetB0
from compresslab.compact.fire import Fire, fire_parameters
from compresslab.compact.ghost import GhostBottleneck, GhostModule, ghost_compression
from compresslab.compact.interleaved import (
    InterleavedGroupConv,
    dense_width,
    interleaved_parameters,
    is_wider,
)
from compresslab.compact.inverted import InvertedResidual
from compresslab.compact.mobilenet import MobileNetV1, MobileNetV2, mobilenet_v1_parameters
from compresslab.compact.mobilenet_v3 import MobileNetV3Large
from compresslab.compact.scaling import (
    Scale,
    compound_grid,
    compound_scale,
    make_divisible,
    scale_channels,
    scaled_cost,
    search_compound,
)
from compresslab.compact.search import (
    Architecture,
    SearchResult,
    SearchSpace,
    StagedNet,
    enumerate_space,
    evolve,
)
from compresslab.compact.separable import (
    SeparableConv,
    join_separable,
    separable_cost_ratio,
    separate_conv,
    separation_error,
)
from compresslab.compact.shuffle import (
    ChannelShuffle,
    ShuffleUnitV1,
    ShuffleUnitV2,
    channel_shuffle,
    channel_unshuffle,
    least_memory_access,
    memory_access,
)
from compresslab.compact.shufflenet import ShuffleNetV2
from compresslab.compact.slimmable import (
    SlimmableConv2d,
    SlimmableLinear,
    SlimmableNet,
    SwitchableBatchNorm,
    channels_at,
    freeze_width,
    set_width_,
    slim,
    slimmable_loss,
)
from compresslab.compact.small import CompactNet, width_for
from compresslab.compact.squeeze_excite import SqueezeExcite, hard_sigmoid, hard_swish
from compresslab.compact.squeezenet import SqueezeNet, fire_widths
from compresslab.compact.supernet import SlimmableInvertedResidual, Supernet, recalibrate, sandwich_loss

__all__ = [
    "Architecture", "ChannelShuffle", "CompactNet", "ConvBN", "EarlyExit", "EfficientNetB0", "ExitReport",
    "Fire", "GhostBottleneck", "GhostModule", "InterleavedGroupConv", "InvertedResidual", "LayerDrop",
    "MobileNetV1", "MobileNetV2", "MobileNetV3Large", "Scale", "SearchResult", "SearchSpace", "SeparableConv",
    "ShuffleNetV2", "ShuffleUnitV1", "ShuffleUnitV2", "SlimmableConv2d", "SlimmableInvertedResidual",
    "SlimmableLinear", "SlimmableNet", "SqueezeExcite", "SqueezeNet", "StagedNet", "StochasticDepth",
    "Supernet", "SwitchableBatchNorm", "add_stochastic_depth", "channel_shuffle", "channel_unshuffle",
    "channels_at", "compound_grid", "compound_scale", "dense_width", "early_exit_loss", "enumerate_space",
    "every_other", "evolve", "exit_head", "exit_macs", "exit_report", "expected_depth", "fire_parameters",
    "fire_widths", "freeze_width", "ghost_compression", "hard_sigmoid", "hard_swish",
    "interleaved_parameters", "is_wider", "join_separable", "layer_drop", "least_memory_access",
    "make_divisible", "memory_access", "mobilenet_v1_parameters", "prune_depth", "recalibrate",
    "removable_blocks", "residual_branches", "sandwich_loss", "scale_channels", "scaled_cost",
    "search_compound", "separable_cost_ratio", "separate_conv", "separation_error", "set_width_", "slim",
    "slimmable_loss", "survival_probabilities", "width_for",
]  # fmt: skip
