"""Ending a process because of its settings."""

import os
import sys
from typing import NoReturn

from baatcheet.platform.database import UnusableDatabaseUrl
from baatcheet.platform.settings import SettingsError


def refuse(error: SettingsError | UnusableDatabaseUrl) -> NoReturn:
    """End the process, with the status by which `baatcheet serve` knows not to try again.

    At once: what is left of a start that failed would be told with a traceback, and this is a person's to mend.
    """
    named = f"DATABASE_URL: {error}" if isinstance(error, UnusableDatabaseUrl) else str(error)
    print(f"The settings can't be used:\n{named}", file=sys.stderr, flush=True)  # noqa: T201 - for a person
    os._exit(os.EX_CONFIG)
