"""What can go wrong with the embedded services, as a person should read it."""

from pathlib import Path


class EmbeddedError(Exception):
    """An embedded service can't run. `str(error)` says why and what to do."""


class DataFolderInUse(EmbeddedError):
    """Another process works on the data folder."""

    def __init__(self, folder: Path, pid: int | None) -> None:
        who = "another BaatCheet" if pid is None else f"another BaatCheet (pid {pid})"
        super().__init__(
            f"{who} is using the data folder {folder}. Stop it, or give this one a folder of its own: "
            "--data FOLDER (BAATCHEET_DATA_DIR)."
        )
        self.pid = pid
