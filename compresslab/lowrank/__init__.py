"""Low-rank decomposition: layers as chains of smaller ones."""

from compresslab.lowrank.block_term import BlockTerm, block_term, block_term_conv
from compresslab.lowrank.convolution import (
    Pixels,
    count_pixels,
    factor_conv,
    factored_macs,
    factored_parameters,
    full_rank,
    kernel_from_matrix,
    kernel_matrix,
)
from compresslab.lowrank.cp import CPResult, cp_als, cp_conv, cp_to_tensor, khatri_rao
from compresslab.lowrank.decompose import can_decompose, decompose
from compresslab.lowrank.lora import LoRALinear, add_lora, merge_lora, trainable_parameters
from compresslab.lowrank.ranks import Choice, choose_ranks, energy_rank, layer_choices, ranks_for_budget
from compresslab.lowrank.response import (
    decompose_responding,
    reduced_rank_regression,
    relu_half_step,
    response_svd,
)
from compresslab.lowrank.svd import break_even_rank, svd_linear, truncated_svd, truncation_error
from compresslab.lowrank.tensor_train import TTLinear, tt_parameters, tt_svd, tt_to_tensor
from compresslab.lowrank.tucker import Tucker, fold, hooi, hosvd, mode_product, tucker_conv, unfold
from compresslab.lowrank.vbmf import EVBMF, evbmf, free_energy

__all__ = [
    "BlockTerm", "Choice", "CPResult", "EVBMF", "LoRALinear", "Pixels", "TTLinear", "Tucker", "add_lora",
    "block_term", "block_term_conv", "break_even_rank", "can_decompose", "choose_ranks", "count_pixels",
    "cp_als", "cp_conv", "cp_to_tensor", "decompose", "decompose_responding", "energy_rank", "evbmf",
    "factor_conv", "factored_macs", "factored_parameters", "fold", "free_energy", "full_rank", "hooi",
    "hosvd", "kernel_from_matrix", "kernel_matrix", "khatri_rao", "layer_choices", "merge_lora",
    "mode_product", "ranks_for_budget", "reduced_rank_regression", "relu_half_step", "response_svd",
    "svd_linear", "trainable_parameters", "truncated_svd", "truncation_error", "tt_parameters", "tt_svd",
    "tt_to_tensor", "tucker_conv", "unfold",
]  # fmt: skip
