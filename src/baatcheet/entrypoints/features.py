"""The features that have background work: what their endpoints ask. `background` has what a worker runs."""

from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI

from baatcheet.analytics.reports import Reports
from baatcheet.attachments.jobs import extract
from baatcheet.attachments.ocr.ocr_space import PROVIDER as OCR_SPACE
from baatcheet.attachments.service import PATH as ATTACHMENTS_PATH
from baatcheet.attachments.service import Attachments
from baatcheet.audio import endpoints as audio_endpoints
from baatcheet.audio.direct import DirectTranscriber
from baatcheet.audio.engines import build_engines
from baatcheet.audio.jobs import transcribe
from baatcheet.audio.service import Recordings
from baatcheet.audio.transcribing import Transcriber
from baatcheet.context.jobs import compact
from baatcheet.exports.importing import endpoints as import_endpoints
from baatcheet.exports.importing.jobs import import_conversations
from baatcheet.exports.importing.normal import Limits
from baatcheet.exports.importing.service import Imports
from baatcheet.exports.jobs import render_export
from baatcheet.exports.service import Exports
from baatcheet.jobs.declaration import JobKind
from baatcheet.jobs.isolation import Sandbox
from baatcheet.jobs.service import Fleet, Jobs
from baatcheet.notifications.jobs import send_email
from baatcheet.notifications.service import Notifications
from baatcheet.openai_api import audio as openai_audio
from baatcheet.platform.blobs import Blobs, build_blobs
from baatcheet.platform.database import Database
from baatcheet.platform.http import is_loopback
from baatcheet.platform.settings import Settings, SettingsError
from baatcheet.platform.signed_links import SignedLinks
from baatcheet.platform.uploads import body_limit
from baatcheet.providers.catalogue import Catalogue
from baatcheet.providers.routing.router import Router
from baatcheet.webhooks.deliveries import Deliveries
from baatcheet.webhooks.delivering import deliver
from baatcheet.webhooks.service import Webhooks

SANDBOXES = 2  # processes for what takes a processor: one for each of two cores

# What may be told of a job that is cancelled in an API process, which runs none.
KINDS: tuple[JobKind[Any, Any], ...] = (
    compact,
    extract,
    transcribe,
    render_export,
    import_conversations,
    deliver,
    send_email,
)


@dataclass(frozen=True)
class Shared:
    """What the features of one process share."""

    settings: Settings
    db: Database
    catalogue: Catalogue
    blobs: Blobs
    sandbox: Sandbox  # for reading what was uploaded
    presses: Sandbox  # for files that go out and come in: a long one must not keep others from being read
    router: Router

    @property
    def transcriber(self) -> Transcriber:
        engines = build_engines(self.settings.audio, self.catalogue, self.sandbox, self.router)
        return Transcriber(self.sandbox, engines, self.settings.audio)

    @property
    def limits(self) -> Limits:
        server = self.settings.server
        return Limits(content=server.max_message_bytes, parts=server.max_body_bytes)


def share(
    settings: Settings, db: Database, catalogue: Catalogue, stack: AsyncExitStack, router: Router
) -> Shared:
    """Make what is shared; `stack` closes it. Raises SettingsError."""
    _require_tls_of_ocr(settings.attachments.ocr_space_url)
    blobs = build_blobs(settings.storage, settings.embedded.data_dir)
    stack.push_async_callback(blobs.close)
    sandbox, presses = Sandbox(SANDBOXES), Sandbox(SANDBOXES)
    stack.push_async_callback(sandbox.close)
    stack.push_async_callback(presses.close)
    return Shared(settings, db, catalogue, blobs, sandbox, presses, router)


def _require_tls_of_ocr(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        raise SettingsError(
            "BAATCHEET_OCR_SPACE_URL: is without TLS and not on this machine: keys and pictures would be readable on "
            "the way. Example: BAATCHEET_OCR_SPACE_URL=https://apipro1.ocr.space/parse/image"
        )


def install_services(app: FastAPI, shared: Shared) -> None:
    """The services that the endpoints ask, on `app.state`."""
    state, settings, db = app.state, shared.settings, shared.db
    state.jobs = jobs = Jobs(db, [kind.bind(None) for kind in KINDS])
    state.reports = Reports(db)
    state.fleet = Fleet(db, lease=settings.jobs.lease_seconds)
    state.attachments = Attachments(
        db,
        shared.blobs,
        jobs,
        settings.attachments,
        settings.embedded.data_dir,
        ocr_space=shared.catalogue.pools.of(OCR_SPACE),
    )
    transcriber = shared.transcriber
    state.recordings = Recordings(db, shared.blobs, transcriber, jobs, settings.audio)
    state.direct_transcriber = DirectTranscriber(transcriber, settings.audio, processes=SANDBOXES)
    state.exports = Exports(db, shared.blobs, SignedLinks(db), jobs, settings.exports)
    state.imports = Imports(db, shared.blobs, settings.exports)
    state.webhooks = webhooks = Webhooks(db, settings.webhooks)
    state.deliveries = Deliveries(db, webhooks.deliver)
    state.notifications = Notifications(db, email=settings.notifications.smtp_url is not None)


def body_limits(settings: Settings) -> dict[str, int]:
    """Bytes that a request's body may have at the paths that take files."""
    audio = body_limit(settings.audio.max_bytes)
    attachments = settings.attachments
    return {
        ATTACHMENTS_PATH: body_limit(max(attachments.max_image_bytes, attachments.max_document_bytes)),
        audio_endpoints.PATH: audio,
        openai_audio.PATH: audio,
        import_endpoints.PATH: body_limit(settings.exports.max_import_bytes),
    }
