"""Mixtures: what a loader gives of them, in which proportions, after which resume, and what happens when a part of one fails."""

from __future__ import annotations

import itertools
import json
import math
import multiprocessing
import os
import pickle
import random
import shutil
import time
from collections import Counter

import numpy as np
import pytest

import swingby
from swingby import config, sessions
from swingby.base.s3 import S3Base
from swingby.data.ahead import Following
from swingby.errors import BadSampleError, BaseNotFoundError, BaseUnavailableError, ObjectNotFoundError, StateError
from swingby.keeper.protocol import Evict, Status, Stop
from swingby.testing.faulty_base import Faults, FaultyBase
from swingby.testing.harness import inline
from swingby.testing.memory_base import MemoryBase

SIZES = {"red": 60, "green": 25, "blue": 1}


def fill(folder, count, letter):
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:03d}").write_bytes(f"{letter}{number:03d}".encode() * (10 + number))


def client_of(settings):
    return sessions.session(settings).client


@pytest.fixture
def opened(tmp_path, home):
    """The three datasets, and their keeper's settings."""
    settings = config.load({"home": home})
    for name, count in SIZES.items():
        fill(tmp_path / name, count, name[0])
    found = {name: swingby.open(str(tmp_path / name), settings=settings) for name in SIZES}
    yield found
    for one in found.values():
        one.close()
    client_of(settings).call(Stop(), 10)
    client_of(settings).close()


def given(loader, batches=None):
    return [batch.indices.tolist() for batch in itertools.islice(loader, batches)]


def flat(batches):
    return list(itertools.chain(*batches))


def whole_text(sample):
    return bytes(sample.data[:4]).decode()


# -- what is given -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["global", "segments"])
def test_without_weights_every_sample_comes_once_an_epoch(opened, order):
    mixture = swingby.Mixture(opened)
    loader = swingby.Loader(mixture, batch_size=8, shuffle=True, order=order, seed=2)
    assert len(loader) == math.ceil(86 / 8)
    epochs = [flat(given(loader)) for _ in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(86))
    assert epochs[0] != epochs[1]


def test_batches_hold_what_they_say(opened):
    mixture = swingby.Mixture(opened, weights={"red": 0.5, "green": 0.3, "blue": 0.2}, samples=200)
    for batch in swingby.Loader(mixture, batch_size=16, shuffle=True, seed=1):
        sources = mixture.source_of(batch.indices)
        data, offsets = batch.packed()
        for position, (sample, key, source) in enumerate(zip(batch, batch.keys, sources, strict=True)):
            name, _, own = key.partition("/")
            assert name == mixture.names[source]
            wanted = f"{name[0]}{own}".encode() * (10 + int(own))
            assert sample.key == key
            assert bytes(sample.data) == bytes(data[offsets[position] : offsets[position + 1]]) == wanted
            assert batch.sizes[position] == len(wanted)


def test_objects_of_one_size_are_copied_by_their_records(opened, tmp_path, home):
    for name in ("left", "right"):
        (tmp_path / name).mkdir()
        for number in range(20):
            (tmp_path / name / f"{number:02d}").write_bytes(f"{name[0]}{number:02d}".encode() * 400)
    settings = config.load({"home": home})
    with swingby.Mixture(
        [swingby.open(str(tmp_path / name), settings=settings) for name in ("left", "right")]
    ) as mixture:
        wanted = [f"{name}{number:02d}".encode() * 400 for name in "lr" for number in range(20)]
        indices = np.random.default_rng(0).permutation(40)
        until = time.monotonic() + 30
        while mixture.batch(indices).found.records() is None:
            assert time.monotonic() < until
            time.sleep(0.01)
        out = np.empty(40 * 1200 + 5, np.uint8)
        for data, offsets in (mixture.batch(indices).packed(), mixture.batch(indices).packed(out)):
            assert [bytes(data[a:b]) for a, b in itertools.pairwise(offsets)] == [wanted[index] for index in indices]
        assert mixture.batch(indices[:0]).found.records() is None
        assert mixture.batch([20, 3]).packed()[0].tobytes() == wanted[20] + wanted[3]


