"""Classical machine learning, compressed: trees, forests, neighbours, kernels, and models of two kilobytes."""

from compresslab.classical.bonsai import BonsaiClassifier, bonsai_scores, path_indicators
from compresslab.classical.c_header import c_table, compile_and_predict, compiler, emit_header, flash_bytes
from compresslab.classical.compressed_forest import (
    CompressedForestClassifier,
    preorder_children,
    round_thresholds,
    threshold_codes,
)
from compresslab.classical.condensed import CondensedNeighborsClassifier, condense
from compresslab.classical.cost_complexity import (
    PrunedTreeClassifier,
    PruningPath,
    branch_totals,
    cost_complexity_path,
    link_strengths,
    prune_tree,
)
from compresslab.classical.distilled_network import DistilledNetworkClassifier, soft_loss
from compresslab.classical.forest_distillation import (
    DistilledTreeClassifier,
    draw_queries,
    fidelity,
    fitted_teacher,
    soft_training_set,
)
from compresslab.classical.forest_pruning import (
    RefinedForest,
    lasso_leaves,
    leaf_indicators,
    leaf_numbers,
    prune_leaves,
    refine_and_prune,
    refine_leaves,
    sibling_leaves,
)
from compresslab.classical.one_tree import OneTreeClassifier
from compresslab.classical.product_index import (
    ProductNeighborsClassifier,
    asymmetric_distances,
    decode_product,
    distance_tables,
    encode_product,
    product_codebooks,
)
from compresslab.classical.prototypes import ProtoNNClassifier, protonn_gradients, protonn_scores
from compresslab.classical.random_features import (
    FourierFeatures,
    NystromFeatures,
    draw_fourier,
    fourier_features,
    nystrom_features,
    scale_gamma,
)
from compresslab.classical.reduced_set import (
    ReducedSetClassifier,
    reduced_coefficients,
    reduction_error,
    reduction_gradient,
)
from compresslab.classical.size import (
    array_bytes,
    floor32,
    label_arrays,
    labels_of,
    load_arrays,
    load_model,
    model_arrays,
    model_bytes,
    save_arrays,
    save_model,
    smallest,
)
from compresslab.classical.stored_matrix import (
    check_bits,
    codes_of,
    keep_largest,
    pack_matrices,
    rounded,
    unpack_matrices,
)
from compresslab.classical.tree_arrays import TreeArrays
from compresslab.classical.validation import FoldDifference, paired_interval, repeated_cv

__all__ = [
    "BonsaiClassifier", "CompressedForestClassifier", "CondensedNeighborsClassifier",
    "DistilledNetworkClassifier", "DistilledTreeClassifier", "FoldDifference", "FourierFeatures",
    "NystromFeatures", "OneTreeClassifier", "ProductNeighborsClassifier", "ProtoNNClassifier", "PrunedTreeClassifier",
    "PruningPath", "ReducedSetClassifier", "RefinedForest", "TreeArrays", "array_bytes",
    "asymmetric_distances", "bonsai_scores", "branch_totals", "c_table", "check_bits", "codes_of",
    "compile_and_predict", "compiler", "condense", "cost_complexity_path", "decode_product",
    "distance_tables", "draw_fourier", "draw_queries", "emit_header", "encode_product", "fidelity",
    "fitted_teacher", "flash_bytes", "floor32", "fourier_features", "keep_largest", "label_arrays",
    "labels_of", "lasso_leaves", "leaf_indicators", "leaf_numbers", "link_strengths", "load_arrays",
    "load_model", "model_arrays", "model_bytes", "nystrom_features", "pack_matrices", "paired_interval",
    "path_indicators", "preorder_children", "product_codebooks", "protonn_gradients", "protonn_scores",
    "prune_leaves", "prune_tree", "reduced_coefficients", "reduction_error", "reduction_gradient",
    "refine_and_prune", "refine_leaves", "repeated_cv", "round_thresholds", "rounded", "save_arrays",
    "save_model", "scale_gamma", "sibling_leaves", "smallest", "soft_loss", "soft_training_set",
    "threshold_codes", "unpack_matrices",
]  # fmt: skip
