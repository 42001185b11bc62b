"""The parts of attachments put together for a worker. It loads what decodes pictures and documents; an API does not."""

from functools import partial
from pathlib import Path

import aiohttp

from baatcheet.attachments.jobs import AttachmentParts
from baatcheet.attachments.ocr.availability import find_tessdata
from baatcheet.attachments.ocr.engine import Engine
from baatcheet.attachments.ocr.local import RapidOcrEngine, TesseractEngine
from baatcheet.attachments.ocr.ocr_space import OcrSpaceEngine
from baatcheet.attachments.ocr.vision import VisionEngine
from baatcheet.attachments.reading import AttachmentReader
from baatcheet.jobs.isolation import Sandbox
from baatcheet.platform.blobs import Blobs
from baatcheet.platform.database import Database
from baatcheet.platform.settings import AttachmentSettings
from baatcheet.providers.catalogue import Catalogue


def build_parts(
    settings: AttachmentSettings,
    *,
    db: Database,
    blobs: Blobs,
    sandbox: Sandbox,
    session: aiohttp.ClientSession,
    catalogue: Catalogue,
    data_dir: Path,
) -> AttachmentParts:
    """What `extract` and `tidy` are bound to."""
    engines = build_engines(
        settings, sandbox=sandbox, session=session, catalogue=catalogue, data_dir=data_dir
    )
    return AttachmentParts(db, blobs, AttachmentReader(db, blobs, sandbox, engines, settings))


def build_engines(
    settings: AttachmentSettings,
    *,
    sandbox: Sandbox,
    session: aiohttp.ClientSession,
    catalogue: Catalogue,
    data_dir: Path,
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
                key=settings.ocr_space_key,
                max_bytes=settings.ocr_space_max_bytes,
            ),
            VisionEngine(catalogue, sandbox, settings.vision_model),
        )
    }
    return [every[name] for name in dict.fromkeys(settings.engines)]
