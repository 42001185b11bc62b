"""The parts of attachments put together for a worker. It loads what decodes pictures and documents; an API does not."""

from functools import partial
from pathlib import Path

import aiohttp

from baatcheet.attachments.jobs import AttachmentParts
from baatcheet.attachments.ocr.availability import find_tessdata
from baatcheet.attachments.ocr.engine import Engine
from baatcheet.attachments.ocr.local import RapidOcrEngine, TesseractEngine
from baatcheet.attachments.ocr.ocr_space import PROVIDER, OcrSpaceEngine
from baatcheet.attachments.ocr.vision import VisionEngine
from baatcheet.attachments.reading import AttachmentReader
from baatcheet.jobs.isolation import Sandbox
from baatcheet.platform.blobs import Blobs
from baatcheet.platform.database import Database
from baatcheet.platform.settings import AttachmentSettings
from baatcheet.providers.catalogue import Catalogue
from baatcheet.providers.routing.model import Models


def build_parts(
    settings: AttachmentSettings,
    *,
    db: Database,
    blobs: Blobs,
    sandbox: Sandbox,
    session: aiohttp.ClientSession,
    catalogue: Catalogue,
    data_dir: Path,
    models: Models | None = None,
) -> AttachmentParts:
    """What `extract` and `tidy` are bound to. `models`: who finds the model that sees; the catalogue unless given."""
    engines = build_engines(
        settings, sandbox=sandbox, session=session, catalogue=catalogue, data_dir=data_dir, models=models
    )
    return AttachmentParts(db, blobs, AttachmentReader(db, blobs, sandbox, engines, settings))


def build_engines(
    settings: AttachmentSettings,
    *,
    sandbox: Sandbox,
    session: aiohttp.ClientSession,
    catalogue: Catalogue,
    data_dir: Path,
    models: Models | None = None,
) -> list[Engine]:
    """The engines that `settings` name, in their order."""
    every: dict[str, Engine] = {
        one.name: one
        for one in (
            TesseractEngine(sandbox, partial(find_tessdata, settings.tessdata, data_dir)),
            RapidOcrEngine(sandbox),
            OcrSpaceEngine(
                session,
                sandbox,
                url=settings.ocr_space_url,
                pool=catalogue.pools.of(PROVIDER),
                max_bytes=settings.ocr_space_max_bytes,
            ),
            VisionEngine(models or catalogue, sandbox, settings.vision_model),
        )
    }
    return [every[name] for name in dict.fromkeys(settings.engines)]