def test_weights_are_kept_over_epochs_and_nothing_is_repeated_before_all_was_seen(opened):
    mixture = swingby.Mixture(opened, weights=[0.7, 0.2, 0.1], samples=101)
    loader = swingby.Loader(mixture, batch_size=10, shuffle=True)
    seen = np.array(flat(flat(given(loader)) for _ in range(10)))
    assert len(seen) == 1010
    sources = mixture.source_of(seen)
    assert np.abs(np.bincount(sources) - 1010 * mixture.shares).max() <= 2
    for source, size in enumerate(SIZES.values()):
        own = seen[sources == source].tolist()
        passes = [own[start : start + size] for start in range(0, len(own), size)]
        assert all(len(set(one)) == len(one) for one in passes)
        if size > 1:
            assert passes[0] != passes[1]


def test_an_epoch_lasts_until_all_were_seen_or_the_first_is_at_its_end(opened):
    weights = [0.5, 0.25, 0.25]
    longest = swingby.Mixture(opened, weights=weights)
    found = longest.source_of(flat(given(swingby.Loader(longest, batch_size=7, shuffle=True))))
    assert np.bincount(found).tolist() == [60, 30, 30] or longest.epoch_samples <= 121
    assert len(set(flat(given(swingby.Loader(longest, batch_size=7, shuffle=True))))) == 86
    first = swingby.Mixture(opened, weights=[0.5, 0.5, 0], samples="first")
    found = flat(given(swingby.Loader(first, batch_size=7, shuffle=True)))
    assert len(found) == len(set(found)) in {50, 51}


def test_in_key_order_datasets_are_still_mixed(opened):
    mixture = swingby.Mixture([opened["red"], opened["green"]], weights=[1, 1], samples=50)
    found = flat(given(swingby.Loader(mixture, batch_size=5)))
    sources = mixture.source_of(found)
    assert [index for index in found if index < 60] == list(range(25))
    assert [index - 60 for index in found if index >= 60] == list(range(25))
    assert 10 < np.abs(np.diff(sources)).sum() < 40


def test_the_same_dataset_twice_is_read_in_two_orders(opened):
    mixture = swingby.Mixture([opened["red"], opened["red"]], weights=[1, 1])
    found = np.array(flat(given(swingby.Loader(mixture, batch_size=5, shuffle=True))))
    assert Counter((found % 60).tolist()) == dict.fromkeys(range(60), 2)
    first, second = found[found < 60], found[found >= 60] - 60
    assert (first == second).mean() < 0.2


def test_a_hundred_datasets_and_one(opened, tmp_path, home):
    one = swingby.Mixture([opened["red"]])
    assert sorted(flat(given(swingby.Loader(one, batch_size=9, shuffle=True)))) == list(range(60))
    many = swingby.Mixture([opened[name] for name in itertools.islice(itertools.cycle(SIZES), 100)], samples=5000)
    found = flat(given(swingby.Loader(many, batch_size=100, shuffle=True)))
    assert np.abs(np.bincount(many.source_of(found), minlength=100) - 5000 * many.shares).max() <= 2


def test_a_mixture_is_read_by_index_and_key(opened):
    mixture = swingby.Mixture(opened)
    assert len(mixture) == len(mixture.keys) == len(mixture.sizes) == 86
    assert mixture.keys[60] == "green/000"
    assert mixture.keys[-1] == "blue/000"
    assert mixture.keys[58:61] == ["red/058", "red/059", "green/000"]
    assert mixture.keys.index("green/007") == 67
    assert "green/007" in mixture.keys
    for absent in ("green/7", "grey/007", "green", 7):
        assert absent not in mixture.keys
    with pytest.raises(ValueError, match="grey"):
        mixture.keys.index("grey/007")
    assert whole_text(mixture[67]) == "g007"
    assert whole_text(mixture[-1]) == "b000"
    assert [sample.key for sample in mixture] == list(mixture.keys)
    for wrong in (86, -87):
        with pytest.raises(IndexError):
            mixture[wrong]
    with pytest.raises(IndexError):
        mixture.batch([0, -1])
    assert len(mixture.batch([])) == 0
    assert mixture.batch([]).packed()[0].size == 0
    with mixture:
        pass
    with pytest.raises(swingby.SwingbyError, match="closed"):
        mixture.batch([0])


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_mixtures_that_make_no_sense_are_refused(opened):
    for wrong, why in (
        ({"weights": [1, 2]}, "2 weights for 3"),
        ({"weights": {"red": 1}}, "one for each"),
        ({"weights": [1, math.nan, 1]}, "nan"),
        ({"weights": [1, -1, 1]}, "-1"),
        ({"weights": [0, 0, 0]}, "above 0"),
        ({"temperature": 0}, "temperature"),
        ({"samples": 0}, "samples"),
        ({"samples": "some"}, "samples"),
        ({"samples": True}, "samples"),
        ({"weights": [1, 1, 1e-30]}, "how many samples"),
    ):
        with pytest.raises(ValueError, match=why):
            swingby.Mixture(opened, **wrong)
    with pytest.raises(ValueError, match="at least one"):
        swingby.Mixture([])
    with pytest.raises(ValueError, match="slash"):
        swingby.Mixture({"a/b": opened["red"]})
    with pytest.raises(TypeError, match=r"swingby\.open"):
        swingby.Mixture({"all": swingby.Mixture(opened)})


