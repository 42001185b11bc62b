"""What was told of one job."""

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from baatcheet.platform.database import Database

MOST = 100  # events, the newest

# The owner's index is walked back to the job's beginning, and no further.
_OF_JOB = """
SELECT seq, data ->> 'status' AS status, (data ->> 'progress')::int AS progress, data ->> 'phrase' AS phrase,
       data ->> 'error' AS error, created_at AS at
FROM events
WHERE user_id = $1 AND type = 'job.updated' AND data ->> 'job_id' = $2 AND created_at BETWEEN $3 AND $4
ORDER BY seq DESC LIMIT $5
"""


class JobEvent(NamedTuple):
    """A change of a job that its owner was told of."""

    seq: int
    status: str
    progress: int
    phrase: str | None
    error: str | None
    at: datetime


async def of_job(db: Database, owner: UUID, job_id: UUID, since: datetime, until: datetime) -> list[JobEvent]:
    """Those of `owner`'s job that are still kept, newest first. Raises DatabaseUnavailable."""
    async with db.hot() as connection:
        rows = await connection.fetch(_OF_JOB, owner, str(job_id), since, until, MOST)
    return [JobEvent(*row) for row in rows]
