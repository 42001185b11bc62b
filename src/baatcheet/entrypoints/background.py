"""What a worker runs: the jobs of every feature, the schedules, and the relay of events."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta

import msgspec

from baatcheet.context.jobs import compact
from baatcheet.entrypoints.contexts import build_compactor
from baatcheet.entrypoints.features import bound_kinds, schedules, share
from baatcheet.events.relay import Relay, Subscriber
from baatcheet.events.retention import forget_old as forget_old_events
from baatcheet.jobs.declaration import BoundKind, Job, job
from baatcheet.jobs.maintenance import forget_old as forget_old_jobs
from baatcheet.jobs.schedules import Schedule
from baatcheet.notifications.service import forget_old as forget_old_notifications
from baatcheet.notifications.subscriber import Notifier
from baatcheet.platform.database import Database
from baatcheet.platform.http import client_session
from baatcheet.platform.settings import Settings
from baatcheet.platform.telemetry import Metrics, Telemetry
from baatcheet.providers.catalogue import build_catalogue
from baatcheet.providers.observed import Observed
from baatcheet.webhooks.service import Webhooks


@dataclass(frozen=True)
class Background:
    """What there is to do for a worker."""

    kinds: Sequence[BoundKind]
    schedules: Sequence[Schedule]
    relay: Relay


class Nothing(msgspec.Struct, frozen=True):
    """The payload of work that is always the same."""


@dataclass(frozen=True)
class Housekeeping:
    db: Database
    settings: Settings


@job("maintenance.clean_up", queue="maintenance", visible=False, seconds=3600)
async def clean_up(job: Job[Nothing], parts: Housekeeping) -> dict[str, int]:
    """What is out of date is gone. Run twice, it finds nothing more."""
    db, settings = parts.db, parts.settings
    return {
        "jobs": await forget_old_jobs(db, timedelta(days=settings.jobs.kept_days)),
        "events": await forget_old_events(db, timedelta(days=settings.events.kept_days)),
        "notifications": await forget_old_notifications(db, timedelta(days=settings.notifications.kept_days)),
    }


async def open_background(
    settings: Settings, db: Database, stack: AsyncExitStack, metrics: Metrics
) -> Background:
    """Make the parts; `stack` closes them in reverse. Raises SettingsError."""
    session = await stack.enter_async_context(client_session())
    telemetry = Telemetry(metrics)
    catalogue = build_catalogue(
        settings.providers, session, observe=lambda provider: Observed(provider, telemetry)
    )
    stack.push_async_callback(catalogue.close)
    kinds = [
        compact.bind(build_compactor(settings.context, db=db, catalogue=catalogue)),
        clean_up.bind(Housekeeping(db, settings)),
        *await bound_kinds(share(settings, db, catalogue, stack), stack),
    ]
    subscribers: dict[str, Subscriber] = {
        "webhooks": Webhooks(db, settings.webhooks).relayed,
        "notifications": Notifier(email=settings.notifications.smtp_url is not None).relayed,
    }
    nightly = Schedule("nightly clean-up", "17 3 * * *", clean_up, Nothing())
    return Background(kinds, [nightly, *schedules()], Relay(db, subscribers, metrics=metrics))
