"""Projects as clients send and see them."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import ConfigDict, Field

from baatcheet.platform.rest import Body, Name, Out, Page, Text, absent

Description = Annotated[Text, Field(max_length=10_000)]


class ProjectOut(Out):
    """A folder of conversations."""

    id: UUID
    name: str
    description: str
    created_at: datetime
    updated_at: datetime


class ProjectPage(Page[ProjectOut]):
    """Projects, newest first."""


class NewProject(Body):
    """A project to be made."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "Thesis"}]})

    name: Name
    description: Description = ""


class ProjectChanges(Body):
    """What to change of a project; what is left out stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"description": "Sources and drafts"}]})

    name: Name = absent()
    description: Description = absent()
