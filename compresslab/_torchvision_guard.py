"""Make torchvision importable beside a torch build that its compiled operators do not match.

The torchvision wheels on PyPI are built for CUDA. Beside a CPU-only torch their extension library cannot be
loaded, and ``import torchvision`` then fails with "operator torchvision::nms does not exist": its Python code
registers shape rules for two operators that nobody defined. Declaring those two is all that is missing.
"""

import importlib.machinery
import importlib.util
import sys

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_library: torch.library.Library | None = None  # the declarations live as long as this object


def _compiled_operators_load() -> bool:
    """Load torchvision's extension library as torchvision would; False if it is missing or does not fit."""
    package = importlib.util.find_spec("torchvision")
    loaders = (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES)
    for folder in package.submodule_search_locations:
        extension = importlib.machinery.FileFinder(folder, loaders).find_spec("_C")
        if extension is not None:
            try:
                torch.ops.load_library(extension.origin)
                return True
            except (ImportError, OSError):
                return False
    return False


def make_torchvision_importable() -> bool:
    """Declare ``torchvision::nms`` and ``torchvision::qnms`` if nothing else does.

    Models, transforms and data sets then work; the detection operators stay absent. Nothing happens where
    torchvision is not installed, is already imported, or brings operators that load.

    Returns:
        True if the operators had to be declared.
    """
    global _library
    if "torchvision" in sys.modules or importlib.util.find_spec("torchvision") is None:
        return False
    if _library is not None or hasattr(torch.ops.torchvision, "nms") or _compiled_operators_load():
        return False
    _library = torch.library.Library("torchvision", "DEF")
    for schema in _SCHEMAS:
        _library.define(schema)
    return True
