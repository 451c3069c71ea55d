"""What the figures say, in sentences. Pure; losses are said as plainly as gains."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from swingby.doors.cli.demo.results import job, of_way, typical
from swingby.doors.cli.quantities import duration, factor, number, objects, size

if TYPE_CHECKING:
    from swingby.doors.cli.demo.results import Epoch, Listing, Results, Speedups

CACHED_SECONDS_MAX = 60e-6  # an object: storage does not answer so quickly, the operating system's file cache does
SLOWER, WRONG = "Slower:", "Wrong bytes:"
NEAR = "The burst level stayed empty: these files lie on a disk as near as its own, so a copy there would gain nothing."


def verdicts(results: Results) -> list[str]:
    """The sentences, the most important first."""
    epochs, listing, ratios = results.epochs, results.listing, results.speedups
    plain = typical(epochs, "file by file")
    found = [_of_warm(epochs, plain, ratios), _of_cold(epochs, plain, ratios)]
    found += [_of_job(epochs, listing, ratios.job) if ratios.job is not None else _of_cut(results)]
    found += [_of_burst(epochs, plain, ratios.burst)] if ratios.burst is not None else []
    found += [NEAR] if results.is_near else []
    found += [_of_room(results)] if typical(epochs, "warm").base_requests else []
    return [*found, _of_listing(listing), _of_base(epochs), _of_bytes(epochs)]


def _of_warm(epochs: list[Epoch], plain: Epoch, ratios: Speedups) -> str:
    warm = typical(epochs, "warm")
    against = f"{duration(warm.seconds)} against {duration(plain.seconds)}"
    if ratios.warm < 1:
        return f"{SLOWER} a warm epoch takes {factor(1 / ratios.warm)} as long as file by file, {against}."
    return f"Warm, an epoch is loaded {factor(ratios.warm)} as fast as file by file: {against}."


def _of_cold(epochs: list[Epoch], plain: Epoch, ratios: Speedups) -> str:
    cold = of_way(epochs, "cold")[0]
    against = f"{duration(cold.seconds)} against {duration(plain.seconds)}"
    if ratios.cold >= 1:
        return f"Cold, the first epoch through Swingby is loaded {factor(ratios.cold)} as fast: {against}."
    text = f"{SLOWER} the cold epoch takes {factor(1 / ratios.cold)} as long as file by file, {against}."
    each = (plain.split.latency + plain.split.base) / plain.objects
    if each < CACHED_SECONDS_MAX:
        text += f" File by file they come from the page cache in {duration(each)} each; the first time Swingby copies them as well."
    return text + _pays_off(plain, cold, typical(epochs, "warm"))


def _pays_off(plain: Epoch, cold: Epoch, warm: Epoch) -> str:
    gain = plain.seconds - warm.seconds
    if gain <= 0:
        return ""
    return f" It has paid off after {number(1 + math.ceil((cold.seconds - plain.seconds) / gain))} epochs."


def _of_job(epochs: list[Epoch], listing: Listing, ratio: float) -> str:
    by_file, ours = of_way(epochs, "file by file"), job(epochs)
    plain = listing.by_file + sum(one.seconds for one in by_file)
    seconds = listing.by_swingby + sum(one.seconds for one in ours)
    text = f"Listing and {number(len(ours))} epochs, the cold one included, took {duration(seconds)} against {duration(plain)}"
    return (
        f"{SLOWER} {text[0].lower()}{text[1:]} file by file."
        if ratio < 1
        else f"{text} file by file: {factor(ratio)} as fast."
    )


def _of_cut(results: Results) -> str:
    done, wanted = len(of_way(results.epochs, "file by file")), results.epochs_wanted
    return f"File by file only {number(done)} of {number(wanted)} epochs were run, because one takes so long."


def _of_room(results: Results) -> str:
    """Why warm epochs asked the base again."""
    budgets = {level.name: level.budget_bytes for level in results.levels}
    if not budgets:
        return "No level could keep anything: they are off, or cannot be written. `swingby doctor` says which."
    budget = " and ".join(f"{name} may hold {size(value)}" for name, value in budgets.items())
    available, headroom = (int(results.machine[name]) for name in ("available_bytes", "headroom_bytes"))
    return (
        f"The levels could not keep all {size(results.bytes)}: {budget}; of memory {size(available)} were free, "
        f"{size(headroom)} of which stay so. `swingby doctor` shows what to change."
    )


def _of_listing(listing: Listing) -> str:
    text = f"listing {objects(listing.objects)}, once for both sides, took {duration(listing.by_swingby)}"
    saving = listing.by_swingby - listing.by_file
    if saving <= 0:
        return f"{text[0].upper()}{text[1:]}."
    return f"{SLOWER} {text}; {duration(saving)} of that, for saving the listing, a plain program does not need."


def _of_burst(epochs: list[Epoch], plain: Epoch, ratio: float) -> str:
    burst = typical(epochs, "burst")
    text = f"After the memory level was emptied, as by a restart, an epoch took {duration(burst.seconds)}"
    again = " and asked the base for nothing"
    if burst.base_requests:
        again = f" and {number(burst.base_requests)} requests to the base"
    if ratio < 1:
        return f"{SLOWER} {text[0].lower()}{text[1:]} against {duration(plain.seconds)} file by file{again}."
    return f"{text}, from the burst level{again}: {factor(ratio)} as fast as file by file."


def _of_base(epochs: list[Epoch]) -> str:
    plain, cold, warm = (typical(epochs, way) for way in ("file by file", "cold", "warm"))
    after = "none" if not warm.base_requests else f"{number(warm.base_requests)} for {size(warm.base_bytes)}"
    return (
        f"Requests to the base in an epoch: {number(plain.base_requests)} file by file; through Swingby "
        f"{number(cold.base_requests)} the first time, then {after}."
    )


def _of_bytes(epochs: list[Epoch]) -> str:
    count, total = sum(one.objects for one in epochs), sum(one.bytes for one in epochs)
    wrong = sum(one.wrong_objects for one in epochs)
    if wrong:
        return f"{WRONG} {number(wrong)} of {objects(count)} loaded differ from what was read file by file."
    return f"Every byte was hashed and compared: {objects(count)} loaded, {size(total)}, none wrong."
