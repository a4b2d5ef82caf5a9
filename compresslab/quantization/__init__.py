"""Quantization: fewer bits per number, from the rounding of one weight to inference with integers alone."""

from compresslab.quantization.fake import FakeQuantize, round_ste

__all__ = ["FakeQuantize", "round_ste"]
