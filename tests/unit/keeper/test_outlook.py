"""When plans need which segment: against a walk through the order."""

from __future__ import annotations

import numpy as np
import pytest

from swingby.core.epoch import Draw, make_order, use_windows
from swingby.core.manifest.build import build
from swingby.core.object import Page
from swingby.core.segment import Origin
from swingby.keeper.manifests import ManifestStore
from swingby.keeper.outlook import ALWAYS, Outlook, cast_of, schedule
from swingby.keeper.plans import EpochPlan, GivenPlan
from swingby.keeper.protocol import Follow, Plan, Selection
from swingby.keeper.sources import Source

MIB = 1 << 20


def source_of(tmp_path, sizes):
    keys = [b"%06d" % number for number in range(len(sizes))]
    page = Page([b"p/" + key for key in keys], np.array(sizes, np.uint64), np.zeros((len(keys), 16), np.uint8))
    store = ManifestStore(str(tmp_path), 8)
    with store.writing() as sink:
        digest = store.save(build(Origin("base", ""), b"p/", [page], sink), 1.5).digest
    return Source(store.load(digest), None)


def sizes_with(large_every):
    rng = np.random.default_rng(5)
    sizes = rng.integers(1, 2 * MIB, 700)
    if large_every:
        sizes[::large_every] = 9 * MIB
    return sizes.tolist()


def epoch_plan(source, selection, order, **fields):
    share = fields.pop("share", (8, 0, 1, False, 0))
    return EpochPlan(source, selection, Plan(source.manifest.digest, Selection(), order, 3, 1, share, 1 << 40))


def identity_of(manifest, index):
    pack = int(manifest.rows(np.array([index]))[0, 0])
    return manifest.large(index).id if manifest.is_large(pack) else manifest.pack(pack).id


@pytest.mark.parametrize("kind", ["key", "global", "segments"])
def test_the_windows_of_an_order_are_where_its_objects_come(tmp_path, kind):
    manifest = source_of(tmp_path, sizes_with(9)).manifest
    order = make_order(kind, manifest, None, Draw(1, 2, "d"))
    first, last = use_windows(order, len(manifest))
    positions = np.arange(len(manifest))
    sequence = order.take(positions) if order else positions
    assert (first[sequence] <= positions).all()
    assert (positions <= last[sequence]).all()
    if kind != "segments":
        assert (first == last).all()


@pytest.mark.parametrize("kind", ["key", "global", "segments"])
@pytest.mark.parametrize("large_every", [0, 7, 1])
@pytest.mark.parametrize("is_part", [False, True])
def test_a_schedule_says_between_which_positions_a_segment_is_read(tmp_path, kind, large_every, is_part):
    source = source_of(tmp_path, sizes_with(large_every))
    manifest = source.manifest
    selection = np.arange(0, 700, 3) if is_part else None
    plan = epoch_plan(source, selection, kind)
    cast = cast_of(manifest, selection)
    chosen = np.arange(700) if selection is None else selection
    for place, index in enumerate(chosen.tolist()):
        assert cast.of_objects[place] == cast.places[identity_of(manifest, index)]
    found = schedule(cast, plan.order, plan.next_order())
    if kind == "global" and large_every == 0:
        assert found is None
        return
    positions = np.arange(len(chosen))
    sequence = plan.order.take(positions) if plan.order else positions
    uses = {}
    for position, place in enumerate(sequence.tolist()):
        uses.setdefault(int(cast.of_objects[place]), []).append(position)
    for segment, read in uses.items():
        assert found.first[segment] <= min(read)
        assert found.last[segment] >= max(read)
        if kind == "key" or not cast.is_pack[segment]:
            assert (kind == "segments") or (found.first[segment], found.last[segment]) == (min(read), max(read))
    following = plan.next_order()
    again = following.take(positions) if following else positions
    for position, place in enumerate(again.tolist()):
        assert found.again[cast.of_objects[place]] <= position
    if kind == "global":
        assert (found.last[cast.is_pack] == ALWAYS).all()


def outlook_over(plans):
    outlook = Outlook(lambda work: work())
    for owner, plan in plans.items():
        outlook.set(owner, plan)
    assert outlook.forecast() is outlook
    return outlook


def test_what_was_read_is_needed_in_the_next_epoch_and_the_rest_sooner(tmp_path):
    source = source_of(tmp_path, [9 * MIB] * 40)
    plan = epoch_plan(source, None, "key", share=(1, 0, 1, False, 0))
    outlook = outlook_over({1: plan})
    plan.advance(10)
    identities = [source.manifest.large(index).id for index in range(40)]
    seconds, datasets = outlook.needs([*identities, b"unknown"])
    assert np.isinf(seconds[-1])
    assert datasets.tolist() == [0] * 40 + [-1]
    a_position = plan.seconds_a_position
    assert a_position(1e9) > 0
    order = np.argsort(seconds[:40]).tolist()
    assert order == [*range(10, 40), *range(10)]


def test_ranks_take_the_position_of_all(tmp_path):
    source = source_of(tmp_path, [9 * MIB] * 40)
    plan = epoch_plan(source, None, "key", share=(2, 1, 4, False, 3))
    assert plan.position == 3
    plan.advance(2)
    assert plan.position == 3 + 2 * 8
    plan.advance(1 << 60)
    assert plan.position == 40


def test_the_sooner_of_two_plans_counts_and_a_plan_that_ends_counts_no_more(tmp_path):
    source = source_of(tmp_path, [9 * MIB] * 40)
    early, late = [epoch_plan(source, None, "key", share=(1, 0, 1, False, 0)) for _ in range(2)]
    late.advance(35)
    outlook = outlook_over({1: early, 2: late})
    last = [source.manifest.large(39).id]
    both = outlook.needs(last)[0][0]
    outlook.drop(2)
    assert outlook.needs(last)[0][0] > both
    outlook.drop(1)
    assert outlook.forecast() is None


def test_given_plans_need_everything_all_the_time(tmp_path):
    source = source_of(tmp_path, sizes_with(5))
    outlook = outlook_over({1: GivenPlan(source, Follow(source.manifest.digest, 1 << 30))})
    seconds, datasets = outlook.needs([identity_of(source.manifest, index) for index in range(700)])
    assert not seconds.any()
    assert not datasets.any()


def test_a_plan_in_place_of_another_is_looked_at_anew(tmp_path):
    source = source_of(tmp_path, [9 * MIB] * 40)
    outlook = outlook_over({1: epoch_plan(source, None, "key", share=(1, 0, 1, False, 30))})
    first = [source.manifest.large(0).id, source.manifest.large(35).id]
    seconds = outlook.needs(first)[0]
    assert seconds[0] > seconds[1]
    outlook.set(1, epoch_plan(source, None, "key", share=(1, 0, 1, False, 0)))
    outlook.prepare()
    seconds = outlook.needs(first)[0]
    assert seconds[0] < seconds[1]
