"""Knowledge distillation: a small student learns from a large teacher, sometimes more than from labels."""

from compresslab.distillation.attention import AttentionTransfer, attention_loss, attention_map
from compresslab.distillation.contrastive import (
    Contrastive,
    contrastive_loss,
    critic_objective,
    info_nce_loss,
    information_bound,
    optimal_critic,
    similarity_scores,
)
from compresslab.distillation.controls import (
    agreement,
    confidence_teacher,
    flatten_non_targets,
    sharpness,
    shuffle_non_targets,
    shuffled_teacher,
    smoothed_label_loss,
    uniform_teacher,
    wrong_teacher,
)
from compresslab.distillation.data_free import (
    as_split,
    batch_norms,
    invert,
    statistics_distance,
    total_variation,
    watch_batch_norms,
)
from compresslab.distillation.decoupled import (
    Decoupled,
    decoupled_loss,
    nckd,
    non_target_mass,
    non_targets,
    tckd,
)
from compresslab.distillation.distill import Seen, TeacherOutputs, Term, adamw, distill, teacher_outputs
from compresslab.distillation.feature_maps import channel_regressor, to_common_size, to_vectors
from compresslab.distillation.flow import Flow, flow_loss, flow_matrix
from compresslab.distillation.generations import average_teachers, distill_generations, distill_through
from compresslab.distillation.hints import Hint, best_linear_regressor, hint_loss
from compresslab.distillation.mutual import mutual_losses, train_mutually
from compresslab.distillation.relational import (
    RelationalAngle,
    RelationalDistance,
    SimilarityPreserving,
    angle_potential,
    distance_potential,
    rkd_angle_loss,
    rkd_distance_loss,
    similarity_loss,
    similarity_matrix,
)
from compresslab.distillation.selectivity import (
    NeuronSelectivity,
    mmd_squared,
    polynomial_kernel,
    selectivity_loss,
)
from compresslab.distillation.soft_targets import (
    Labels,
    SoftTargets,
    reverse_kl_loss,
    soft_target_loss,
    soften,
)

__all__ = [
    "AttentionTransfer", "Contrastive", "Decoupled", "Flow", "Hint", "Labels", "NeuronSelectivity",
    "RelationalAngle", "RelationalDistance", "Seen", "SimilarityPreserving", "SoftTargets", "TeacherOutputs",
    "Term", "adamw", "agreement", "angle_potential", "as_split", "attention_loss", "attention_map",
    "average_teachers", "batch_norms", "best_linear_regressor", "channel_regressor", "confidence_teacher",
    "contrastive_loss", "critic_objective", "decoupled_loss", "distance_potential", "distill",
    "distill_generations", "distill_through", "flatten_non_targets", "flow_loss", "flow_matrix", "hint_loss",
    "info_nce_loss", "information_bound", "invert", "mmd_squared", "mutual_losses", "nckd", "non_target_mass",
    "non_targets", "optimal_critic", "polynomial_kernel", "reverse_kl_loss", "rkd_angle_loss",
    "rkd_distance_loss", "selectivity_loss", "sharpness", "shuffle_non_targets", "shuffled_teacher",
    "similarity_loss", "similarity_matrix", "similarity_scores", "smoothed_label_loss", "soft_target_loss",
    "soften", "statistics_distance", "tckd", "teacher_outputs", "to_common_size", "to_vectors",
    "total_variation", "train_mutually", "uniform_teacher", "watch_batch_norms", "wrong_teacher",
]  # fmt: skip
