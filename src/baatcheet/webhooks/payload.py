"""What the jobs of webhooks carry."""

from uuid import UUID

import msgspec


class Delivery(msgspec.Struct, frozen=True):
    """One delivery to make an attempt at."""

    delivery: UUID


class Tidying(msgspec.Struct, frozen=True):
    """Nothing: what is to be cleared away is found."""
