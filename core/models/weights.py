"""Files of weights: read without running any code that they might hold."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from data.errors import UserError

NESTED = ("state_dict", "model")  # under which training scripts keep the weights, beside an optimiser and a date


def read(path: Path) -> dict[str, Tensor]:
    """The tensors that a .safetensors, .pth or .pt file holds, by name.

    Raises `UserError` where there is no file, it is damaged, or it holds more than weights.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}: give the weights of the network, a .pth or .safetensors file.")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise UserError(f"{path} is damaged or no file of weights: download it again.") from error
    except Exception as error:  # pickle's own errors, for a file that holds more than tensors
        raise UserError(
            f"{path} holds more than weights, which is not loaded for safety: give a state dict, or a .safetensors file."
        ) from error
    if isinstance(state, dict):
        state = next((state[name] for name in NESTED if isinstance(state.get(name), dict)), state)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} holds no state dict: give the file that the network's weights come in.")
    return state
