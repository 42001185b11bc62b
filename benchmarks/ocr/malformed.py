"""Thousands of damaged files, as they would come: `python -m benchmarks.ocr.malformed [--files 10000] [--seed 1]`.

Each is told by its bytes, looked at in a sandbox, and its first page read by Tesseract, as the job does. What counts:
that each ends with a text or a plain reason, that this process goes on, and that its memory does not grow.
"""

import argparse
import asyncio
import os
import resource
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from baatcheet.attachments.contents import found
from baatcheet.attachments.contents.examining import PAGES, Examined, examine
from baatcheet.attachments.kinds import ProtectedFile, UnknownKind, kind_of_head, settled
from baatcheet.attachments.ocr.availability import find_tessdata
from baatcheet.attachments.ocr.engine import EngineFailed, Page
from baatcheet.attachments.ocr.local import TesseractEngine
from baatcheet.jobs.isolation import Refused, Sandbox, SandboxFailed
from benchmarks.ocr.corpus import honest, mutated
from benchmarks.report import progress

SECONDS = 60.0  # for one file
MEMORY = 1_000_000_000
PAGE = os.sysconf("SC_PAGE_SIZE")
EVERY = 200  # files between two looks at the memory
PROCESSES = 2


@dataclass
class Outcome:
    """How many files ended how, and the memory of this process meanwhile, in bytes."""

    ends: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    memory: list[int] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)

    @property
    def files(self) -> int:
        return sum(self.ends.values())

    @property
    def growth(self) -> float:
        """Megabytes from the first third of the run to its end."""
        settled_at = self.memory[len(self.memory) // 3] if self.memory else 0
        return (self.memory[-1] - settled_at) / 1e6 if self.memory else 0.0


async def run(files: Iterable[tuple[str, bytes]], folder: Path) -> Outcome:
    """Let every file be read."""
    outcome = Outcome()
    waiting = iter(files)
    async with Sandbox(PROCESSES) as sandbox:
        engine = TesseractEngine(sandbox, lambda: find_tessdata(None, Path("data")))

        async def work(place: Path) -> None:
            for name, data in waiting:
                await _one(sandbox, engine, place, name, data, outcome)
                if outcome.files % EVERY == 0:
                    outcome.memory.append(resident())

        places = [folder / str(number) for number in range(PROCESSES)]
        for place in places:
            place.mkdir(parents=True)
        await asyncio.gather(*map(work, places))
    outcome.memory.append(resident())
    return outcome


async def _one(
    sandbox: Sandbox, engine: TesseractEngine, folder: Path, name: str, data: bytes, outcome: Outcome
) -> None:
    path = folder / "file"
    path.write_bytes(data)
    try:
        end = await _read(sandbox, engine, folder, path, name, data)
    except (Refused, UnknownKind, ProtectedFile) as refusal:
        end = "refused"
        _because(outcome, name, str(refusal))
    except SandboxFailed as failure:
        end = failure.kind
        _because(outcome, name, str(failure))
    except EngineFailed as failed:
        end = "engine failed"
        _because(outcome, name, str(failed))
    outcome.ends[end] += 1


def _because(outcome: Outcome, name: str, reason: str) -> None:
    outcome.reasons[reason[:60]] += 1
    if len(reason) < 15 or "Traceback" in reason or "Error" in reason.partition("(")[0]:
        outcome.unexplained.append(f"{name}: {reason}")


async def _read(
    sandbox: Sandbox, engine: TesseractEngine, folder: Path, path: Path, name: str, data: bytes
) -> str:
    if not data:
        raise Refused("The file is empty: there is nothing to read.")
    kind = settled(kind_of_head(data[:8192]), name, data[:8192], data[-1_000_000:])
    asked = Examined(str(path), kind, str(folder), 100_000_000, 2_000, 10_000_000)
    examination = await sandbox.run(examine, asked, seconds=SECONDS, memory=MEMORY)
    pages = found.read(folder / PAGES)
    if examination.to_read and next(pages).to_read:
        await engine.read(Page(str(path), kind), ("en",), folder)
        return "read from its picture"
    return "read"


def resident() -> int:
    """Bytes of memory that this process holds now."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    parser = argparse.ArgumentParser(description="Damaged files, by the thousand.")
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    progress(f"{asked.files} damaged files")
    with TemporaryDirectory() as folder:
        outcome = asyncio.run(run(mutated(honest(), asked.files, asked.seed), Path(folder)))
    print(
        f"{outcome.files} files, {outcome.growth:+.1f} MB of memory, {len(outcome.unexplained)} unexplained"
    )
    for end, count in outcome.ends.most_common():
        print(f"{count:7}  {end}")
    print("reasons:")
    for reason, count in outcome.reasons.most_common(25):
        print(f"{count:7}  {reason}")
    for one in outcome.unexplained[:20]:
        print(f"unexplained: {one}")


if __name__ == "__main__":
    main()
