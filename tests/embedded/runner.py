"""Runs the embedded services of a folder until it is told to stop: a supervisor that tests can kill.

    python runner.py FOLDER [POSTGRES_BIN]

Prints one line of JSON once they serve, `{"error": …}` when they can't.
"""

import json
import signal
import sys

from baatcheet.platform.embedded import EmbeddedError, EmbeddedServices
from baatcheet.platform.settings import load


def main(folder: str, postgres_bin: str = "") -> None:
    given = {"BAATCHEET_DATA_DIR": folder, "BAATCHEET_POSTGRES_BIN": postgres_bin}
    settings = load(given, dotenv=None).embedded
    services = EmbeddedServices(settings, postgres=True, valkey=True, durable=False)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        addresses = services.start()
    except EmbeddedError as error:
        _say({"error": str(error), "kind": type(error).__name__})
        return
    started: dict[str, object] = {
        "database_url": addresses.database_url,
        "redis_url": addresses.redis_url,
        "pids": services.pids,
    }
    _say(started)
    while signal.sigtimedwait({signal.SIGTERM}, 0.2) is None:
        services.check()
    services.stop()


def _say(said: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
