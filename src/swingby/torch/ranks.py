"""Which rank this process is."""

from __future__ import annotations

import torch.distributed


def own_rank(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Rank and world size: as given, else as torch.distributed says, else alone.

    Raises:
        ValueError: one is given without the other.
    """
    if (rank is None) != (world_size is None):
        raise ValueError(f"rank={rank}, world_size={world_size}: give both or neither")
    if rank is not None and world_size is not None:
        return rank, world_size
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
