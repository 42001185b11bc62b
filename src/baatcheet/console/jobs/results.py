"""Where the results of jobs are to be had."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol
from uuid import UUID

from baatcheet.auth.principal import Principal
from baatcheet.platform.errors import NotFound

# For its owner, the address of what a job's result speaks of. Raises NotFound when it is there no longer.
Opener = Callable[[Principal, Mapping[str, Any]], Awaitable[str]]
Openers = Mapping[str, Opener]


class _Link(Protocol):
    @property
    def url(self) -> str: ...


class ExportFiles(Protocol):
    """What `baatcheet.exports.service.Exports` is used for here."""

    async def file(self, who: Principal, export_id: UUID, /) -> Any: ...

    async def link(self, export: Any, /) -> _Link | None: ...


def opens_exports(exports: ExportFiles) -> Opener:
    """Leads to an export's file, by a link that is good for a while."""

    async def address(who: Principal, result: Mapping[str, Any]) -> str:
        link = await exports.link(await exports.file(who, UUID(result["export_id"])))
        if link is None:
            raise NotFound("The file is not kept any longer.")
        return link.url

    return address
