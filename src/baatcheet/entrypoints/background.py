"""What a worker runs: the jobs of every feature, the schedules, and the relay of events."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta

import msgspec

from baatcheet.analytics.jobs import EVERY_MINUTE as ANALYTICS
from baatcheet.analytics.jobs import roll_up
from baatcheet.analytics.rollup import RollUp
from baatcheet.attachments.building import build_parts
from baatcheet.attachments.jobs import Nothing as TidyAttachments
from baatcheet.attachments.jobs import extract
from baatcheet.attachments.jobs import tidy as tidy_attachments
from baatcheet.attachments.keys import FILES as ATTACHMENTS
from baatcheet.attachments.keys import VIEWS
from baatcheet.audio.jobs import AudioParts, transcribe
from baatcheet.audio.jobs import Nothing as TidyAudio
from baatcheet.audio.jobs import tidy as tidy_audio
from baatcheet.audio.keys import PREFIX as RECORDINGS
from baatcheet.budgets.admission import Budgets
from baatcheet.context.history import tokens_of
from baatcheet.context.jobs import compact
from baatcheet.entrypoints.contexts import build_compactor
from baatcheet.entrypoints.features import Shared, share
from baatcheet.entrypoints.keeping import build_keeper
from baatcheet.entrypoints.keyring import open_ring
from baatcheet.entrypoints.routing import open_routing
from baatcheet.events.relay import Relay, Subscriber
from baatcheet.events.retention import forget_old as forget_old_events
from baatcheet.exports.importing.jobs import ImportParts, import_conversations
from baatcheet.exports.jobs import ExportParts, expire_exports, render_export
from baatcheet.exports.jobs import Nothing as ExpireExports
from baatcheet.exports.keys import EXPORTS, IMPORTS
from baatcheet.jobs.declaration import BoundKind, Job, job
from baatcheet.jobs.maintenance import forget_old as forget_old_jobs
from baatcheet.jobs.schedules import Schedule
from baatcheet.keys.ledger import forget_old as forget_old_key_usage
from baatcheet.keys.rotation.jobs import look_after, rotate_all, rotate_keys
from baatcheet.keys.rotation.jobs import schedules as rotation_schedules
from baatcheet.notifications.jobs import EmailParts, send_email
from baatcheet.notifications.service import forget_old as forget_old_notifications
from baatcheet.notifications.subscriber import Notifier
from baatcheet.platform.cache import Cache
from baatcheet.platform.database import Database
from baatcheet.platform.http import client_session
from baatcheet.platform.mail import Mailer
from baatcheet.platform.outbound import OutboundPolicy, guarded_session
from baatcheet.platform.settings import Settings
from baatcheet.platform.telemetry import Metrics, Telemetry
from baatcheet.providers.catalogue import build_catalogue
from baatcheet.providers.observed import Observed
from baatcheet.providers.routing.latency import Latencies
from baatcheet.retention.erasing import RetentionParts, erase_user
from baatcheet.retention.sweeping import Nothing as Sweeping
from baatcheet.retention.sweeping import sweep
from baatcheet.search.indexing import Indexer
from baatcheet.webhooks.delivering import DeliveryParts
from baatcheet.webhooks.delivering import tidy as tidy_webhooks
from baatcheet.webhooks.payload import Tidying
from baatcheet.webhooks.service import Webhooks


@dataclass(frozen=True)
class Background:
    """What there is to do for a worker."""

    kinds: Sequence[BoundKind]
    schedules: Sequence[Schedule]
    relay: Relay
    indexer: Indexer


KEY_USAGE_KEPT = timedelta(days=400)
# Below which each user's files are, in a folder called by their id.
FOLDERS_OF_USERS = (ATTACHMENTS, VIEWS, RECORDINGS, EXPORTS, IMPORTS)


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
        "key_usage": await forget_old_key_usage(db, KEY_USAGE_KEPT),
        "analytics": await RollUp(db).compact(),
    }


async def open_background(
    settings: Settings, db: Database, stack: AsyncExitStack, metrics: Metrics
) -> Background:
    """Make the parts; `stack` closes them in reverse. Raises SettingsError."""
    session = await stack.enter_async_context(client_session())
    telemetry = Telemetry(metrics)
    ring = await open_ring(settings, db, stack, metrics)
    latencies = Latencies()
    catalogue = build_catalogue(
        settings.providers, session, ring.pools, observe=lambda one: Observed(one, telemetry, latencies)
    )
    stack.push_async_callback(catalogue.close)
    budgets = Budgets(db)
    await budgets.start()
    stack.push_async_callback(budgets.close)
    routing = await open_routing(settings, db, catalogue, stack, latencies=latencies, prices=budgets.prices)
    keeper = build_keeper(settings, db, ring, catalogue, session)
    kinds = [
        compact.bind(build_compactor(settings.context, db=db, catalogue=routing.router)),
        clean_up.bind(Housekeeping(db, settings)),
        roll_up.bind(RollUp(db)),
        *await _bound_kinds(share(settings, db, catalogue, stack, routing.router), stack, budgets),
        *(kind.bind(keeper) for kind in (rotate_keys, rotate_all, look_after)),
    ]
    subscribers: dict[str, Subscriber] = {
        "webhooks": Webhooks(db, settings.webhooks).relayed,
        "notifications": Notifier(email=settings.notifications.smtp_url is not None).relayed,
    }
    nightly = Schedule("nightly clean-up", "17 3 * * *", clean_up, Nothing())
    return Background(
        kinds,
        [nightly, ANALYTICS, *_schedules(), *rotation_schedules()],
        Relay(db, subscribers, metrics=metrics),
        Indexer(db),
    )


async def _bound_kinds(shared: Shared, stack: AsyncExitStack, budgets: Budgets) -> list[BoundKind]:
    """Every kind of job that a worker runs for the features."""
    settings, db = shared.settings, shared.db
    attachments = build_parts(
        settings.attachments,
        db=db,
        blobs=shared.blobs,
        sandbox=shared.sandbox,
        session=await stack.enter_async_context(client_session()),
        catalogue=shared.catalogue,
        models=shared.router.for_task("ocr"),
        data_dir=settings.embedded.data_dir,
    )
    audio = AudioParts(db, shared.blobs, shared.transcriber, budgets)
    exports = ExportParts(db, shared.blobs, shared.presses, settings.exports)
    imports = ImportParts(db, shared.blobs, shared.presses, settings.exports, tokens_of, shared.limits)
    outside = await stack.enter_async_context(
        guarded_session(OutboundPolicy.allowing(settings.webhooks.allowed_networks))
    )
    webhooks = DeliveryParts.of(db, outside, settings.webhooks)
    cache = Cache(settings.cache)
    await cache.start()
    stack.push_async_callback(cache.close)
    retention = RetentionParts(
        db, shared.blobs, cache, settings.retention, FOLDERS_OF_USERS, RollUp(db).settle
    )
    mail = settings.notifications
    mailer = Mailer(mail) if mail.smtp_url is not None else None
    return [
        extract.bind(attachments),
        tidy_attachments.bind(attachments),
        transcribe.bind(audio),
        tidy_audio.bind(audio),
        render_export.bind(exports),
        expire_exports.bind(exports),
        import_conversations.bind(imports),
        Webhooks(db, settings.webhooks).deliver.bind(webhooks),
        tidy_webhooks.bind(webhooks),
        send_email.bind(EmailParts(db, mailer, mail.public_url)),
        erase_user.bind(retention),
        sweep.bind(retention),
    ]


def _schedules() -> list[Schedule]:
    """When the features clear away what is out of date: at night, in UTC, one after another."""
    return [
        Schedule("attachments clean-up", "27 3 * * *", tidy_attachments, TidyAttachments()),
        Schedule("recordings clean-up", "37 3 * * *", tidy_audio, TidyAudio()),
        Schedule("exports clean-up", "7 * * * *", expire_exports, ExpireExports()),
        Schedule("webhooks clean-up", "47 3 * * *", tidy_webhooks, Tidying()),
        Schedule("retention", "57 2 * * *", sweep, Sweeping()),
    ]
