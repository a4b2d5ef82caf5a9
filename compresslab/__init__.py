"""compresslab: a course in making neural networks small and fast.

One package per technique family (``pruning``, ``quantization``, ...), built on ``core``; the networks and
data of the course are in ``models`` and ``data``, its exercises in ``course``.
"""

from compresslab._torchvision_guard import make_torchvision_importable

__version__ = "0.1.0"

make_torchvision_importable()
