"""RapidOCR, on this machine, where the extra `rapidocr` is installed. What is here runs in a sandbox."""

import importlib
from functools import cache
from typing import Any, Final

import msgspec

from baatcheet.attachments.contents.pages import page_picture
from baatcheet.attachments.ocr.engine import Box, Line, Page, PageText
from baatcheet.attachments.ocr.languages import language_of
from baatcheet.attachments.ocr.preparing import bounded
from baatcheet.jobs.isolation_frames import Report

NAME: Final = "rapidocr"
MOST_PIXELS: Final = 4_000_000  # it makes larger pictures smaller itself, and slowly
SAME_LINE: Final = 0.5  # of a line's height, that another's middle may lie higher or lower


class RapidPage(msgspec.Struct, frozen=True):
    page: Page


def read(asked: RapidPage, report: Report) -> PageText:
    """The text of a page. Raises Refused when its picture can't be opened."""
    picture = page_picture(asked.page)
    small = bounded(picture.view.image.convert("RGB"), MOST_PIXELS)
    across, down = picture.width / small.image.width, picture.height / small.image.height
    pixels = importlib.import_module("numpy").asarray(small.image)
    found = _engine()(pixels)
    lines = []
    boxes = found.boxes if found.boxes is not None else ()
    for corners, text, sure in zip(boxes, found.txts or (), found.scores or (), strict=True):
        xs, ys = [round(x * across) for x, _ in corners], [round(y * down) for _, y in corners]
        if text.strip():
            box = Box(min(xs), min(ys), max(xs), max(ys))
            lines.append(Line(text.strip(), box, round(float(sure), 4)))
    text = _joined(lines)
    letters = sum(len(line.text) for line in lines)
    confidence = sum(len(line.text) * (line.confidence or 0.0) for line in lines) / max(1, letters)
    return PageText(
        text=text,
        engine=NAME,
        width=picture.width,
        height=picture.height,
        confidence=round(confidence, 4) if lines else None,
        language=language_of(text),
        lines=tuple(lines),
    )


def _joined(lines: list[Line]) -> str:
    """As text: what stands beside each other is one line of it."""
    parts: list[str] = []
    before: Line | None = None
    for line in lines:
        if before is not None:
            height = before.box.bottom - before.box.top
            apart = abs(before.box.top + before.box.bottom - line.box.top - line.box.bottom) / 2
            parts.append(" " if apart < SAME_LINE * height and line.box.left >= before.box.left else "\n")
        parts.append(line.text)
        before = line
    return "".join(parts)


@cache
def _engine() -> Any:
    """The engine with its models, loaded once. They are in its package: nothing is fetched."""
    package = importlib.import_module("rapidocr")
    return package.RapidOCR(
        params={
            "Global.log_level": "critical",
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )
