"""Hybrid methods: several techniques on one network, in an order, under one budget."""

from compresslab.hybrid.admm import admm, alternate, learning_compression, project_weights
from compresslab.hybrid.buckets import (
    BucketCode,
    at_points,
    bucket_ranges,
    nearest_points,
    scale_to_buckets,
    uniform_points,
)
from compresslab.hybrid.clipq import ClipQ, clip_partition, clip_q
from compresslab.hybrid.deep_compression import (
    SparseCodebook,
    deep_compression_steps,
    gap_code,
    prune_gradually,
    share_weights,
    tune_centroids,
)
from compresslab.hybrid.file_ledger import file_ledger
from compresslab.hybrid.joint_options import (
    Option,
    apply_settings,
    code_bytes,
    file_budget,
    layer_options,
    option_bytes,
    prune_and_code,
    settings_bytes,
    settings_error,
)
from compresslab.hybrid.joint_search import (
    allocate,
    clip_action,
    clip_settings,
    evolve_settings,
    settings_accuracy,
    uniform_settings,
)
from compresslab.hybrid.orders import (
    OPERATIONS,
    OrderSettings,
    check_order,
    finish,
    run_order,
    shared_layers,
    structure_of,
)
from compresslab.hybrid.projections import (
    project_codebook,
    project_levels,
    project_low_rank,
    project_nm,
    project_ternary,
    project_top_k,
)
from compresslab.hybrid.quantized_distillation import (
    BucketQuantize,
    DifferentiableQuantization,
    compact_distil_quantize,
    differentiable_quantization,
    quantized_distillation,
)
from compresslab.hybrid.sparse_low_rank import LowRankSparse, low_rank_plus_sparse, split_layers

__all__ = [
    "OPERATIONS",
    "BucketCode", "BucketQuantize", "ClipQ", "DifferentiableQuantization", "LowRankSparse", "Option",
    "OrderSettings", "SparseCodebook", "admm", "allocate", "alternate", "apply_settings", "at_points",
    "bucket_ranges", "check_order", "clip_action", "clip_partition", "clip_q", "clip_settings", "code_bytes",
    "compact_distil_quantize", "deep_compression_steps", "differentiable_quantization", "evolve_settings",
    "file_budget", "file_ledger", "finish", "gap_code", "layer_options", "learning_compression",
    "low_rank_plus_sparse", "nearest_points", "option_bytes", "project_codebook", "project_levels",
    "project_low_rank", "project_nm", "project_ternary", "project_top_k", "project_weights", "prune_and_code",
    "prune_gradually", "quantized_distillation", "run_order", "scale_to_buckets", "settings_accuracy",
    "settings_bytes", "settings_error", "share_weights", "shared_layers", "split_layers", "structure_of",
    "tune_centroids", "uniform_points", "uniform_settings",
]  # fmt: skip
