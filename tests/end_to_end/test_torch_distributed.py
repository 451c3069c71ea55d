"""Training in several processes by DistributedDataParallel, with ranks that are killed, and resumed under other world sizes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter

import pytest

pytest.importorskip("torch", reason="swingby.torch needs PyTorch")

from swingby import config, sessions
from swingby.keeper.protocol import Stop

COUNT = 101
SECONDS_MAX = 120  # on a busy machine; else some ten in all

TRAINER = """
import json, os, signal, sys, traceback
import numpy as np
import torch
import torch.distributed as dist
import swingby, swingby.torch

url, home, folder, stages = sys.argv[1:5]
saved = folder + "/saved"

def train(plan, rank, meeting):
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

    for epoch in range(loader.state_dict()["epoch"], 2):
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
        with open(saved + ".json", "w") as file:
            json.dump(committed, file)

for number, plan in enumerate(json.loads(stages)):  # what is imported is forked, once for all
    ranks = []
    for rank in range(plan["world"]):
        ranks.append(os.fork())
        if not ranks[-1]:
            code = 1
            try:
                train(plan, rank, f"{folder}/meeting-{number}")
                code = 0
            except Exception:
                traceback.print_exc()
            os._exit(code)
    print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(rank, 0)[1]) for rank in ranks]), flush=True)
"""


@pytest.mark.timeout(400)
def test_ranks_that_are_killed_and_resumed_see_every_sample_once_an_epoch(tmp_path, home):
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(COUNT):
        (folder / f"{number:03d}").write_bytes(bytes([number]) * 16)
    settings = config.load({"home": home})
    stages = [
        {"world": 2, "batch": 8, "workers": 1, "killed": 3},
        {"world": 1, "batch": 5, "workers": 2, "killed": 5},
        {"world": 4, "batch": 4, "workers": 0, "killed": 6},
        {"world": 2, "batch": 9, "workers": 1, "killed": None},
    ]
    command = [sys.executable, "-c", TRAINER, str(folder), home, str(tmp_path), json.dumps(stages)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
    codes = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(codes) == len(stages), run.stderr
    for stage, ended in zip(stages, codes, strict=True):
        if stage["killed"]:
            assert ended[-1] == -signal.SIGKILL, run.stderr
            assert all(code != 0 for code in ended)  # the others are told by the broken connection
        else:
            assert not any(ended), run.stderr
    with open(tmp_path / "saved.json", encoding="utf-8") as file:
        seen = Counter(map(tuple, json.load(file)))
    assert seen == Counter((epoch, number) for epoch in range(2) for number in range(COUNT))
    client = sessions.session(settings).client
    client.call(Stop(), 10)
    client.close()
