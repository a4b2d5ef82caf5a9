"""What every family shares: how a weight is stored, how a model is sized, saved, trained and measured."""

from compresslab.core.bits import pack_bits, packed_size, unpack_bits
from compresslab.core.codes import CodebookCode, DenseCode, MakeCode, UniformCode, WeightCode
from compresslab.core.huffman import canonical_codes, code_lengths, huffman_decode, huffman_encode
from compresslab.core.kmeans import kmeans_1d
from compresslab.core.layers import (
    CodedConv1d,
    CodedConv2d,
    CodedEmbedding,
    CodedLayer,
    CodedLinear,
    CodedLSTM,
    CodedMultiheadAttention,
    decompress,
    encode,
)
from compresslab.core.size import StorageReport, StorageRow, storage_bits, storage_report
from compresslab.core.sparse import GapSparseCode, SparseCode, gap_codebook, sparse_codebook
from compresslab.core.uniform import (
    Grid,
    choose_scale,
    dequantize,
    fake_quantize,
    from_rows,
    min_max,
    quantize,
    to_rows,
)
from compresslab.core.store import CompressedFileError, header_bytes, load, payload_bits, save

# modules, calibration, linear algebra
from compresslab.core.calibrate import collect_inputs, find_layers, input_moments, input_norms, watch
from compresslab.core.hadamard import hadamard_transform
from compresslab.core.linalg import inverse_factor
from compresslab.core.modules import Mask, apply_mask_, bake, get_mask, map_layers, named_layers
from compresslab.core.prepare import Simulated, convert, prepare, straight_through

# training and measuring (add here)
from compresslab.core.measure import (
    MacReport,
    Measurement,
    Speedup,
    Timing,
    count_macs,
    file_size,
    form_of,
    format_rows,
    measure,
    speedup,
    time_calls,
    time_models,
)
from compresslab.core.pipeline import Step, pipeline
from compresslab.core.progress import progress_bar
from compresslab.core.statistics import (
    PairedDifference,
    mcnemar_exact,
    mean_interval,
    paired_difference,
    proportion_interval,
    tango_interval,
)
from compresslab.core.train import accuracy, correct_answers, predict_labels, predict_logits, train

__all__ = [
    "CodebookCode", "CodedConv1d", "CodedConv2d", "CodedEmbedding", "CodedLSTM", "CodedLayer", "CodedLinear",
    "CodedMultiheadAttention", "DenseCode", "GapSparseCode", "MakeCode", "SparseCode", "StorageReport", "StorageRow",
    "UniformCode", "WeightCode", "decompress", "encode", "gap_codebook", "kmeans_1d", "pack_bits", "packed_size",
    "sparse_codebook", "storage_bits", "storage_report", "unpack_bits",
    "CompressedFileError", "canonical_codes", "code_lengths", "header_bytes", "huffman_decode", "huffman_encode", "load",
    "payload_bits", "save",
    # the uniform grid
    "Grid", "choose_scale", "dequantize", "fake_quantize", "from_rows", "min_max", "quantize", "to_rows",
    # modules, calibration, linear algebra, simulation
    "Simulated", "convert", "prepare", "straight_through",
    "Mask", "apply_mask_", "bake", "collect_inputs", "find_layers", "get_mask", "input_moments", "input_norms", "inverse_factor",
    "hadamard_transform", "map_layers", "named_layers",
    # training and measuring (add here)
    "MacReport", "Measurement", "PairedDifference", "Speedup", "Step", "Timing", "accuracy", "correct_answers",
    "count_macs", "file_size", "form_of", "format_rows", "mcnemar_exact", "mean_interval", "measure", "paired_difference",
    "pipeline", "predict_labels", "predict_logits", "progress_bar", "proportion_interval", "speedup", "tango_interval",
    "time_calls", "time_models", "train", "watch",
]  # fmt: skip
