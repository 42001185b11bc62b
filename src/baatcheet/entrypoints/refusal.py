"""Ending a process because of its settings."""

import os
import sys
from typing import NoReturn

from baatcheet.keys.ring import StoresNotRead
from baatcheet.platform.database import UnusableDatabaseUrl
from baatcheet.platform.settings import SettingsError


def refuse(error: SettingsError | UnusableDatabaseUrl) -> NoReturn:
    """End the process, with the status by which `baatcheet serve` knows not to try again: EX_CONFIG.

    EX_UNAVAILABLE says that a secret store could not be read, which may pass.

    At once: what is left of a start that failed would be told with a traceback, and this is a person's to mend.
    """
    named = f"DATABASE_URL: {error}" if isinstance(error, UnusableDatabaseUrl) else str(error)
    what = (
        "The secret stores can't be read"
        if isinstance(error, StoresNotRead)
        else "The settings can't be used"
    )
    print(f"{what}:\n{named}", file=sys.stderr, flush=True)  # noqa: T201 - for a person
    os._exit(os.EX_UNAVAILABLE if isinstance(error, StoresNotRead) else os.EX_CONFIG)
