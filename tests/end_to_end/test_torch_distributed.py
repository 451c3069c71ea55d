"""Training in several processes by DistributedDataParallel, with ranks that are killed, and resumed under other world sizes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter

import pytest

pytest.importorskip("torch", reason="swingby.torch needs PyTorch")

import swingby
from swingby import config, sessions
from swingby.keeper.protocol import Stop

COUNT = 101
SECONDS_MAX = 120  # on a busy machine; else some ten in all

TRAINER = """
import json, os, signal, sys
import numpy as np
import torch
import torch.distributed as dist
import swingby, swingby.torch

url, home, meeting, saved, plan = sys.argv[1:6]
plan, rank = json.loads(plan), int(sys.argv[6])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=plan["world"])

def decode(sample):
    pixels = torch.tensor(np.frombuffer(sample.data, np.uint8), dtype=torch.float32) / 255
    return int(sample.key), pixels

dataset = swingby.torch.Dataset(url, decode, settings={"home": home})
loader = swingby.torch.DataLoader(dataset, batch_size=plan["batch"], shuffle=True, seed=9, num_workers=plan["workers"])
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(16, 1))
optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
committed = []
if os.path.exists(saved):
    checkpoint = torch.load(saved)
    model.load_state_dict(checkpoint["model"])
    loader.load_state_dict(checkpoint["loader"])
    committed = checkpoint["committed"]
steps, seen = 0, []

def commit():
    everyones = [None] * plan["world"]
    dist.all_gather_object(everyones, (seen, loader.state_dict()))
    assert all(state == everyones[0][1] for _, state in everyones)
    committed.extend(key for keys, _ in everyones for key in keys)
    seen.clear()
    if rank == 0:
        torch.save({"model": model.state_dict(), "loader": loader.state_dict(), "committed": committed}, saved + ".new")
        os.rename(saved + ".new", saved)
    dist.barrier()

for epoch in range(loader.state_dict()["epoch"], plan["epochs"]):
    loader.set_epoch(epoch)
    for keys, pixels in loader:
        loss = (model(pixels) - keys[:, None] / 101).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        steps += 1
        seen.extend([epoch, key] for key in keys.tolist())
        if steps == plan["killed"] and rank == plan["world"] - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if steps % 2 == 0:
            commit()
    commit()
assert torch.isfinite(loss)
if rank == 0:
    print(json.dumps(committed))
"""


@pytest.mark.timeout(400)
def test_ranks_that_are_killed_and_resumed_see_every_sample_once_an_epoch(tmp_path, home):
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(COUNT):
        (folder / f"{number:03d}").write_bytes(bytes([number]) * 16)
    settings = config.load({"home": home})
    swingby.open(str(folder), settings=settings).close()  # the ranks open its snapshot
    stages = [
        {"world": 2, "batch": 8, "workers": 1, "killed": 3},
        {"world": 1, "batch": 5, "workers": 2, "killed": 5},
        {"world": 4, "batch": 4, "workers": 0, "killed": 6},
        {"world": 2, "batch": 9, "workers": 1, "killed": None},
    ]
    for number, stage in enumerate(stages):
        plan = json.dumps(stage | {"epochs": 2})
        command = [sys.executable, "-c", TRAINER, str(folder), home, str(tmp_path / f"meeting-{number}")]
        command += [str(tmp_path / "saved"), plan]
        ranks = [
            subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for rank in range(stage["world"])
        ]
        said = [rank.communicate(timeout=SECONDS_MAX) for rank in ranks]
        if stage["killed"]:
            assert ranks[-1].returncode == -signal.SIGKILL, said
            assert all(rank.returncode != 0 for rank in ranks)  # the others are told by the broken connection
        else:
            assert all(rank.returncode == 0 for rank in ranks), said
    seen = Counter(map(tuple, json.loads(said[0][0])))
    assert seen == Counter((epoch, number) for epoch in range(2) for number in range(COUNT))
    client = sessions.session(settings).client
    client.call(Stop(), 10)
    client.close()
