"""A loader's state: where in which epoch of which order it stands. Equal on all ranks."""

from __future__ import annotations

from typing import Any, NamedTuple

from swingby.errors import StateError

FORMAT = 1
EPOCH_MAX = 1 << 40


class Position(NamedTuple):
    """What `state_dict` holds.

    Attributes:
        dataset: digest of the dataset.
        order, seed: as the loader was made.
        epoch: that is being read.
        consumed: samples of it that all ranks together have been given.
    """

    dataset: str
    order: str
    seed: int
    epoch: int
    consumed: int


def to_state(position: Position) -> dict[str, Any]:
    """Plain values, for any checkpoint."""
    return {"format": FORMAT, **position._asdict()}


def from_state(state: dict[str, Any], own: Position, samples: int) -> tuple[int, int]:
    """Epoch and samples consumed of a state, for the loader at `own`, whose epochs have so many samples.

    Raises:
        StateError: it belongs to another dataset, order, seed or format.
    """
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        found = state.get("format") if isinstance(state, dict) else type(state).__name__
        raise StateError(f"this is no loader state of format {FORMAT}: {found!r}")
    try:
        theirs = Position(**{name: state[name] for name in Position._fields})
    except KeyError as error:
        raise StateError(f"the loader state has no {error}") from None
    if theirs.dataset != own.dataset:
        raise StateError(
            f"the state is of dataset {str(theirs.dataset)[:12]}, this one is {own.dataset[:12]}",
            remedy="Open the snapshot it was made with: swingby.open(url, manifest=…) and the same filters; "
            "a mixture also needs the same names, weights and samples",
        )
    if (theirs.order, theirs.seed) != (own.order, own.seed):
        raise StateError(
            f"the state is of order {theirs.order!r} and seed {theirs.seed}, "
            f"this loader has order {own.order!r} and seed {own.seed}",
            remedy="Make the loader with the order and seed of the state",
        )
    if not all(isinstance(number, int) and number >= 0 for number in (theirs.epoch, theirs.consumed)):
        raise StateError(f"epoch {theirs.epoch!r} and consumed {theirs.consumed!r} are no counts")
    if theirs.epoch > EPOCH_MAX or theirs.consumed > samples:
        raise StateError(
            f"there is no sample {theirs.consumed} of epoch {theirs.epoch}: an epoch has {samples}, "
            f"and the last one is number {EPOCH_MAX}"
        )
    return theirs.epoch, theirs.consumed
