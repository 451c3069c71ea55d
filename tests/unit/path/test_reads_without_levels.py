"""Reading without a keeper."""

from __future__ import annotations

import contextlib
import os
import threading

import swingby
from swingby.testing.harness import inline
from swingby.testing.memory_base import MemoryBase


def test_a_child_forked_amid_a_read_without_keeper_reads_too(tmp_path, home):
    (tmp_path / "one").write_bytes(b"right")
    began, go_on = threading.Event(), threading.Event()
    settings = {"home": home, "keeper.mode": "off"}
    with swingby.open(str(tmp_path), settings=settings) as dataset:
        assert bytes(dataset[0].data) == b"right"
        metered = dataset._reader._fallback.base()._base

        def read_slowly():
            with metered._lock:  # held by a thread of the parent at the moment of the fork
                began.set()
                go_on.wait(60)

        thread = threading.Thread(target=read_slowly)
        thread.start()
        began.wait(10)
        child = os.fork()
        if child == 0:
            code = 1
            with contextlib.suppress(BaseException):
                code = 0 if bytes(dataset[0].data) == b"right" else 2
            os._exit(code)
        ended = threading.Event()
        status = []
        threading.Thread(target=lambda: (status.append(os.waitpid(child, 0)[1]), ended.set()), daemon=True).start()
        is_over = ended.wait(10)
        if not is_over:
            os.kill(child, 9)
        go_on.set()
        thread.join()
        assert is_over
        assert status == [0]


def test_an_object_asked_for_twice_is_fetched_once_even_where_no_level_keeps_it(home):
    base = MemoryBase({b"data/%d" % number: bytes([number]) * size for number, size in enumerate((10, 10, 5 << 20))})
    nowhere = {"memory.budget_bytes": 0, "burst.budget_bytes": 0}
    with (
        inline(home, base=base, settings=nowhere) as found,
        swingby.open("memory://x/data", settings=found.settings) as dataset,
    ):
        before = found.facts()["base_bytes"]
        batch = dataset.batch([2, 1, 1, 2, 0, 1, 2])
        assert [view[0] for view in batch.views] == [2, 1, 1, 2, 0, 1, 2]
        assert found.facts()["base_bytes"] - before == 20 + (5 << 20)
