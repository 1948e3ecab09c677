"""Import torchvision also where its compiled operators do not fit the installed torch.

A torchvision whose operators were built for another torch fails at import with "operator torchvision::nms does not
exist": it describes the operators nms and qnms, which its own library should have defined. Declaring them first lets
everything but these operators work (data sets, models, transforms); a proper build defines them itself, and nothing is
declared. Import torchvision from here: `from data.torchvision_import import torchvision`.
"""

import importlib.util
import sys

import torch

if "torchvision" not in sys.modules and importlib.util.find_spec("torchvision") is not None:
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        # The library must stay referenced: its operators go when it is collected.
        operators = torch.library.Library("torchvision", "FRAGMENT")
        operators.define("nms(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor")
        operators.define("qnms(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor")

import torchvision
import torchvision.datasets

__all__ = ["torchvision"]
