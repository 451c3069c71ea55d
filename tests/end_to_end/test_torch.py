"""The PyTorch door: what samples and batches are, their order and position, samplers of others, bad samples."""

from __future__ import annotations

import itertools
import json
import operator
import os
import pickle
import random
import tarfile
import time

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="swingby.torch needs PyTorch")

from torch.utils.data import RandomSampler, Subset, WeightedRandomSampler, default_collate, random_split
from torch.utils.data.distributed import DistributedSampler

import swingby
import swingby.torch
from swingby import config, sessions
from swingby.errors import BadSampleError, ObjectChangedError, StateError
from swingby.keeper.protocol import Evict, Status, Stop

COUNT = 61
SIZE = 500
KEY = operator.attrgetter("key")


@pytest.fixture
def dataset(tmp_path, home):
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(COUNT):
        (folder / f"{number:03d}").write_bytes(bytes([number]) * SIZE)
    settings = config.load({"home": home})
    with swingby.open(str(folder), settings=settings) as found:
        yield found
    client = sessions.session(settings).client
    client.call(Stop(), 10)
    client.close()


def keys(loader, batches=None):
    return [list(map(int, batch)) for batch in itertools.islice(loader, batches)]


def given(loader, batches=None):
    return [batch.indices.tolist() for batch in itertools.islice(loader, batches)]


def flat(batches):
    return list(itertools.chain(*batches))


# -- samples and batches -----------------------------------------------------------------------------------------------


def test_a_sample_is_a_writable_tensor_of_its_own(dataset):
    objects = swingby.torch.Dataset(dataset)
    assert len(objects) == COUNT
    sample = objects[7]
    assert (sample.dtype, sample.shape) == (torch.uint8, (SIZE,))
    sample.fill_(99)  # what is cached does not change
    assert objects[7].tolist() == [7] * SIZE
    assert objects[-1][0] == COUNT - 1
    with pytest.raises(IndexError):
        objects[COUNT]
    with pytest.raises(IndexError):
        objects[-COUNT - 1]


def test_a_url_and_arguments_of_open_make_a_dataset(dataset, home):
    objects = swingby.torch.Dataset(dataset.url, KEY, include="00*", settings={"home": home})
    assert [objects[index] for index in range(len(objects))] == [f"00{number}" for number in range(10)]
    with pytest.raises(TypeError, match="include"):
        swingby.torch.Dataset(dataset, include="00*")


@pytest.mark.parametrize("size", [SIZE, 48_000, 100_001, 700_000])
@pytest.mark.parametrize("workers", [0, 2])
def test_objects_of_one_size_are_one_tensor(dataset, tmp_path, home, workers, size):
    rng = np.random.default_rng(size)
    expected = rng.integers(0, 256, (COUNT, size), np.uint8)
    for number in range(COUNT):
        (tmp_path / "files" / f"{number:03d}").write_bytes(expected[number].tobytes())
    with swingby.open(dataset.url, refresh="always", settings={"home": home}) as again:
        loader = swingby.torch.DataLoader(swingby.torch.Dataset(again), 16, num_workers=workers)
        until = time.monotonic() + 20
        while True:
            is_mapped = again.batch(range(COUNT)).found.records() is not None
            held = list(loader)
            assert [batch.shape for batch in held] == [(16, size)] * 3 + [(13, size)]
            assert np.array_equal(torch.cat(held).numpy(), expected)
            held[0].fill_(255)  # nothing of it is shared
            if is_mapped:
                break
            assert time.monotonic() < until


@pytest.mark.parametrize("workers", [0, 2])
def test_objects_of_different_sizes_are_refused_in_words_that_help_or_taken_as_a_list(dataset, workers, tmp_path, home):
    (tmp_path / "files" / "005").write_bytes(b"short")
    with swingby.open(dataset.url, refresh="always", settings={"home": home}) as again:
        objects = swingby.torch.Dataset(again)
        with pytest.raises(ValueError, match=r"5 to 500 bytes.*transform=.*collate_fn=list"):
            list(swingby.torch.DataLoader(objects, 16, num_workers=workers))
        batches = list(swingby.torch.DataLoader(objects, 16, num_workers=workers, collate_fn=list))
        assert [len(sample) for sample in flat(batches)] == [500] * 5 + [5] + [500] * 55


