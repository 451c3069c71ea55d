"""The loader: what it gives, where it stands, what it does with bad samples and workers that die or hang."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import threading
import time

import numpy as np
import pytest

import swingby
from swingby import config, sessions
from swingby.errors import BadSampleError, ObjectChangedError, StateError
from swingby.keeper.protocol import Stop

COUNT = 60


@pytest.fixture
def dataset(tmp_path, home):
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(COUNT):
        (folder / f"{number:03d}").write_bytes(bytes([number]) * (100 + number))
    settings = config.load({"home": home})
    with swingby.open(str(folder), settings=settings) as found:
        yield found
    client = sessions.session(settings).client
    client.call(Stop(), 10)
    client.close()


def first_byte(sample):
    assert len(set(sample.data)) == 1
    return sample.data[0]


def given(loader, batches=None):
    return [batch.indices.tolist() for batch in itertools.islice(loader, batches)]


# -- order and position ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["global", "segments"])
@pytest.mark.parametrize("drop_last", [False, True])
def test_a_resume_under_another_world_gives_what_is_left_once(dataset, order, drop_last):
    rng = random.Random(f"{order}{drop_last}")
    for _ in range(30):
        seen, state, position = [], None, 0
        while True:
            world, batch = rng.randint(1, 4), rng.randint(1, 7)
            ranks = [
                swingby.Loader(
                    dataset,
                    batch_size=batch,
                    shuffle=True,
                    order=order,
                    seed=5,
                    rank=rank,
                    world_size=world,
                    drop_last=drop_last,
                )
                for rank in range(world)
            ]
            if state:
                for loader in ranks:
                    loader.load_state_dict(json.loads(json.dumps(state)))
            steps = rng.randint(1, 4)
            parts = [given(loader, steps) for loader in ranks]
            assert len({len(part) for part in parts}) == 1
            for step in zip(*parts, strict=True):
                seen += list(itertools.chain(*step))
            states = [loader.state_dict() for loader in ranks]
            assert all(one == states[0] for one in states)
            state = states[0]
            if not drop_last:
                assert state["consumed"] == len(seen)
            if len(parts[0]) < steps:
                break
            position += 1
        assert len(seen) == len(set(seen))
        if not drop_last:
            assert sorted(seen) == list(range(COUNT))


def test_a_state_goes_on_in_its_epoch_and_then_with_the_next(dataset):
    def make():
        return swingby.Loader(dataset, batch_size=8, shuffle=True, seed=1)

    whole = make()
    epochs = [given(whole) for _ in range(3)]
    loader = make()
    given(loader)
    iterator = iter(loader)
    for _ in range(3):
        next(iterator)
    state = loader.state_dict()
    assert (state["epoch"], state["consumed"]) == (1, 24)
    resumed = make()
    resumed.load_state_dict(state)
    assert len(resumed) == 5
    assert given(resumed) == epochs[1][3:]
    assert len(resumed) == 8
    assert given(resumed) == epochs[2]
    again = make()
    again.load_state_dict(state)
    again.set_epoch(1)  # as loops over epochs do; it is the one that was begun
    assert given(again) == epochs[1][3:]
    again.load_state_dict(state)
    again.set_epoch(2)
    assert given(again) == epochs[2]


def test_the_state_of_a_finished_epoch_gives_nothing_more_of_it(dataset):
    loader = swingby.Loader(dataset, batch_size=7, shuffle=True)
    given(loader)
    resumed = swingby.Loader(dataset, batch_size=7, shuffle=True)
    resumed.load_state_dict(loader.state_dict())
    assert given(resumed) == []
    assert len(given(resumed)) == len(loader)


def test_a_state_of_something_else_is_refused_before_anything_changes(dataset, tmp_path, home):
    loader = swingby.Loader(dataset, batch_size=8, shuffle=True, seed=1)
    state = loader.state_dict()
    for change in (
        {"dataset": "00" * 32},
        {"seed": 2},
        {"order": "key"},
        {"format": 2},
        {"consumed": -1},
        {"epoch": "first"},
        {"dataset": None},
        {"dataset": 5},
        {"consumed": COUNT + 1},
        {"epoch": 1 << 80},
    ):
        with pytest.raises(StateError):
            loader.load_state_dict(state | change)
    with pytest.raises(StateError, match="epoch"):
        loader.load_state_dict({name: value for name, value in state.items() if name != "epoch"})
    with pytest.raises(StateError):
        loader.load_state_dict(None)
    assert loader.state_dict() == state


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"batch_size": "a"}, "batch_size"),
        ({"batch_size": 2.5}, "batch_size"),
        ({"batch_size": True}, "batch_size"),
        ({"batch_size": 4, "seed": -1}, "seed"),
        ({"batch_size": 4, "seed": 1.5}, "seed"),
        ({"batch_size": 4, "seed": 1 << 70}, "seed"),
        ({"batch_size": 4, "rank": 2, "world_size": 2}, "rank"),
        ({"batch_size": 4, "prefetch_bytes_max": "1GiB"}, "prefetch_bytes_max"),
        ({"batch_size": 4, "decode": 5}, "decode"),
    ],
)
def test_the_argument_that_is_wrong_is_named(dataset, arguments, name):
    with pytest.raises(ValueError, match=f"^{name}="):
        swingby.Loader(dataset, **arguments)


@pytest.mark.parametrize("epoch", [-1, "a", 1.5, None])
def test_an_epoch_that_is_none_is_refused(dataset, epoch):
    loader = swingby.Loader(dataset, batch_size=4)
    with pytest.raises(ValueError, match="epoch="):
        loader.set_epoch(epoch)
    assert loader.state_dict()["epoch"] == 0


def test_arguments_out_of_range_are_refused(dataset):
    for wrong in (
        {"batch_size": 0},
        {"rank": 1},
        {"seed": -1},
        {"order": "random"},
        {"on_bad": "skip"},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            swingby.Loader(dataset, **({"batch_size": 4} | wrong))
    for wrong in ({"where": "fibres"}, {"workers": 0}, {"seconds_max": 0.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            swingby.Decode(first_byte, **wrong)


# -- decode ------------------------------------------------------------------------------------------------------------


def key_and_byte(sample):
    return sample.key, first_byte(sample)


def wrong_at_seven(sample):
    if first_byte(sample) == 7:
        raise ValueError("seven")
    return first_byte(sample)


def none_at_seven(sample):
    return None if first_byte(sample) == 7 else first_byte(sample)


def hang_at_seven(sample):
    if first_byte(sample) == 7:
        time.sleep(3600)
    return first_byte(sample)


def die_at_seven(sample):
    if first_byte(sample) == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return first_byte(sample)


def unsendable_at_seven(sample):
    return threading.Lock() if sample.data[0] == 7 else sample.data[0]


def of_process(sample):
    time.sleep(0.002)
    return os.getpid(), first_byte(sample)


WHERE = pytest.mark.parametrize("where", ["threads", "processes"])


@WHERE
def test_decoded_samples_come_in_order(dataset, where):
    loader = swingby.Loader(
        dataset, batch_size=7, shuffle=True, seed=3, decode=swingby.Decode(key_and_byte, where=where, workers=3)
    )
    plain = [index for batch in swingby.Loader(dataset, batch_size=7, shuffle=True, seed=3) for index in batch.indices]
    found = list(loader)
    assert [len(batch) for batch in found] == [7] * 8 + [4]
    assert [one for batch in found for one in batch] == [(f"{index:03d}", index) for index in plain]


@WHERE
@pytest.mark.parametrize(("decode", "why"), [(wrong_at_seven, "seven"), (none_at_seven, "None")])
def test_a_bad_sample_raises_with_its_key_or_is_replaced_the_same_for_all(dataset, where, decode, why):
    options = {"batch_size": 6, "shuffle": True, "decode": swingby.Decode(decode, where=where, workers=2)}
    with pytest.raises(BadSampleError, match=f"007: .*{why}"):
        list(swingby.Loader(dataset, **options))
    stands = set()
    for world in (1, 2, 3):
        seen = []
        for rank in range(world):
            loader = swingby.Loader(dataset, **options, rank=rank, world_size=world, on_bad="substitute")
            batches = list(loader)
            assert len(batches) == len(swingby.Loader(dataset, batch_size=6, rank=rank, world_size=world))
            seen += [value for batch in batches for value in batch]
            stands |= {(bad.key, bad.substitute) for bad in loader.bad}
            assert all(why in bad.reason for bad in loader.bad)
        assert len(seen) == COUNT
        assert 7 not in seen
    assert len(stands) == 1


@WHERE
def test_a_decode_that_hangs_is_given_up(dataset, where):
    options = {"batch_size": 6, "decode": swingby.Decode(hang_at_seven, where=where, workers=2, seconds_max=0.5)}
    began = time.monotonic()
    with pytest.raises(BadSampleError, match=r"007: decode took longer than 0\.5 s"):
        list(swingby.Loader(dataset, **options))
    loader = swingby.Loader(dataset, **options, on_bad="substitute")
    assert sum(map(len, loader)) == COUNT
    assert [bad.key for bad in loader.bad] == ["007"]
    assert time.monotonic() - began < 20


def test_a_sample_that_ends_its_worker_is_bad_and_the_others_are_decoded(dataset):
    before = set(children())
    options = {"batch_size": 6, "decode": swingby.Decode(die_at_seven, where="processes", workers=2)}
    with pytest.raises(BadSampleError, match="007: its decoding ended the worker process"):
        list(swingby.Loader(dataset, **options))
    loader = swingby.Loader(dataset, **options, on_bad="substitute")
    assert sum(map(len, loader)) == COUNT
    assert [bad.key for bad in loader.bad] == ["007"]
    assert not set(children()) - before


def test_a_killed_worker_is_replaced_and_nothing_is_lost_or_repeated(dataset):
    loader = swingby.Loader(dataset, batch_size=4, decode=swingby.Decode(of_process, where="processes", workers=2))
    seen, killed = [], 0
    before = set(children())
    for step, batch in enumerate(loader):
        seen += [value for _, value in batch]
        living = [number for number in children() if number not in before]
        if step % 3 == 0 and killed < 4 and living:
            with contextlib.suppress(ProcessLookupError):
                os.kill(random.choice(living), signal.SIGKILL)
                killed += 1
    assert killed == 4
    assert seen == list(range(COUNT))
    assert not set(children()) - before


def test_what_cannot_go_to_another_process_is_as_bad_as_what_cannot_be_decoded(dataset):
    options = {"batch_size": 4, "decode": swingby.Decode(unsendable_at_seven, where="processes", workers=1)}
    with pytest.raises(BadSampleError, match="007: what decode returned cannot go to another process") as caught:
        list(swingby.Loader(dataset, **options))
    assert caught.value.key == "007"
    loader = swingby.Loader(dataset, **options, on_bad="substitute")
    assert sum(map(len, loader)) == COUNT
    assert [bad.key for bad in loader.bad] == ["007"]


@WHERE
def test_a_loader_left_in_the_middle_leaves_nobody_behind(dataset, where):
    threads, before = decoding(), set(children())
    for _ in range(5):
        loader = swingby.Loader(dataset, batch_size=2, decode=swingby.Decode(first_byte, where=where, workers=3))
        iterator = iter(loader)
        next(iterator)
        iterator.close()
    assert not set(children()) - before
    assert decoding() <= threads


@pytest.mark.parametrize("decode", [None, first_byte])
def test_an_object_that_changed_is_replaced_where_that_is_wanted(dataset, tmp_path, decode):
    (tmp_path / "files" / "013").write_bytes(b"changed")
    (tmp_path / "files" / "014").unlink()
    options = {"batch_size": 8, "shuffle": True, "decode": decode}
    with pytest.raises((ObjectChangedError, FileNotFoundError)):
        list(swingby.Loader(dataset, **options))
    loader = swingby.Loader(dataset, **options, on_bad="substitute")
    assert sum(map(len, loader)) == COUNT
    assert {bad.key for bad in loader.bad} == {"013", "014"}


def decoding():
    return {thread for thread in threading.enumerate() if thread.name == "swingby-decode"}


def children():
    """Living and dead children of this process."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    fields = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == os.getpid():
                found.append(int(name))
    return found


def test_a_resume_in_the_middle_of_ten_million_takes_no_time():
    from swingby.core.epoch import Draw
    from swingby.core.order import Permutation, Share, step_positions

    count = 10_000_000
    began = time.perf_counter()
    order = Permutation(count, *Draw(1, 2, "ab"))
    start, stop = step_positions(count, Share(256, 0, 8, drop_last=False, first=6_000_001), 0)
    assert len(np.unique(order.take(np.arange(start, stop)))) == 256
    assert time.perf_counter() - began < 0.1
