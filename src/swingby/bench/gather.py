"""The limit of every read from memory: a compiled loop that copies the same records into a buffer it has used before."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SOURCE = """
#include <stdint.h>
#include <string.h>
void gather(const uint8_t **from, uint64_t count, uint64_t size, uint8_t *to) {
    for (uint64_t i = 0; i < count; i++) memcpy(to + i * size, from[i], size);
}
"""

Gather = Callable[[Sequence["NDArray[np.uint64]"], int, "NDArray[np.uint8]"], None]


def compiled_gather() -> tuple[Gather, str]:
    """The loop, and what made it: C where there is a compiler, else numpy's take."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise RuntimeError("the limit needs a C compiler: install gcc or clang")
    with tempfile.TemporaryDirectory() as folder:
        source, library = os.path.join(folder, "gather.c"), os.path.join(folder, "gather.so")
        with open(source, "w") as file:
            file.write(_SOURCE)
        subprocess.run([compiler, "-O3", "-shared", "-fPIC", source, "-o", library], check=True)
        loop = ctypes.CDLL(library).gather
    loop.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_void_p]

    def gather(batches: Sequence[NDArray[np.uint64]], size: int, out: NDArray[np.uint8]) -> None:
        target = out.ctypes.data
        for addresses in batches:
            loop(addresses.ctypes.data, len(addresses), size, target)

    return gather, f"memcpy loop by {os.path.basename(compiler)} -O3"
