"""The PyTorch door: datasets and a data loader that read through Swingby. Needs the extra `torch`."""

from __future__ import annotations

try:
    import torch as _torch
except ModuleNotFoundError as _error:
    if _error.name != "torch":
        raise
    raise ModuleNotFoundError(
        "swingby.torch needs PyTorch, which is not installed: pip install 'swingby[torch]'", name="torch"
    ) from None

from swingby.torch.dataset import Dataset
from swingby.torch.iterable import IterableDataset
from swingby.torch.loader import DataLoader

__all__ = ["DataLoader", "Dataset", "IterableDataset"]

del _torch
