"""How much is to be done, for `/metrics`."""

from baatcheet.jobs.depth import measure
from baatcheet.platform.telemetry import Metrics
from tests.jobs.conftest import Bench, nothing


async def test_unfinished_jobs_are_counted_by_queue_and_status(bench: Bench) -> None:
    kind = bench.kind(nothing)
    for delay in (0, 0, 60):
        await bench.enqueue(kind, delay=delay)
    counts, oldest = await measure(bench.db)
    assert counts[bench.name, "queued"] == 2
    assert counts[bench.name, "waiting"] == 1
    assert 0 <= oldest[bench.name] < 60


def test_a_queue_that_was_worked_off_counts_nothing() -> None:
    metrics = Metrics()
    metrics.jobs({("ocr", "queued"): 3}, {"ocr": 1.5})
    assert 'baatcheet_jobs_unfinished{queue="ocr",status="queued"} 3.0' in metrics.render().decode()
    metrics.jobs({}, {})
    text = metrics.render().decode()
    assert 'baatcheet_jobs_unfinished{queue="ocr",status="queued"} 0.0' in text
    assert 'baatcheet_jobs_oldest_seconds{queue="ocr"} 0.0' in text