@pytest.mark.parametrize("context", ["fork", "forkserver", "spawn"])
@pytest.mark.parametrize("persistent", [False, True])
def test_workers_of_every_kind_give_the_loaders_order(dataset, context, persistent):
    objects = swingby.torch.Dataset(dataset, KEY)
    loader = swingby.torch.DataLoader(
        objects,
        batch_size=8,
        shuffle=True,
        seed=3,
        num_workers=2,
        multiprocessing_context=context,
        persistent_workers=persistent,
        timeout=60,
    )
    ours = swingby.Loader(dataset, batch_size=8, shuffle=True, seed=3)
    for _ in range(2):
        assert keys(loader) == given(ours)


def test_a_dataset_is_pickled_as_what_it_reads(dataset):
    again = pickle.loads(pickle.dumps(swingby.torch.Dataset(dataset, KEY)))
    assert [again[3], len(again), again.source.manifest] == ["003", COUNT, dataset.manifest]
    again.source.close()


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_the_stock_loader_takes_the_dataset(dataset, workers):
    loader = torch.utils.data.DataLoader(swingby.torch.Dataset(dataset), 16, num_workers=workers)
    assert torch.cat(list(loader))[:, 0].tolist() == list(range(COUNT))


@pytest.mark.parametrize("workers", [0, 2])
def test_two_iterations_at_once_are_two_epochs(dataset, workers):
    loader = swingby.torch.DataLoader(swingby.torch.Dataset(dataset, KEY), 8, True, seed=3, num_workers=workers)
    ours = swingby.Loader(dataset, batch_size=8, shuffle=True, seed=3)
    first, second = zip(*zip(loader, loader, strict=True), strict=True)
    assert [keys(first), keys(second)] == [given(ours), given(ours)]


def test_without_batches_samples_come_one_by_one(dataset):
    loader = swingby.torch.DataLoader(swingby.torch.Dataset(dataset, KEY), batch_size=None, shuffle=True, seed=2)
    assert list(map(int, loader)) == flat(given(swingby.Loader(dataset, batch_size=1, shuffle=True, seed=2)))
    state = loader.state_dict()
    assert state["consumed"] == COUNT


