"""Routes as clients send and see them."""

from datetime import datetime
from typing import Annotated

from pydantic import ConfigDict, Field

from baatcheet.platform.rest import Body, Line, Out, Text
from baatcheet.providers.routing.model import MOST_STEPS, MOST_WEIGHT, Route, Step, Strategy, Task
from baatcheet.providers.routing.service import Standing

Description = Annotated[Text, Field(max_length=1_000)]
Tasks = Annotated[list[Task], Field(min_length=1, max_length=4)]


def _chat() -> list[Task]:
    return ["chat"]


class StepOut(Out):
    """One place on a route."""

    model: str = Field(description="provider/name, a bare name, another route, or auto.")
    weight: int
    served: bool = Field(
        description="Whether a configured provider has it now. What is not served is passed over."
    )


class RouteOut(Out):
    """A name that stands for several models."""

    name: str
    description: str
    strategy: Strategy
    tasks: list[Task]
    steps: list[StepOut]
    built_in: bool = Field(description="It comes with BaatCheet; a route of your own may take its place.")
    updated_at: datetime | None = Field(description="null: built in.")

    @classmethod
    def of(cls, standing: Standing) -> "RouteOut":
        route = standing.route
        return cls(
            name=route.name,
            description=route.description,
            strategy=route.strategy,
            tasks=list(route.tasks),
            steps=[
                StepOut(model=step.model, weight=step.weight, served=served)
                for step, served in zip(route.steps, standing.served, strict=True)
            ],
            built_in=route.built_in,
            updated_at=route.updated_at,
        )


class RouteList(Out):
    """Every route, by name."""

    data: list[RouteOut]


class NewStep(Body):
    """One place on a route."""

    model: Annotated[Line, Field(min_length=1, max_length=300)]
    weight: Annotated[int, Field(ge=0, le=MOST_WEIGHT)] = Field(
        1, description="For the strategy weighted; 0: only when all others have failed."
    )


class NewRoute(Body):
    """A route to be made, or to take the place of the one that is called the same."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "strategy": "weighted",
                    "steps": [
                        {"model": "groq/llama-3.3-70b-versatile", "weight": 3},
                        {"model": "deepseek/deepseek-chat", "weight": 1},
                    ],
                }
            ]
        }
    )

    steps: Annotated[list[NewStep], Field(min_length=1, max_length=MOST_STEPS)]
    strategy: Strategy = "ordered"
    tasks: Tasks = Field(default_factory=_chat)
    description: Description = ""

    def route(self, name: str) -> Route:
        return Route(
            name=name,
            steps=tuple([Step(step.model, step.weight) for step in self.steps]),
            strategy=self.strategy,
            tasks=tuple(dict.fromkeys(self.tasks)),
            description=self.description,
        )