def test_a_state_belongs_to_names_datasets_weights_and_length(opened):
    def loader(datasets=opened, **options):
        return swingby.Loader(swingby.Mixture(datasets, **options), batch_size=4, shuffle=True)

    state = loader().state_dict()
    loader(weights=[120, 50, 2]).load_state_dict(state)  # the same shares
    for other in (
        loader(weights=[120, 50, 3]),
        loader(temperature=2),
        loader(samples=50),
        loader({"rot": opened["red"], "green": opened["green"], "blue": opened["blue"]}),
        loader({"red": opened["red"], "green": opened["green"]}),
    ):
        with pytest.raises(StateError, match="weights"):
            other.load_state_dict(state)


# -- resume ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["global", "segments"])
def test_a_resume_under_another_world_gives_what_is_left_once(opened, order):
    rng = random.Random(order)
    mixture = swingby.Mixture(opened, weights=[0.6, 0.3, 0.1], samples=97)
    wanted = flat(
        flat(given(loader)) for loader in [swingby.Loader(mixture, batch_size=10, shuffle=True, order=order)] * 3
    )
    for _ in range(10):
        seen, state = [], None
        while len(seen) < len(wanted):
            world, batch = rng.randint(1, 4), rng.randint(1, 7)
            ranks = [
                swingby.Loader(mixture, batch_size=batch, shuffle=True, order=order, rank=rank, world_size=world)
                for rank in range(world)
            ]
            if state:
                for loader in ranks:
                    loader.load_state_dict(json.loads(json.dumps(state)))
            parts = [given(loader, rng.randint(1, 8)) for loader in ranks[:1]]
            parts += [given(loader, len(parts[0])) for loader in ranks[1:]]
            for step in zip(*parts, strict=True):
                seen += flat(step)
            state = ranks[-1].state_dict()
            if not parts[0]:
                state = state | {"epoch": state["epoch"] + 1, "consumed": 0}
        assert seen == wanted


# -- decoding, processes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["threads", "processes"])
def test_samples_are_decoded_in_order(opened, where):
    mixture = swingby.Mixture(opened, weights=[1, 1, 1], samples=90)
    plain = flat(given(swingby.Loader(mixture, batch_size=7, shuffle=True, seed=3)))
    decode = swingby.Decode(whole_text, where=where, workers=2)
    found = flat(swingby.Loader(mixture, batch_size=7, shuffle=True, seed=3, decode=decode))
    assert found == [whole_text(mixture[index]) for index in plain]


def test_a_mixture_travels_by_pickle(opened):
    mixture = swingby.Mixture(opened, weights={"blue": 1, "red": 2, "green": 3}, temperature=3, samples=500)
    again = pickle.loads(pickle.dumps(mixture))
    assert again.digest == mixture.digest
    assert again.epoch_samples == 500
    assert given(swingby.Loader(again, batch_size=9, shuffle=True)) == given(
        swingby.Loader(mixture, batch_size=9, shuffle=True)
    )


def epoch_in_child(mixture, pipe):
    pipe.send(given(swingby.Loader(mixture, batch_size=9, shuffle=True)))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_read_it(opened, method):
    mixture = swingby.Mixture(opened)
    wanted = given(swingby.Loader(mixture, batch_size=9, shuffle=True))
    context = multiprocessing.get_context(method)
    mine, its = context.Pipe()
    child = context.Process(target=epoch_in_child, args=(mixture, its))
    child.start()
    assert mine.poll(60)
    assert mine.recv() == wanted
    child.join(30)
    assert child.exitcode == 0


# -- what fails --------------------------------------------------------------------------------------------------------


def none_at_green_seven(sample):
    return None if whole_text(sample) == "g007" else whole_text(sample)


