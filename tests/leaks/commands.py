"""Runs several commands of `baatcheet`, each in a process of its own that is forked from this one.

    python -m tests.leaks.commands FOLDER '["doctor", "keys list"]'

What each printed is in FOLDER under its line, on both outputs, and its status in a file beside. The program is read
once; a fork knows no more of keys than a process that was started anew.
"""

import json
import os
import sys
from pathlib import Path

from baatcheet.entrypoints.cli import main


def run(folder: Path, line: str) -> int:
    """The process that runs it."""
    child = os.fork()
    if child:
        return child
    out = os.open(folder / f"{line}.out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    sys.argv = ["baatcheet", *line.split()]
    status = 0
    try:
        main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    (folder / f"{line}.status").write_text(str(status))
    os._exit(0)


if __name__ == "__main__":
    children = [run(Path(sys.argv[1]), line) for line in json.loads(sys.argv[2])]
    for child in children:
        os.waitpid(child, 0)
