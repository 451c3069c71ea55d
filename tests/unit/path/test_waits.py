"""What a thread waits for at a base is counted once, and for that thread."""

from __future__ import annotations

import threading
import time

import pytest

import swingby
from swingby.path.waits import WAITED, Waited


@pytest.mark.parametrize("indices", [[0], [0, 1, 2]])
def test_a_read_without_a_keeper_waits_for_the_base(tmp_path, home, indices):
    (tmp_path / "files").mkdir()
    for number in range(3):
        (tmp_path / "files" / str(number)).write_bytes(bytes(1000))
    dataset = swingby.open(tmp_path / "files", settings={"home": home, "keeper.mode": "off"})
    seconds, size = WAITED.base_seconds, WAITED.base_bytes
    began = time.perf_counter()
    dataset.batch(indices)
    assert 0 < WAITED.base_seconds - seconds < time.perf_counter() - began
    assert WAITED.base_bytes - size == 1000 * len(indices)


def test_what_is_added_within_a_read_is_not_added_twice():
    waited = Waited()
    with waited.reading(10):
        waited.add(100.0, 0)
        time.sleep(0.01)
    assert 0.01 <= waited.base_seconds < 1.0
    assert waited.base_bytes == 10


def test_threads_count_for_themselves():
    seen = []
    before = WAITED.base_bytes
    thread = threading.Thread(target=lambda: (WAITED.add(1.0, 7), seen.append(WAITED.base_bytes)))
    thread.start()
    thread.join()
    assert seen == [7]
    assert WAITED.base_bytes == before
