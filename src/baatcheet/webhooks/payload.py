"""What the jobs of webhooks carry, and in which lanes they go."""

from uuid import UUID

import msgspec

LANES = 16  # of one user


def lane_of(owner: UUID, place: int) -> UUID:
    """The lane of `owner`'s webhook in that place, from 0, among all of theirs.

    Each has one of its own as long as they have no more than `LANES`; beyond that they share, so that nobody has every
    place of a worker however many of their receivers hang.
    """
    return UUID(int=owner.int ^ (1 + place % LANES))


class Delivery(msgspec.Struct, frozen=True):
    """One delivery to make an attempt at."""

    delivery: UUID


class Tidying(msgspec.Struct, frozen=True):
    """Nothing: what is to be cleared away is found."""
