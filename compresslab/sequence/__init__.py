"""Sequence models: recurrent networks and transformers, compressed; and what large language models added."""

from compresslab.sequence.adapters import (
    bits_per_weight,
    extract_adapters,
    insert_adapters,
    qlora,
    remove_adapters,
)
from compresslab.sequence.arithmetic import DecodeStep, decode_arithmetic, kv_cache_bytes
from compresslab.sequence.balanced import (
    balanced_mask,
    decode_elements,
    encode_elements,
    from_elements,
    to_elements,
    utilisation,
    work_per_element,
)
from compresslab.sequence.cache import PackedGroup, QuantizedKVCache, cached_window_bits
from compresslab.sequence.compress_gpt import compress_gpt, half_scales, norm_readers
from compresslab.sequence.compress_lstm import compress_lstm, round_lstm, share_lstm, train_rounded
from compresslab.sequence.fixed_point import (
    FixedPointCell,
    from_fixed,
    look_up,
    lookup_table,
    saturate,
    to_fixed,
)
from compresslab.sequence.gpt import GPT, Block, CausalAttention, KVCache, block_layers
from compresslab.sequence.grouped_heads import GroupedKVCache, merge_kv_heads
from compresslab.sequence.heads import block_influence, head_scores, lowest_heads, remove_heads, remove_layers
from compresslab.sequence.language import (
    bits_per_character,
    draw,
    generate,
    relative_bits,
    token_loss,
    train_language,
    window_bits,
)
from compresslab.sequence.lstm import CharLSTM, lstm_cell
from compresslab.sequence.outliers import measure_outliers, plant_outliers
from compresslab.sequence.projected import project_lstm, share_projection, state_spectrum
from compresslab.sequence.prune_recurrent import grow_masks_, mask_copy, prunable, prune_lstm
from compresslab.sequence.recurrent_weights import (
    held_masks,
    mask_matrices,
    mask_matrices_,
    named_matrices,
    recurrent_matrices,
    simulate_matrices,
    store_matrices,
)
from compresslab.sequence.rotate_gpt import fold_norms, rotate_gpt, stream_layers
from compresslab.sequence.sequence_distillation import (
    bell,
    distill_language,
    fit_bell,
    teacher_text,
    write_on,
)
from compresslab.sequence.shared_blocks import block_groups, share_blocks
from compresslab.sequence.speculative import (
    Speculation,
    accept_or_resample,
    acceptance_rate,
    generate_speculative,
    speculative_speedup,
    tokens_per_call,
)
from compresslab.sequence.ternary_gates import ternary_gates, train_ternary
from compresslab.sequence.text import VOCABULARY, Text, TextSplit, decode_text, encode_text, load_text

__all__ = [
    "Block", "CausalAttention", "CharLSTM", "DecodeStep", "FixedPointCell", "GPT", "GroupedKVCache",
    "KVCache", "PackedGroup", "QuantizedKVCache", "Speculation", "Text", "TextSplit", "VOCABULARY", "accept_or_resample",
    "acceptance_rate", "balanced_mask", "bell", "bits_per_character", "bits_per_weight", "block_groups",
    "block_influence", "block_layers", "cached_window_bits", "compress_gpt", "compress_lstm",
    "decode_arithmetic", "decode_elements", "decode_text", "distill_language", "draw", "encode_elements",
    "encode_text", "extract_adapters", "fit_bell", "fold_norms", "from_elements", "from_fixed", "generate",
    "generate_speculative", "grow_masks_", "half_scales", "head_scores", "held_masks", "insert_adapters",
    "kv_cache_bytes", "load_text", "look_up", "lookup_table", "lowest_heads", "lstm_cell", "mask_copy",
    "mask_matrices", "mask_matrices_", "measure_outliers", "merge_kv_heads", "named_matrices", "norm_readers",
    "plant_outliers", "project_lstm", "prunable", "prune_lstm", "qlora", "recurrent_matrices",
    "relative_bits", "remove_adapters", "remove_heads", "remove_layers", "rotate_gpt", "round_lstm",
    "saturate", "share_blocks", "share_lstm", "share_projection", "simulate_matrices", "speculative_speedup",
    "state_spectrum", "store_matrices", "stream_layers", "teacher_text", "ternary_gates", "to_elements",
    "to_fixed", "token_loss", "tokens_per_call", "train_language", "train_rounded", "train_ternary",
    "utilisation", "window_bits", "work_per_element", "write_on",
]  # fmt: skip
