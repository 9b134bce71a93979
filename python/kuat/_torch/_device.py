"""Torch's devices on this machine."""

import torch

from .. import _kuat

# Torch has names for these, but on a desktop or server no tensors there: they are graphics APIs of kuat's adapters.
_GRAPHICS = ("metal", "opencl", "opengl", "vulkan")


def torch_device(device):
    """The torch device that `device` means, with its number; None if it means a GPU adapter of kuat's.

    Raises `kuat.Error` for a device that torch knows and cannot use here.
    """
    if device == "auto":
        device = next(_accelerators(), "cpu")
    try:
        # Torch takes a number for a device of its own, kuat for an adapter.
        found = torch.device(device) if isinstance(device, (str, torch.device)) else None
    except RuntimeError:
        found = None
    if found is None or found.type in _GRAPHICS:
        return None
    try:
        return torch.empty(1, device=found).device
    except (AssertionError, RuntimeError) as error:
        present = ", ".join(["cpu", *_accelerators()])
        raise _kuat.Error(
            f"device is {str(device)!r}, which torch {torch.__version__} cannot use here (it has {present}): {error}"
        ) from error


def _accelerators():
    """The names of torch's accelerators here, best first. Torch calls AMD's GPUs cuda, too."""
    if torch.cuda.is_available():
        yield "cuda"
    if hasattr(torch, "xpu") and torch.xpu.is_available():
        yield "xpu"
    if hasattr(torch.backends, "mps") and torch.backends.mps.is_available():
        yield "mps"
