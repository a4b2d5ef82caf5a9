"""Pruning: remove weights, groups of weights, channels and layers.

Methods on single weights score them and hold a mask (``masks``); training goes on under the mask. A mask
makes a network sparse, not small and not fast: store it with a sparse code, keep to a pattern (``nm``), or
remove whole channels.
"""

from compresslab.pruning.channel_budget import prune_channels_to_macs, prune_channels_to_parameters
from compresslab.pruning.channel_choice import choose_channels
from compresslab.pruning.channels import masked_twin, prune_channels, remove_channels
from compresslab.pruning.criteria import (
    bn_scale_importance,
    geometric_median_importance,
    norm_importance,
    random_importance,
)
from compresslab.pruning.curvature import hessian_diagonal
from compresslab.pruning.data_criteria import apoz_importance, taylor_importance
from compresslab.pruning.graph import ChannelGraph, ChannelGroup, trace_channels
from compresslab.pruning.group_lasso import (
    GroupLasso,
    group_norms,
    group_penalty,
    group_sparsity,
    prox_group_lasso,
)
from compresslab.pruning.layers import ablation_importance, prune_layers, remove_layers, residual_blocks
from compresslab.pruning.lottery import find_ticket, rewind
from compresslab.pruning.magnitude import magnitude_mask, magnitudes, prune_magnitude
from compresslab.pruning.masks import (
    keep_mask,
    layer_sparsity,
    mask_layers,
    masks_of,
    prune_by_score,
    random_masks,
    sparsity_of,
)
from compresslab.pruning.merging import merge_neurons, merge_similar
from compresslab.pruning.nm import BlockCode, NMCode, block_mask, nm_mask, prune_blocks, prune_nm
from compresslab.pruning.reconstruction import (
    contribution_gram,
    prune_reconstructed,
    reconstruct_weight,
    rescale_channels,
    select_lasso,
    select_thinet,
    solve_lasso,
)
from compresslab.pruning.schedule import GradualPruning, cubic_sparsity
from compresslab.pruning.second_order import (
    obd_saliency,
    obs_prune,
    obs_remove,
    obs_saliency,
    prune_obd,
    prune_obs,
)
from compresslab.pruning.slimming import absorb_constants, shrink_scales_, slimming_penalty, soft_threshold
from compresslab.pruning.snip import connection_sensitivity, prune_snip
from compresslab.pruning.sparsegpt import prune_sparsegpt, sparsegpt_prune
from compresslab.pruning.surgery import NetworkSurgery, finish_surgery, prepare_surgery, surgery_mask
from compresslab.pruning.wanda import prune_wanda, wanda_mask, wanda_scores

__all__ = [
    # single weights
    "magnitude_mask",
    "magnitudes",
    "prune_magnitude",
    "cubic_sparsity",
    "GradualPruning",
    "find_ticket",
    "rewind",
    "connection_sensitivity",
    "prune_snip",
    "surgery_mask",
    "prepare_surgery",
    "NetworkSurgery",
    "finish_surgery",
    # second order, and its approximations
    "hessian_diagonal",
    "obd_saliency",
    "prune_obd",
    "obs_saliency",
    "obs_remove",
    "obs_prune",
    "prune_obs",
    "wanda_scores",
    "wanda_mask",
    "prune_wanda",
    "sparsegpt_prune",
    "prune_sparsegpt",
    # patterns and groups
    "nm_mask",
    "prune_nm",
    "NMCode",
    "block_mask",
    "prune_blocks",
    "BlockCode",
    "group_norms",
    "prox_group_lasso",
    "group_penalty",
    "group_sparsity",
    "GroupLasso",
    # masks and controls
    "keep_mask",
    "mask_layers",
    "masks_of",
    "prune_by_score",
    "random_masks",
    "sparsity_of",
    "layer_sparsity",
    # channels
    "ChannelGraph",
    "ChannelGroup",
    "trace_channels",
    "choose_channels",
    "prune_channels",
    "prune_channels_to_macs",
    "prune_channels_to_parameters",
    "remove_channels",
    "masked_twin",
    "norm_importance",
    "bn_scale_importance",
    "geometric_median_importance",
    "taylor_importance",
    "apoz_importance",
    "random_importance",
    "slimming_penalty",
    "soft_threshold",
    "shrink_scales_",
    "absorb_constants",
    # reconstruction of the next layer
    "contribution_gram",
    "solve_lasso",
    "select_thinet",
    "select_lasso",
    "rescale_channels",
    "reconstruct_weight",
    "prune_reconstructed",
    # neurons and layers
    "merge_similar",
    "merge_neurons",
    "residual_blocks",
    "ablation_importance",
    "remove_layers",
    "prune_layers",
]
