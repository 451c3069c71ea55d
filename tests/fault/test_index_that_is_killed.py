"""A keeper that is killed while it indexes: the next one goes on."""

from __future__ import annotations

import io
import os
import signal
import tarfile

import swingby
from swingby import config, sessions
from swingby.keeper.protocol import Status, Stop

TARS, MEMBERS, SIZE = 400, 150, 1000


def test_the_next_keeper_indexes_only_what_is_left(tmp_path, home):
    os.makedirs(tmp_path / "data")
    for number in range(TARS):
        with tarfile.open(tmp_path / "data" / f"{number:03d}.tar", "w") as made:
            for member in range(MEMBERS):
                info = tarfile.TarInfo(f"{member}")
                info.size = SIZE
                made.addfile(info, io.BytesIO(b"%03d" % number * (SIZE // 3) + b"."))
    settings = config.load({"home": home})
    session = sessions.session(settings)
    killed = []

    def kill(samples, size):
        del size
        if samples > 100 and samples % MEMBERS == 0 and not killed:
            killed.append(session.client.call(Status(), 30).message.facts["process"])
            os.kill(killed[0], signal.SIGKILL)

    dataset = swingby.open(str(tmp_path / "data"), layout="tar", progress=kill, settings=settings)
    try:
        assert killed
        assert len(dataset) == TARS * MEMBERS
        facts = session.client.call(Status(), 30).message.facts
        assert facts["process"] != killed[0]
        whole = sum(entry.stat().st_size for entry in os.scandir(tmp_path / "data"))
        assert 0 < facts["base_bytes"] < 0.95 * whole
        assert dataset[777].data[:3] == dataset.keys[777][:3].encode()
    finally:
        session.client.call(Stop(), 10)
        session.client.close()
