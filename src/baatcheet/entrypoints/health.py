"""`/live`, `/ready`, `/health`, `/metrics`: for whoever keeps the server running. No token is asked for."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from baatcheet.auth.service import Authenticator
from baatcheet.platform.health import Health
from baatcheet.platform.settings import Settings
from baatcheet.platform.telemetry import CONTENT_TYPE, Telemetry

TAG = {"name": "health", "description": "For load balancers, orchestrators and Prometheus."}

router = APIRouter(tags=["health"])


def _health(request: Request) -> Health:
    health: Health = request.app.state.health
    return health


HealthPart = Annotated[Health, Depends(_health)]
_NOT_NOW: dict[int | str, dict[str, Any]] = {503: {"description": "Not now; the body says which part."}}


@router.get("/live", summary="Is the process alive?")
async def live() -> dict[str, str]:
    return {"status": "alive"}


@router.get("/ready", summary="May new work be sent here?", responses=_NOT_NOW)
async def ready(health: HealthPart) -> JSONResponse:
    """The database must be reachable and migrated, the process not ending. The cache is optional."""
    good, parts = await health.ready()
    return JSONResponse(parts, 200 if good else 503)


@router.get("/health", summary="How are the parts?", responses=_NOT_NOW)
async def report(health: HealthPart) -> JSONResponse:
    good, parts = await health.report()
    return JSONResponse(parts, 200 if good else 503)


@router.get(
    "/metrics",
    summary="Metrics, in Prometheus' text format.",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
        401: {"description": "BAATCHEET_METRICS_PUBLIC is false: a token is needed."},
        403: {"description": "BAATCHEET_METRICS_PUBLIC is false: an administrator's token is needed."},
    },
)
async def metrics(request: Request) -> Response:
    settings: Settings = request.app.state.settings
    if not settings.telemetry.metrics_public:
        authenticator: Authenticator = request.app.state.authenticator
        who = await authenticator.authenticate(request.headers.get("authorization"))
        who.require("admin")
    telemetry: Telemetry = request.app.state.telemetry
    return Response(telemetry.metrics.render(), media_type=CONTENT_TYPE)
