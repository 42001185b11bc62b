"""What can go wrong with exports and imports, in words for their client."""

from uuid import UUID

from baatcheet.platform.errors import Conflict, NotFound


class ExportNotFound(NotFound):
    """There is no such export."""

    type = "export-not-found"
    openai_code = "export_not_found"

    def __init__(self, export_id: UUID) -> None:
        super().__init__(f"There is no export {export_id}.")


class ExportExpired(NotFound):
    """The file of this export is no longer kept."""

    type = "export-expired"
    openai_code = "export_expired"

    def __init__(self, export_id: UUID) -> None:
        super().__init__(f"The file of export {export_id} was deleted when its time was over. Export again.")


class ExportNotReady(Conflict):
    """The file of this export is not there yet."""

    type = "export-not-ready"
    openai_code = "export_not_ready"


class ImportNotFound(NotFound):
    """There is no such import."""

    type = "import-not-found"
    openai_code = "import_not_found"

    def __init__(self, import_id: UUID) -> None:
        super().__init__(f"There is no import {import_id}.")
