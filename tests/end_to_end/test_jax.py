"""docs/jax.md by bytes: whose memory a JAX array is, training that stops and goes on to the bit, processes, Grain.

Programs run in processes of their own: once JAX runs, a fork of this one, as other tests make, would bring its warning.
"""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

if importlib.util.find_spec("jax") is None:
    pytest.skip("jax is not installed", allow_module_level=True)

from swingby import config, sessions
from swingby.keeper.protocol import Stop

COUNT, FLOATS = 48, 65_536  # batches of 8 records are above the size from which packed() uses memory again
SECONDS_MAX = 100

START = f"""
import json, sys
import jax, jax.numpy as jnp, numpy as np
import swingby

dataset = swingby.open("records")

def rows(batch, out=None):
    return batch.packed(out)[0].view(np.float32).reshape(len(batch), {FLOATS})

def wanted(indices):
    return np.stack([np.random.default_rng(index).random({FLOATS}, np.float32) for index in indices])

def is_same_memory(array, device_array):
    return array.ctypes.data == device_array.unsafe_buffer_pointer()
"""

MEMORY = """
@jax.jit
def slow(rows):
    return jax.lax.fori_loop(0, 20, lambda _, kept: jnp.sin(kept) * 0 + kept, rows)[:, :9]

slow(jnp.zeros((8, rows(dataset.batch([0])).shape[1]))).block_until_ready()
made = [[(5 * number + offset) % len(dataset) for offset in range(8)] for number in range(12)]
held, running, places = [], [], set()
for indices in made:
    array = rows(dataset.batch(indices))
    places.add(array.ctypes.data)
    held.append(jax.device_put(array))
    assert is_same_memory(array, held[-1])
    del array
for indices, found in zip(made, held):
    assert (np.asarray(found) == wanted(indices)).all()
assert len(places) == len(made)
held.clear()
places.clear()
for put in (jax.device_put, jnp.asarray, jnp.array, lambda array: array):
    running = [slow(put(rows(dataset.batch(indices)))) for indices in made]
    for indices, found in zip(made, running):
        assert (np.asarray(found) == wanted(indices)[:, :9]).all()
for number in range(12):
    array = rows(dataset.batch(made[number]))
    places.add(array.ctypes.data)
    jax.device_put(array).block_until_ready()
    del array
assert len(places) < 12, "memory that nothing refers to is used again"

buffer = np.empty(8 * 4 * rows(dataset.batch([0])).shape[1] + 64, np.uint8)
buffer = buffer[-buffer.ctypes.data % 64 :]
copies = []
for indices in made:
    array = rows(dataset.batch(indices), buffer)
    copies += [(indices, jnp.asarray(array)), (indices, jnp.array(array))]
for indices, found in copies:
    assert (np.asarray(found) == wanted(indices)).all()
found = jax.device_put(rows(dataset.batch(made[0]), buffer))
rows(dataset.batch(made[1]), buffer)
assert (np.asarray(found) == wanted(made[1])).all(), "docs/jax.md says that this overwrites what JAX reads"

for array in (np.frombuffer(dataset[5].data, np.float32), rows(dataset.batch(made[0]))):
    before = array.copy()
    given = jax.device_put(array)
    assert is_same_memory(array, given)
    jax.jit(lambda array: array.at[0].set(-1.0), donate_argnums=0)(given).block_until_ready()
    assert (array == before).all()
"""

TRAINING = """
options = {"batch_size": 5, "shuffle": True, "seed": 3}

@jax.jit
def step(weights, rows):
    return weights - 0.1 * jax.grad(lambda w: jnp.mean((rows[:, :32] @ w - rows[:, 32]) ** 2))(weights)

def train(loader, weights, steps):
    keys = []
    for _, batch in zip(range(steps), loader):
        keys += batch.keys
        weights = step(weights, jax.device_put(rows(batch)))
    return keys, weights.tolist(), loader.state_dict()

keys, weights, state = [], [0.0] * 32, None
for steps in json.loads(sys.argv[1]):
    loader = swingby.Loader(dataset, **options)
    if state:
        loader.load_state_dict(state)
    more, weights, state = train(loader, jnp.array(weights), steps)
    keys += more
    state = json.loads(json.dumps(state))
print(json.dumps([keys, weights]))
"""

