"""Quantization: fewer bits per number, from the rounding of one weight to inference with integers alone.

The grid itself (``choose_scale``, ``quantize``, ``dequantize``) and the way from training to storage
(``prepare``, ``convert``) live in ``core``, because other families use them too.
"""

from compresslab.core.prepare import Simulated, convert, prepare, straight_through
from compresslab.core.uniform import Grid, choose_scale, dequantize, fake_quantize, min_max, quantize
from compresslab.quantization.activations import calibrate, restore_activations, simulate_activations
from compresslab.quantization.adaround import (
    adaround,
    best_rounding,
    encode_adaround,
    rectified_sigmoid,
    rounding_error,
)
from compresslab.quantization.awq import AWQSearch, InputScaledCode, awq_scale, encode_awq, search_awq
from compresslab.quantization.bias_correction import (
    clipped_normal_mean,
    correct_bias,
    correct_bias_data_free,
    expected_inputs,
)
from compresslab.quantization.binary import BWN, BinaryCode, BinaryConnect, clip_latent_, sign_ste
from compresslab.quantization.block_formats import MXFP4Code, NVFP4Code, decode_e8m0, encode_e8m0
from compresslab.quantization.codebook import TrainedCodebook, encode_hessian_weighted, exact_kmeans_1d
from compresslab.quantization.dorefa import (
    DoReFa,
    DoReFaActivation,
    GradientQuantizer,
    dorefa_activation,
    quantize_gradient,
)
from compresslab.quantization.equalization import equalizable_pairs, equalize, equalizing_scales
from compresslab.quantization.fake import FakeQuantize, fake_quantize_ste, round_ste
from compresslab.quantization.fixed_point import fixed_point_multiplier, rounding_multiply, rounding_shift
from compresslab.quantization.float_formats import (
    E2M1,
    E4M3,
    E5M2,
    Float8Code,
    FloatFormat,
    decode_float,
    decode_table,
    encode_float,
    round_float,
)
from compresslab.quantization.folding import fold, fold_batch_norm
from compresslab.quantization.gptq import encode_gptq, gptq
from compresslab.quantization.hadamard import (
    hadamard_transform,
    random_signs,
    rotate,
    rotate_back,
    rotate_stream,
)
from compresslab.quantization.incremental import (
    IncrementalQuantization,
    PowersOfTwo,
    nearest_level,
    power_levels,
    shift_matmul,
)
from compresslab.quantization.integer import (
    AddConstants,
    Rescale,
    integer_add,
    integer_average_pool,
    integer_bias,
    integer_conv2d,
    integer_linear,
    integer_matmul,
    make_add,
    make_rescale,
    requantize,
)
from compresslab.quantization.integer_network import IntegerNetwork, integer_network
from compresslab.quantization.lsq import LSQ, lsq_quantize
from compresslab.quantization.mixed_precision import allocate_bits, allocate_greedy, encode_mixed
from compresslab.quantization.nf4 import NF4Code, normal_levels
from compresslab.quantization.pact import PACT, pact_quantize, replace_relu
from compresslab.quantization.ranges import MovingAverage, entropy_range, mse_range, percentile_range
from compresslab.quantization.rate import (
    distortion_bound,
    entropy,
    entropy_coded_uniform,
    gaussian_distortion,
    gaussian_uniform,
    outlier_price,
    rate_bound,
    signal_to_noise,
    uniform_snr,
)
from compresslab.quantization.sensitivity import (
    hessian_errors,
    hutchinson_trace,
    layer_sizes,
    mean_loss,
    measured_sensitivity,
    quantization_errors,
)
from compresslab.quantization.smoothquant import input_absmax, smooth, smooth_layers, smooth_scale
from compresslab.quantization.ternary import (
    TTQ,
    Ternary,
    exact_threshold,
    rule_threshold,
    ternarize,
    ternary_code,
)
from compresslab.quantization.xnor import (
    input_scale,
    pack_signs,
    xnor_conv2d,
    xnor_dot,
    xnor_linear,
    xnor_matmul,
)

__all__ = [
    # the uniform grid, and training through it
    "Grid",
    "choose_scale",
    "quantize",
    "dequantize",
    "fake_quantize",
    "min_max",
    "Simulated",
    "prepare",
    "convert",
    "straight_through",
    "FakeQuantize",
    "fake_quantize_ste",
    "round_ste",
    "LSQ",
    "lsq_quantize",
    "PACT",
    "pact_quantize",
    "replace_relu",
    "DoReFa",
    "DoReFaActivation",
    "GradientQuantizer",
    "dorefa_activation",
    "quantize_gradient",
    "IncrementalQuantization",
    "PowersOfTwo",
    "nearest_level",
    "power_levels",
    "shift_matmul",
    # ranges and activations
    "percentile_range",
    "mse_range",
    "entropy_range",
    "MovingAverage",
    "calibrate",
    "simulate_activations",
    "restore_activations",
    # after training
    "fold",
    "fold_batch_norm",
    "equalizing_scales",
    "equalizable_pairs",
    "equalize",
    "correct_bias",
    "correct_bias_data_free",
    "expected_inputs",
    "clipped_normal_mean",
    "best_rounding",
    "adaround",
    "encode_adaround",
    "rounding_error",
    "rectified_sigmoid",
    # integers only
    "fixed_point_multiplier",
    "rounding_multiply",
    "rounding_shift",
    "Rescale",
    "make_rescale",
    "requantize",
    "AddConstants",
    "make_add",
    "integer_matmul",
    "integer_bias",
    "integer_linear",
    "integer_conv2d",
    "integer_add",
    "integer_average_pool",
    "IntegerNetwork",
    "integer_network",
    # two and three values
    "BinaryConnect",
    "BWN",
    "BinaryCode",
    "clip_latent_",
    "sign_ste",
    "pack_signs",
    "xnor_dot",
    "xnor_matmul",
    "xnor_linear",
    "xnor_conv2d",
    "input_scale",
    "exact_threshold",
    "rule_threshold",
    "ternarize",
    "ternary_code",
    "Ternary",
    "TTQ",
    # codebooks and mixed precision
    "exact_kmeans_1d",
    "encode_hessian_weighted",
    "TrainedCodebook",
    "layer_sizes",
    "mean_loss",
    "measured_sensitivity",
    "quantization_errors",
    "hutchinson_trace",
    "hessian_errors",
    "allocate_bits",
    "allocate_greedy",
    "encode_mixed",
    # number formats, rate and distortion
    "FloatFormat",
    "E4M3",
    "E5M2",
    "E2M1",
    "Float8Code",
    "decode_table",
    "encode_float",
    "decode_float",
    "round_float",
    "MXFP4Code",
    "NVFP4Code",
    "encode_e8m0",
    "decode_e8m0",
    "NF4Code",
    "normal_levels",
    "signal_to_noise",
    "uniform_snr",
    "outlier_price",
    "distortion_bound",
    "rate_bound",
    "gaussian_uniform",
    "gaussian_distortion",
    "entropy",
    "entropy_coded_uniform",
    # for large linear layers
    "gptq",
    "encode_gptq",
    "InputScaledCode",
    "AWQSearch",
    "awq_scale",
    "search_awq",
    "encode_awq",
    "smooth_scale",
    "smooth",
    "smooth_layers",
    "input_absmax",
    "hadamard_transform",
    "random_signs",
    "rotate",
    "rotate_back",
    "rotate_stream",
]
