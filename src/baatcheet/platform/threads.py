"""Blocking work on files, off the event loop."""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")

# Its own threads: a slow disk or a far-away store holds up nothing but files.
_threads = ThreadPoolExecutor(8, thread_name_prefix="files")


async def in_thread(
    function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Result:
    """What `function` returns. Whoever is cancelled meanwhile waits for its end: no file is closed under it."""
    work = asyncio.get_running_loop().run_in_executor(_threads, partial(function, *args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        while not work.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([work])
        if not work.cancelled():
            work.exception()  # looked at: nobody else will
        raise
