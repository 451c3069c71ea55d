"""docs/tensorflow.md by bytes: tf.data over a loader, and each batch with the state behind it.

The program runs in a process of its own: TensorFlow's threads do not go with the forks that other tests make.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import numpy as np
import pytest

if importlib.util.find_spec("tensorflow") is None:
    pytest.skip("tensorflow is not installed", allow_module_level=True)

from swingby import config, sessions
from swingby.keeper.protocol import Stop

COUNT, FLOATS = 48, 65_536  # batches of 8 records are above the size from which packed() uses memory again
SECONDS_MAX = 110

PROGRAM = f"""
import json, time
import numpy as np
import swingby
import tensorflow as tf

dataset = swingby.open("records")

def made(loader):
    def batches():
        for batch in loader:
            yield batch.packed()[0].view(np.float32).reshape(len(batch), {FLOATS}), batch.indices, json.dumps(loader.state_dict())
    signature = (
        tf.TensorSpec((None, {FLOATS}), tf.float32),
        tf.TensorSpec((None,), tf.int64),
        tf.TensorSpec((), tf.string),
    )
    return tf.data.Dataset.from_generator(batches, output_signature=signature).prefetch(2)

def loader():
    return swingby.Loader(dataset, batch_size=8, shuffle=True, seed=1)

def seen(batches):
    held = [(rows, indices.numpy().tolist()) for rows, indices, _ in batches]
    for rows, indices in held:
        for row, index in zip(rows.numpy(), indices):
            assert (row == np.random.default_rng(index).random({FLOATS}, np.float32)).all()
    return [index for _, indices in held for index in indices]

whole = seen(made(loader()))
assert sorted(whole) == list(range({COUNT}))
first = loader()
batches = iter(made(first))
begun = [next(batches) for _ in range(2)]
saved = json.loads(begun[-1][2].numpy())
until = time.monotonic() + 20
while first.state_dict()["consumed"] <= saved["consumed"]:
    assert time.monotonic() < until, "docs/tensorflow.md says that TensorFlow asks ahead"
    time.sleep(0.01)
rest = loader()
rest.load_state_dict(saved)
assert seen(begun) + seen(made(rest)) == whole

array = dataset.batch(range(8)).packed()[0]
constant, first_byte = tf.constant(array), int(array[0])
array[:] = 255 - first_byte
assert int(constant[0]) == first_byte, "docs/tensorflow.md says that this copies"
"""


def test_batches_are_right_and_each_brings_the_state_behind_it(tmp_path, home, monkeypatch):
    monkeypatch.setenv("SWINGBY_HOME", home)
    monkeypatch.setenv("SWINGBY_KEEPER_IDLE_EXIT_SECONDS", "1")
    (tmp_path / "records").mkdir()
    for number in range(COUNT):
        row = np.random.default_rng(number).random(FLOATS, np.float32)
        (tmp_path / "records" / f"{number:02}.f32").write_bytes(row.tobytes())
    try:
        subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=SECONDS_MAX)
    finally:
        client = sessions.session(config.load()).client
        client.call(Stop(), 10)
        client.close()