def test_a_bad_sample_is_replaced_by_one_of_its_dataset(opened, tmp_path):
    os.remove(tmp_path / "green" / "003")
    mixture = swingby.Mixture(opened)
    with pytest.raises(ObjectNotFoundError, match=r"dataset 'green'.*003"):
        list(swingby.Loader(mixture, batch_size=5, shuffle=True))
    stands = set()
    for world in (1, 2):
        seen = []
        for rank in range(world):
            loader = swingby.Loader(
                mixture,
                batch_size=5,
                shuffle=True,
                rank=rank,
                world_size=world,
                on_bad="substitute",
                decode=none_at_green_seven,
            )
            seen += flat(loader)
            stands |= {(bad.key, bad.substitute) for bad in loader.bad}
        assert Counter(text[0] for text in seen) == {"r": 60, "g": 25, "b": 1}
        assert {"g003", "g007"}.isdisjoint(seen)
    assert {key for key, _ in stands} == {"green/003", "green/007"}
    assert len(stands) == 2
    assert all(substitute.startswith("green/") for _, substitute in stands)


@pytest.mark.parametrize("on_bad", ["raise", "substitute"])
def test_a_dataset_that_vanishes_in_the_middle_ends_the_epoch_with_its_name(opened, tmp_path, home, on_bad):
    mixture = swingby.Mixture({name: opened[name] for name in ("red", "green")}, weights=[1, 1], samples=10**6)
    loader = swingby.Loader(mixture, batch_size=4, shuffle=True, on_bad=on_bad, prefetch_bytes_max=0)
    began = time.monotonic()
    iterator = iter(loader)
    next(iterator)
    shutil.rmtree(tmp_path / "green")
    while client_of(config.load({"home": home})).call(Evict(), 30).message.facts["kept"]:
        time.sleep(0.02)  # what is cached could stand for what is gone
    with pytest.raises((ObjectNotFoundError, BadSampleError), match="green"):
        list(itertools.islice(iterator, 1000))
    assert time.monotonic() - began < 30


def test_a_bad_sample_of_a_dataset_of_one_cannot_be_replaced(opened, tmp_path):
    os.remove(tmp_path / "blue" / "000")
    loader = swingby.Loader(swingby.Mixture(opened), batch_size=5, shuffle=True, on_bad="substitute")
    with pytest.raises(BadSampleError, match="blue/000"):
        list(loader)


# -- read-ahead --------------------------------------------------------------------------------------------------------


def test_all_is_read_ahead_of_a_reader_that_waits(opened, home):
    """One batch is read; the rest of all three datasets comes by itself."""
    mixture = swingby.Mixture(opened)
    iterator = iter(swingby.Loader(mixture, batch_size=1, shuffle=True))
    next(iterator)
    wanted, found, until = int(mixture.sizes.sum()), 0, time.monotonic() + 30
    while found < wanted and time.monotonic() < until:
        time.sleep(0.05)
        facts = client_of(config.load({"home": home})).call(Status(), 30).message.facts
        found = sum(base["bytes"] for base in facts["bases"].values())
    assert found == wanted
    assert len(list(iterator)) == 85


@pytest.fixture
def announced(monkeypatch):
    """What each following connection was told: (announced, consumed) after every call. Stretches are short."""
    told = []

    class Watched(Following):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.indices, self.most = [], 0
            told.append(self)

        def upcoming(self, indices):
            self.indices += indices.tolist()
            super().upcoming(indices)

        def consumed(self, count):
            assert self._consumed <= count <= len(self.indices)
            super().consumed(count)

    monkeypatch.setattr("swingby.data.dataset.Following", Watched)
    monkeypatch.setattr("swingby.data.mixture_ahead.TOLD_SAMPLES_MAX", 24)
    monkeypatch.setattr("swingby.data.mixture_ahead.TOLD_TOGETHER_SAMPLES", 8)
    monkeypatch.setattr("swingby.data.mixture_ahead.ADVANCE_SECONDS", 0.0)
    return told


@pytest.mark.parametrize("world_size", [1, 3])
def test_each_dataset_is_told_what_comes_of_it_in_order_and_not_too_much(opened, announced, world_size):
    mixture = swingby.Mixture(opened, weights=[3, 2, 0], samples=70)
    loader = swingby.Loader(mixture, batch_size=4, shuffle=True, rank=world_size - 1, world_size=world_size)
    read = []
    for _ in range(2):
        for batch in loader:
            read += batch.indices.tolist()
            assert sum(len(one.indices) - one._consumed for one in announced) <= 24 + 4
    assert [one.indices for one in announced] == [
        [index for index in read if index < 60],
        [index - 60 for index in read if index >= 60],
    ]
    assert [one._consumed for one in announced] == [len(one.indices) for one in announced]