PROCESS = """
from jax.sharding import NamedSharding, PartitionSpec
jax.distributed.initialize(f"localhost:{sys.argv[1]}", num_processes=2, process_id=int(sys.argv[2]))
mesh = jax.make_mesh((jax.device_count(),), ("data",))
sharding = NamedSharding(mesh, PartitionSpec("data"))
loader = swingby.Loader(dataset, batch_size=4, shuffle=True, seed=1, rank=jax.process_index(), world_size=jax.process_count())
keys, sums = [], []
for batch in loader:
    whole = jax.make_array_from_process_local_data(sharding, rows(batch))
    keys += batch.keys
    sums.append(float(jax.jit(lambda rows: rows[:, 0].sum())(whole)))
print(json.dumps([whole.shape, keys, sums]))
"""

SPAWNED = """
import multiprocessing

def first(sample):
    return np.frombuffer(sample.data, np.float32)[:9]

if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    jax.device_put(np.ones(1))
    decode = swingby.Decode(first, where="processes", workers=2)
    found = [np.asarray(jax.device_put(np.stack(rows))) for rows in swingby.Loader(dataset, batch_size=8, decode=decode)]
    assert (np.concatenate(found) == wanted(range(len(dataset)))[:, :9]).all()
"""


GRAIN = """
import grain

class Source:
    def __len__(self):
        return len(dataset)

    def __getitem__(self, index):
        return {"index": index, "row": np.frombuffer(dataset[int(index)].data, np.float32)}

def made():
    return iter(grain.MapDataset.source(Source()).shuffle(seed=1).batch(8).to_iter_dataset())

batches, seen = made(), []
for number, batch in enumerate(batches):
    assert (batch["row"] == wanted(batch["index"].tolist())).all()
    seen += batch["index"].tolist()
    if number == 1:
        state = batches.get_state()
assert sorted(seen) == list(range(len(dataset)))
resumed = made()
resumed.set_state(state)
assert [index for batch in resumed for index in batch["index"].tolist()] == seen[16:]
"""


@pytest.fixture
def records(tmp_path, home, monkeypatch):
    monkeypatch.setenv("SWINGBY_HOME", home)
    monkeypatch.setenv("SWINGBY_KEEPER_IDLE_EXIT_SECONDS", "1")
    (tmp_path / "records").mkdir()
    for number in range(COUNT):
        row = np.random.default_rng(number).random(FLOATS, np.float32)
        (tmp_path / "records" / f"{number:02}.f32").write_bytes(row.tobytes())
    yield
    client = sessions.session(config.load()).client
    client.call(Stop(), 10)
    client.close()


def start(program, *arguments):
    with open("program.py", "w") as file:
        file.write(START + program)
    return subprocess.Popen([sys.executable, "program.py", *arguments], stdout=subprocess.PIPE, text=True)


def told(process):
    try:
        said, _ = process.communicate(timeout=SECONDS_MAX)
    finally:
        process.kill()
    assert process.returncode == 0
    return json.loads(said.splitlines()[-1]) if said else None


def test_memory_is_not_used_again_while_jax_refers_to_it(records):
    told(start(MEMORY))


def test_a_training_that_stops_goes_on_to_the_bit(records):
    whole_keys, whole_weights = told(start(TRAINING, "[100]"))
    assert sorted(whole_keys) == sorted(os.listdir("records"))
    keys, weights = told(start(TRAINING, "[3, 1, 100]"))
    assert keys == whole_keys
    assert weights == whole_weights


def test_two_processes_share_each_step_out(records):
    with socket.create_server(("localhost", 0)) as free:
        port = str(free.getsockname()[1])
    both = [start(PROCESS, port, str(rank)) for rank in range(2)]
    try:
        (shape, keys, sums), (_, other_keys, other_sums) = map(told, both)
    finally:
        for process in both:
            process.kill()
    assert shape == [8, FLOATS]
    assert sums == other_sums
    assert sorted(keys + other_keys) == sorted(os.listdir("records"))
    firsts = [np.random.default_rng(number).random(FLOATS, np.float32)[0] for number in range(COUNT)]
    assert sum(sums) == pytest.approx(sum(map(float, firsts)), rel=1e-5)


def test_worker_processes_decode_beside_jax(records):
    told(start(SPAWNED))


def test_grain_reads_a_dataset_and_goes_on(records):
    if importlib.util.find_spec("grain") is None:
        pytest.skip("grain is not installed")
    told(start(GRAIN))
