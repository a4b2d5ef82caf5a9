"""The comparison of all methods on one ruler: jobs, rows, fronts, and what accuracy does not say.

The recipes stand in ``compare.methods`` and the public networks in ``compare.public``: only these two
import the families, and neither is imported here.
"""

from compresslab.compare.beyond import (
    ChangedAnswers,
    ReliabilityBin,
    calibration_error,
    changed_answers,
    class_damage,
    flips,
    kl_to_original,
    reliability,
    worst_class,
)
from compresslab.compare.corruptions import (
    accuracy_by_corruption,
    corrupt,
    corrupted_accuracy,
    corrupted_split,
)
from compresslab.compare.energy import (
    EnergyReport,
    access_energy,
    energy_per_image,
    mac_energy,
    moved_activations,
)
from compresslab.compare.jobs import Job, Original, load_original, measure_file, plan, run_job
from compresslab.compare.memory import Moment, live_activations, peak_activation_bytes
from compresslab.compare.pareto import (
    break_even,
    dominates,
    geometric_mean_ratio,
    hypervolume,
    pareto_front,
    surely_dominated,
)
from compresslab.compare.published import Conflict, Published, published, sources
from compresslab.compare.results import (
    append_result,
    format_summary,
    pack_correct,
    read_results,
    shipped_results,
    succeeded,
    summarize,
    tidy,
    to_line,
    unpack_correct,
    write_csv,
    write_results,
)
from compresslab.compare.runner import compare, time_results

__all__ = [
    "ChangedAnswers", "Conflict", "EnergyReport", "Job", "Moment", "Original", "Published", "ReliabilityBin",
    "access_energy", "accuracy_by_corruption", "append_result", "break_even", "calibration_error",
    "changed_answers", "class_damage", "compare", "corrupt", "corrupted_accuracy", "corrupted_split",
    "dominates", "energy_per_image", "flips", "format_summary", "geometric_mean_ratio",
    "hypervolume", "kl_to_original", "live_activations", "load_original", "mac_energy", "measure_file",
    "moved_activations", "pack_correct", "pareto_front", "peak_activation_bytes", "plan", "published",
    "read_results", "reliability", "run_job", "shipped_results", "sources", "succeeded", "summarize",
    "surely_dominated", "tidy", "time_results", "to_line", "unpack_correct", "worst_class", "write_csv",
    "write_results",
]  # fmt: skip