def test_an_epoch_that_is_left_is_told_anew(opened, announced):
    mixture = swingby.Mixture(opened, weights=[3, 2, 0], samples=70)
    loader = swingby.Loader(mixture, batch_size=4, shuffle=True)
    given(loader, 5)
    loader.set_epoch(0)
    read = flat(given(loader))
    assert len(announced) == 4
    assert announced[2].indices == [index for index in read if index < 60]
    assert announced[0]._job._exchange is None


def test_a_reader_that_overtakes_what_is_told_is_told_of_what_is_left(opened, announced, monkeypatch):
    mixture = swingby.Mixture(opened, weights=[3, 2, 0], samples=70)
    loader = swingby.Loader(mixture, batch_size=4, shuffle=True)
    iterator = iter(loader)
    monkeypatch.setattr("swingby.data.mixture_ahead.ADVANCE_SECONDS", 3600.0)
    read = flat(batch.indices.tolist() for batch in itertools.islice(iterator, 10))
    monkeypatch.setattr("swingby.data.mixture_ahead.ADVANCE_SECONDS", 0.0)
    left = flat(batch.indices.tolist() for batch in iterator)
    told = [index for index in left[4:] if index < 60]
    assert announced[0].indices[-len(told) :] == told
    assert len(announced[0].indices) < sum(index < 60 for index in read + left)


def test_nothing_is_told_where_nothing_is_to_be_read_ahead(opened, announced):
    mixture = swingby.Mixture(opened)
    assert len(flat(given(swingby.Loader(mixture, batch_size=4, prefetch_bytes_max=0)))) == 86
    assert announced == []


def test_a_base_that_is_down_ends_the_epoch_with_its_name(opened, tmp_path):
    base = FaultyBase(MemoryBase({b"set/%03d" % number: b"m%03d" % number * 9 for number in range(40)}), Faults())
    settings = {"fetch.retry_seconds_max": 0.2, "client.deadline_seconds": 10.0}
    with (
        inline(str(tmp_path / "second-home"), base=base, settings=settings) as run,
        swingby.open("memory://any/set", settings=run.settings) as remote,
    ):
        mixture = swingby.Mixture({"near": opened["red"], "far": remote})
        options = {"batch_size": 5, "shuffle": True, "on_bad": "substitute", "prefetch_bytes_max": 0}
        iterator = iter(swingby.Loader(mixture, **options))
        next(iterator)
        base.is_down = True
        with pytest.raises(BaseUnavailableError, match="dataset 'far'"):
            list(iterator)


def _delete_bucket(ceph, name):
    boto3 = pytest.importorskip("boto3", reason="deletes the bucket")
    s3 = ceph.settings()
    boto3.client(
        "s3",
        endpoint_url=s3["s3.endpoint"],
        aws_access_key_id=s3["s3.access_key_id"],
        aws_secret_access_key=s3["s3.secret_access_key"],
        region_name="default",
    ).delete_bucket(Bucket=name)


def test_files_and_a_bucket_behind_two_keepers_in_one_mixture(opened, tmp_path, ceph, bucket):
    settings = config.load(ceph.settings())
    base = S3Base(bucket, settings.s3, settings.fetch)
    for number in range(30):
        base.write(b"train/%03d" % number, b"s%03d" % number * 50)
    with (
        inline(str(tmp_path / "second-home"), settings=ceph.settings()) as run,
        swingby.open(f"s3://{bucket}/train", settings=run.settings) as remote,
    ):
        mixture = swingby.Mixture({"local": opened["red"], "remote": remote}, weights=[2, 1], samples=90)
        found = flat(swingby.Loader(mixture, batch_size=8, shuffle=True, decode=whole_text))
        assert Counter(text[0] for text in found) == {"r": 60, "s": 30}
        assert len(set(found)) == 90
        run.session.client.call(Evict(), 30)
        for number in range(30):
            base.delete(b"train/%03d" % number)
        _delete_bucket(ceph, bucket)
        loader = swingby.Loader(mixture, batch_size=8, on_bad="substitute", prefetch_bytes_max=0)
        with pytest.raises(BaseNotFoundError, match="dataset 'remote'"):
            list(loader)
    base.close()
