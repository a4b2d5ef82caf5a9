"""Deployment: from a compressed network to a file that an inference engine runs, and to time, bytes and memory.

The engine is ONNX Runtime on the CPU. What needs onnx or onnxruntime imports it when it is called.
"""

from compresslab.deploy.engine import OnnxModel
from compresslab.deploy.export import Agreement, agreement, export_onnx
from compresslab.deploy.facts import RunFacts, run_facts
from compresslab.deploy.fusion import operations, optimized_graph, optimized_operations
from compresslab.deploy.gpu import GpuRow, gpu_block_table, is_2_4, prune_2_4, to_semi_structured
from compresslab.deploy.machine import describe_machine, machine_line, usable_cores
from compresslab.deploy.memory import MemoryReport, peak_memory
from compresslab.deploy.microcontroller import Budget, Fit, fit
from compresslab.deploy.profile import LayerTime, profile_layers, profile_onnx, read_profile
from compresslab.deploy.qdq import export_int8, int8_proto
from compresslab.deploy.roofline import (
    LayerCost,
    Roofline,
    layer_costs,
    measure_bandwidth,
    measure_peak,
    measure_roofline,
    predict_milliseconds,
)
from compresslab.deploy.schedule import (
    Arena,
    Lifetime,
    Operation,
    best_order,
    graph_of,
    lifetimes,
    live_bytes,
    peak_bytes,
    plan_arena,
)
from compresslab.deploy.sparse_speed import (
    SparseLinear,
    SparseRow,
    break_even_density,
    random_sparse,
    time_sparse,
    to_csr,
    to_scipy,
)
from compresslab.deploy.stored import export_stored

__all__ = [
    # files, and the engine that runs them
    "OnnxModel", "export_onnx", "export_stored", "export_int8", "int8_proto", "agreement", "Agreement",
    # what is in a file, and what the engine makes of it
    "operations", "optimized_operations", "optimized_graph", "run_facts", "RunFacts",
    # where the time goes, and how little it could be
    "profile_layers", "profile_onnx", "read_profile", "LayerTime", "Roofline", "LayerCost", "layer_costs",
    "measure_bandwidth", "measure_peak", "measure_roofline", "predict_milliseconds",
    # sparse matrices, and graphics processors
    "SparseLinear", "SparseRow", "random_sparse", "to_csr", "to_scipy", "time_sparse", "break_even_density",
    "GpuRow", "gpu_block_table", "is_2_4", "prune_2_4", "to_semi_structured",
    # memory
    "Operation", "Lifetime", "Arena", "graph_of", "live_bytes", "peak_bytes", "best_order", "lifetimes", "plan_arena",
    "Budget", "Fit", "fit", "MemoryReport", "peak_memory",
    # the machine
    "describe_machine", "machine_line", "usable_cores",
]  # fmt: skip
