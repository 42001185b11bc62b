"""Which engines can be asked here, and why the others can't."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from baatcheet.attachments.ocr.languages import LANGUAGES
from baatcheet.platform.settings import AttachmentSettings

# Debian and Ubuntu; Fedora, Arch and Alpine; what was compiled by hand.
_FOLDERS: Final = ("/usr/share/tesseract-ocr/*/tessdata", "/usr/share/tessdata", "/usr/local/share/tessdata")
_SUFFIX: Final = ".traineddata"
WITHOUT_KEY: Final = "There is no key for OCR.space (OCR_SPACE_API_KEY)."
WITHOUT_MODEL: Final = "BAATCHEET_OCR_VISION_MODEL is not set."
WITHOUT_EXTRA: Final = "The package rapidocr is not installed. Install it: pip install 'baatcheet[rapidocr]'"
WITHOUT_DATA: Final = (
    "There is no language data of Tesseract's. Run scripts/ocr-data, install your system's packages "
    "(tesseract-ocr-eng, -urd, -ara, -hin, -osd), or set TESSDATA_PREFIX to the folder of *.traineddata."
)


@dataclass(frozen=True)
class Tessdata:
    """A folder of Tesseract's data, and those of our languages that are in it."""

    folder: Path
    languages: tuple[str, ...]


@dataclass(frozen=True)
class EngineState:
    """`reason`: why it is not available, for whoever runs the server."""

    name: str
    available: bool
    reason: str | None
    languages: tuple[str, ...]


def find_tessdata(setting: Path | None, data_dir: Path) -> Tessdata | None:
    """The folder that `setting` names; else, of those where data usually is, the one with most of our languages."""
    return max(_found(setting, data_dir), key=lambda one: len(one.languages), default=None)


def _found(setting: Path | None, data_dir: Path) -> list[Tessdata]:
    if setting is not None:
        folders = [setting, setting / "tessdata"]
    else:
        known = [found for pattern in _FOLDERS for found in sorted(Path("/").glob(pattern[1:]), reverse=True)]
        folders = [*known, data_dir / "tessdata", data_dir / ".tessdata"]
    found = [
        Tessdata(
            folder,
            tuple(code for code, one in LANGUAGES.items() if (folder / (one.tesseract + _SUFFIX)).is_file()),
        )
        for folder in folders
    ]
    return [one for one in found if one.languages]


def engine_states(
    settings: AttachmentSettings, data_dir: Path, *, ocr_space: bool = False
) -> list[EngineState]:
    """How the configured engines stand, in their order. `ocr_space`: whether there is a key for OCR.space."""
    return [_state(name, settings, data_dir, ocr_space) for name in dict.fromkeys(settings.engines)]


def _state(name: str, settings: AttachmentSettings, data_dir: Path, ocr_space: bool) -> EngineState:
    every = tuple(LANGUAGES)
    match name:
        case "tesseract":
            data = find_tessdata(settings.tessdata, data_dir)
            if data is None:
                return EngineState(name, available=False, reason=WITHOUT_DATA, languages=())
            return EngineState(name, available=True, reason=None, languages=data.languages)
        case "rapidocr":
            return _unless(None if has_rapidocr() else WITHOUT_EXTRA, name, ("en",))
        case "ocr_space":
            return _unless(None if ocr_space else WITHOUT_KEY, name, every)
        case "vision":
            return _unless(None if settings.vision_model is not None else WITHOUT_MODEL, name, every)
    raise ValueError(name)


def _unless(reason: str | None, name: str, languages: tuple[str, ...]) -> EngineState:
    return EngineState(name, reason is None, reason, languages)


def has_rapidocr() -> bool:
    return find_spec("rapidocr") is not None and find_spec("onnxruntime") is not None
