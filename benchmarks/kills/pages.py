"""What a sandbox runs for a chore."""

import msgspec

from baatcheet.jobs.isolation_frames import Report


class Pages(msgspec.Struct, frozen=True):
    """How much there is to do, and what was done."""

    count: int


def read_pages(asked: Pages, report: Report) -> Pages:
    """Work for the processor, page by page."""
    for page in range(asked.count):
        sum(number * number for number in range(60_000))
        report(100 * (page + 1) / asked.count, f"Page {page + 1} of {asked.count}")
    return asked
