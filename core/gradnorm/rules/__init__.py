"""What the gradient of a parameter is made of, for every function in which samples may meet one: a file a layer family.

A rule has the signature of the torch function it stands for. It names the call's parameters and says, for each, how the
gradient of every single sample follows from the gradient of the output; where the squared norm is cheaper to have
than the gradient itself (Goodfellow 2015 for linear layers; Bu et al. 2022, "mixed ghost clipping", for convolutions),
it says how as well. A cost model (`costs`), calibrated on a CPU and reasoned from operations and bytes for CUDA, chooses
among the exact forms from shapes and the order in memory alone, so that the same call takes the same form and gives the
same bits every time.

What is made of parameters alone, before a sample meets it, needs no rule: the engine derives it by autograd.

Legend of the einsums and shapes: n samples, t and s positions, i inputs, o outputs, k offsets of a kernel, w items of
one sample on the batch dimension (windows; mostly 1).
"""

from core.gradnorm.rules import convolutions, elementwise, norms, products, tables
from core.gradnorm.rules.registry import RULES, Joint, Layout, Rule, Unsupported, Use, rule, square

__all__ = [
    "RULES",
    "Joint",
    "Layout",
    "Rule",
    "Unsupported",
    "Use",
    "convolutions",
    "elementwise",
    "norms",
    "products",
    "rule",
    "square",
    "tables",
]