def test_what_pytorch_says_of_itself_stays_true(dataset):
    loader = swingby.torch.DataLoader(swingby.torch.Dataset(dataset), batch_size=8, shuffle=True, drop_last=True)
    assert (loader.batch_size, loader.drop_last, len(loader)) == (8, True, COUNT // 8)
    assert isinstance(loader.sampler, RandomSampler)
    assert len(list(loader)) == COUNT // 8


def test_an_error_of_a_transform_is_the_users_own_and_names_the_key(dataset):
    def fail(sample):
        if sample.key == "010":
            raise KeyError("label")
        return sample.key

    objects = swingby.torch.Dataset(dataset, fail)
    with pytest.raises(KeyError, match="label") as found:
        list(swingby.torch.DataLoader(objects, batch_size=8))
    assert found.value.__notes__ == ["while 010 was transformed"]
    with pytest.raises(KeyError, match="while 010 was transformed"):
        list(swingby.torch.DataLoader(objects, batch_size=8, num_workers=1))


# -- order and position ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resume_under_another_world_gives_what_is_left_once(dataset, workers):
    objects = swingby.torch.Dataset(dataset, KEY)
    rng = random.Random(workers)
    for _ in range(2 if workers else 30):
        seen, state = [], None
        while True:
            world, batch = rng.randint(1, 4), rng.randint(1, 9)
            ranks = [
                swingby.torch.DataLoader(
                    objects, batch, True, seed=5, rank=rank, world_size=world, num_workers=rng.choice([0, workers])
                )
                for rank in range(world)
            ]
            if state:
                for loader in ranks:
                    loader.load_state_dict(json.loads(json.dumps(state)))
            left = COUNT - len(seen)
            steps = rng.randint(1, 4)
            parts = [keys(loader, steps) for loader in ranks]  # workers have read more than that
            assert len({len(part) for part in parts}) == 1
            taken = flat(flat(parts))
            if left < world:  # ranks keep step: nobody is without a sample
                assert all(len(step) == 1 for step in flat(parts))
                taken = list(dict.fromkeys(taken))
            seen += taken
            states = [loader.state_dict() for loader in ranks]
            assert all(one == states[0] for one in states)
            state = states[0]
            assert state["consumed"] == len(seen)
            if len(seen) == COUNT:
                break
        assert sorted(seen) == list(range(COUNT))


@pytest.mark.parametrize("workers", [0, 1])
def test_ranks_keep_step_where_a_resume_finds_fewer_samples_than_ranks(dataset, workers):
    objects = swingby.torch.Dataset(dataset, KEY)
    first = swingby.torch.DataLoader(objects, COUNT - 2, True)
    whole = flat(given(swingby.Loader(dataset, batch_size=COUNT, shuffle=True)))
    next(iter(first))
    found = []
    for rank in range(4):
        loader = swingby.torch.DataLoader(objects, 5, True, rank=rank, world_size=4, num_workers=workers)
        loader.load_state_dict(first.state_dict())
        found.append(keys(loader))
        assert loader.state_dict()["consumed"] == COUNT
    assert found == [[[whole[-2]]], [[whole[-1]]], [[whole[-2]]], [[whole[-2]]]]


def test_states_are_those_of_the_loader(dataset):
    def ours():
        return swingby.Loader(dataset, batch_size=8, shuffle=True, seed=1)

    def theirs():
        return swingby.torch.DataLoader(swingby.torch.Dataset(dataset, KEY), 8, True, seed=1, num_workers=2)

    whole = given(ours())
    first, second = theirs(), ours()
    assert keys(first, 3) == whole[:3]
    given(second, 3)
    assert first.state_dict() == second.state_dict()
    resumed = theirs()
    resumed.load_state_dict(second.state_dict())
    assert len(resumed) == len(whole) - 3
    assert keys(resumed) == whole[3:]
    resumed.load_state_dict(second.state_dict())
    resumed.set_epoch(4)
    later = ours()
    later.set_epoch(4)
    assert keys(resumed) == given(later)


def test_a_state_of_something_else_is_refused(dataset):
    objects = swingby.torch.Dataset(dataset)
    state = swingby.torch.DataLoader(objects, 8, True, seed=1).state_dict()
    with pytest.raises(StateError, match="seed"):
        swingby.torch.DataLoader(objects, 8, True, seed=2).load_state_dict(state)
    foreign = swingby.torch.DataLoader(objects, 8, sampler=RandomSampler(objects))
    with pytest.raises(StateError, match="no sampler"):
        foreign.state_dict()


def test_arguments_that_do_not_go_together_are_refused(dataset):
    objects = swingby.torch.Dataset(dataset)
    sampler = RandomSampler(objects)
    for wrong in (
        {"sampler": sampler, "rank": 0, "world_size": 2},
        {"rank": 0},
        {"rank": 2, "world_size": 2},
        {"num_workers": 1, "in_order": False},
        {"batch_size": None, "on_bad": "substitute"},
        {"on_bad": "ignore"},
        {"order": "alphabetic"},
        {"prefetch_bytes_max": -1},
    ):
        with pytest.raises(ValueError, match="|".join(wrong)):
            swingby.torch.DataLoader(objects, **wrong)
    with pytest.raises(ValueError, match="Subset"):
        swingby.torch.DataLoader(Subset(objects, [1]), on_bad="substitute")
    plain = torch.utils.data.TensorDataset(torch.arange(10))
    for wrong in ({"rank": 0, "world_size": 2}, {"on_bad": "substitute"}):
        with pytest.raises(ValueError, match="|".join(wrong)):
            swingby.torch.DataLoader(plain, **wrong)
    with pytest.raises(TypeError, match="nonsense"):
        swingby.torch.DataLoader(objects, nonsense=1)


def test_a_mixture_is_loaded_in_its_order(dataset, home):
    few = swingby.open(dataset.url, include="00*", settings={"home": home})
    mixture = swingby.Mixture({"all": dataset, "few": few}, weights={"all": 2, "few": 1})
    ours = swingby.Loader(mixture, batch_size=8, shuffle=True, seed=1)
    expected = [[mixture.keys[number] for number in step] for step in given(ours)]
    for workers in (0, 2):
        objects = swingby.torch.Dataset(mixture, KEY)
        loader = swingby.torch.DataLoader(objects, 8, shuffle=True, seed=1, num_workers=workers)
        assert list(loader) == expected
        assert len(list(swingby.torch.DataLoader(objects, 8, sampler=RandomSampler(objects)))) == -(-len(mixture) // 8)
    assert swingby.torch.DataLoader(swingby.torch.Dataset(mixture), 8).dataset[0].tolist() == [0] * SIZE
    few.close()


def test_samples_in_a_container_are_samples(dataset, tmp_path, home):
    with tarfile.open(tmp_path / "all.tar", "w") as archive:
        for number in range(COUNT):
            archive.add(tmp_path / "files" / f"{number:03d}", f"{number:03d}")
    (tmp_path / "tars").mkdir()
    os.rename(tmp_path / "all.tar", tmp_path / "tars" / "all.tar")
    objects = swingby.torch.Dataset(tmp_path / "tars", layout="tar", settings={"home": home})
    for _ in range(3):
        batches = list(swingby.torch.DataLoader(objects, 8, num_workers=2))
        assert torch.cat(batches).tolist() == [[number] * SIZE for number in range(COUNT)]
    objects.source.close()


# -- samplers and datasets of others -----------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("transform", [None, KEY])
def test_samplers_of_others_say_what_is_read(dataset, workers, transform):
    objects = swingby.torch.Dataset(dataset, transform)

    def read(**options):
        batches = list(swingby.torch.DataLoader(objects, num_workers=workers, **options))
        if transform:
            return [list(map(int, batch)) for batch in batches]
        return [batch[:, 0].tolist() for batch in batches]

    ranks = [DistributedSampler(objects, 3, rank, shuffle=True, seed=4) for rank in range(3)]
    assert [flat(read(batch_size=8, sampler=one)) for one in ranks] == [list(one) for one in ranks]
    swingby.torch.DataLoader(objects, 8, sampler=ranks[0]).set_epoch(5)
    assert ranks[0].epoch == 5
    weights = [1.0 if number < 5 else 0.0 for number in range(COUNT)]
    drawn = flat(read(batch_size=8, sampler=WeightedRandomSampler(weights, 40)))
    assert len(drawn) == 40
    assert set(drawn) <= set(range(5))
    assert read(batch_sampler=[[3, 1], [60], [2, 2, -1]]) == [[3, 1], [60], [2, 2, COUNT - 1]]
    with pytest.raises(IndexError):
        read(batch_sampler=[[3, COUNT]])


def test_a_generator_seeds_the_order(dataset):
    def first(number, **options):
        generator = torch.Generator().manual_seed(number)
        loader = swingby.torch.DataLoader(
            swingby.torch.Dataset(dataset), 4, shuffle=True, generator=generator, **options
        )
        return next(iter(loader)).tolist()

    assert first(5) == first(5)
    assert first(5) != first(6)
    assert first(5, seed=3) == first(6, seed=3)


def test_the_same_seed_gives_the_same_order_and_random_numbers_as_pytorch(dataset):
    def run(make, objects):
        torch.manual_seed(7)
        loader = make(objects, 8, sampler=RandomSampler(objects))
        return [[batch.tolist() for batch in loader] for _ in range(2)], torch.rand(3).tolist()

    objects = swingby.torch.Dataset(dataset)
    assert run(swingby.torch.DataLoader, objects) == run(torch.utils.data.DataLoader, objects)
    transformed = swingby.torch.Dataset(dataset, lambda sample: int(sample.key))
    assert run(swingby.torch.DataLoader, transformed) == run(torch.utils.data.DataLoader, transformed)


@pytest.mark.parametrize("workers", [0, 2])
def test_parts_of_a_dataset_are_read(dataset, workers):
    for transform in (None, KEY):
        parts = random_split(swingby.torch.Dataset(dataset, transform), [40, 21])
        nested = Subset(parts[0], range(0, 40, 2))
        for part in (*parts, nested):
            loader = swingby.torch.DataLoader(part, 8, shuffle=True, num_workers=workers)
            found = flat(keys(loader)) if transform else torch.cat(list(loader))[:, 0].tolist()
            assert sorted(found) == sorted(
                int(part[number] if transform else part[number][0]) for number in range(len(part))
            )


@pytest.mark.parametrize("ahead", [0, 1 << 20])
def test_a_sampler_without_end_is_asked_as_far_as_is_allowed(dataset, ahead):
    asked = itertools.count()
    endless = (next(asked) % COUNT for _ in itertools.repeat(None))
    loader = swingby.torch.DataLoader(swingby.torch.Dataset(dataset), 8, sampler=endless, prefetch_bytes_max=ahead)
    assert [batch[0, 0].item() for batch in itertools.islice(loader, 3)] == [0, 8, 16]
    assert next(asked) <= 3 * 8 + ahead // SIZE + 8
    mixture = swingby.Mixture([dataset])
    loader = swingby.torch.DataLoader(
        swingby.torch.Dataset(mixture), 8, sampler=itertools.repeat(5), prefetch_bytes_max=ahead
    )
    assert next(iter(loader))[:, 0].tolist() == [5] * 8


def test_a_dataset_of_pytorchs_is_loaded_as_pytorch_does():
    plain = torch.utils.data.TensorDataset(torch.arange(10))
    assert [batch[0].tolist() for batch in swingby.torch.DataLoader(plain, 4)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_the_keeper_reads_ahead_of_a_sampler_of_others(dataset):
    client = dataset.client
    order = [int(number) for number in np.random.default_rng(1).permutation(COUNT)]
    for ahead, expected in ((1 << 20, COUNT), (0, 8), (16 * SIZE, 16)):
        client.call(Evict(), 30)
        before = base_bytes(client)
        loader = swingby.torch.DataLoader(swingby.torch.Dataset(dataset), 8, sampler=order, prefetch_bytes_max=ahead)
        batches = iter(loader)
        assert next(batches)[:, 0].tolist() == order[:8]
        await_base_bytes(client, before + expected * SIZE)
        time.sleep(0.1)
        assert base_bytes(client) == before + expected * SIZE
    for start in (8, 16):
        assert next(batches)[:, 0].tolist() == order[start : start + 8]
    await_base_bytes(client, before + 32 * SIZE)  # what was taken made room
    assert torch.cat(list(batches))[:, 0].tolist() == order[24:]


def await_base_bytes(client, expected):
    until = time.monotonic() + 10
    while base_bytes(client) < expected:
        assert time.monotonic() < until
        time.sleep(0.01)


def base_bytes(client):
    (found,) = client.call(Status(), 10).message.facts["bases"].values()
    return found["bytes"]


# -- bad samples -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("transform", [None, KEY])
def test_a_bad_object_is_replaced_as_the_loader_does(dataset, tmp_path, workers, transform):
    os.unlink(tmp_path / "files" / "013")
    objects = swingby.torch.Dataset(dataset, transform)
    with pytest.raises((ObjectChangedError, FileNotFoundError)):
        list(swingby.torch.DataLoader(objects, 8, True, num_workers=workers))
    loader = swingby.torch.DataLoader(objects, 8, True, num_workers=workers, on_bad="substitute")
    ours = swingby.Loader(dataset, batch_size=8, shuffle=True, on_bad="substitute")
    found = flat(keys(loader)) if transform else torch.cat(list(loader))[:, 0].tolist()
    assert found == flat(given(ours))
    assert [bad.key for bad in loader.bad] == ["013"]
    assert loader.bad == ours.bad


@pytest.mark.parametrize("workers", [0, 2])
def test_a_sample_that_cannot_be_transformed_is_replaced(dataset, workers):
    def odd_fails(sample):
        if int(sample.key) == 7:
            raise ValueError("seven")
        return int(sample.key)

    loader = swingby.torch.DataLoader(
        swingby.torch.Dataset(dataset, odd_fails),
        8,
        num_workers=workers,
        on_bad="substitute",
        collate_fn=default_collate,
    )
    found = torch.cat(list(loader)).tolist()
    assert len(found) == COUNT
    assert 7 not in found
    (bad,) = loader.bad
    assert (bad.key, bad.reason) == ("007", "decode raised ValueError('seven')")
    with pytest.raises(BadSampleError):
        list(swingby.torch.DataLoader(swingby.torch.Dataset(dataset, lambda _: None), 8, on_bad="substitute"))


# -- iterable ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", [1, 3])
@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("shuffle", [False, True])
def test_ranks_and_workers_share_an_iterable_dataset(dataset, world, workers, shuffle):
    found = []
    for rank in range(world):
        objects = swingby.torch.IterableDataset(dataset, KEY, shuffle=shuffle, rank=rank, world_size=world)
        found.append(flat(keys(swingby.torch.DataLoader(objects, 8, num_workers=workers))))
    assert sorted(flat(found)) == list(range(COUNT))
    assert max(map(len, found)) - min(map(len, found)) <= max(1, workers)


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_an_epoch_that_is_set_reaches_workers_that_persist(dataset, context):
    objects = swingby.torch.IterableDataset(dataset, KEY, shuffle=True, seed=1)
    loader = swingby.torch.DataLoader(
        objects, 8, num_workers=1, persistent_workers=True, multiprocessing_context=context, timeout=60
    )
    first, again = keys(loader), keys(loader)
    loader.set_epoch(3)
    later = keys(loader)
    assert first == again
    assert first != later
    assert sorted(flat(later)) == list(range(COUNT))


def test_an_iterable_dataset_refuses_what_makes_no_sense(dataset):
    for wrong in ({"rank": 1}, {"rank": 3, "world_size": 2}, {"order": "x", "shuffle": True}, {"seed": -1}):
        with pytest.raises(ValueError, match="|".join(wrong)):
            swingby.torch.IterableDataset(dataset, **wrong)
