"""The networks of the course, networks described as data, and the trained baselines."""

from compresslab.models.networks import (
    BasicBlock,
    InvertedResidual,
    LeNet5,
    LeNet300,
    MobileNetLike,
    ResNet,
    VGGLike,
)
from compresslab.models.pretrained import baseline_info, baseline_names, load_baseline
from compresslab.models.spec import MODELS, Residual, Stack, build_model, from_spec

__all__ = [
    "MODELS", "BasicBlock", "InvertedResidual", "LeNet5", "LeNet300", "MobileNetLike", "ResNet", "Residual",
    "Stack", "VGGLike", "baseline_info", "baseline_names", "build_model", "from_spec", "load_baseline",
]  # fmt: skip
