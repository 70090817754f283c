"""The ASGI application: routes, and what stands around them."""

from __future__ import annotations

from difflib import get_close_matches

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from stapes.server import health, metrics
from stapes.server.audio import AudioEndpoint
from stapes.server.document import document
from stapes.server.errors import ApiError
from stapes.server.gate import Gate
from stapes.server.jobs.routes import job_routes
from stapes.server.jobs.runner import JobRunner
from stapes.server.schema import Model, ModelList
from stapes.server.service import Service

_JSON = "application/json"
_PATHS = (
    "/v1/audio/transcriptions", "/v1/audio/translations", "/v1/models", "/v1/jobs", "/health/live", "/health/ready",
    "/metrics", "/openapi.json",
)  # fmt: skip


def create_app(service: Service, jobs: JobRunner | None) -> ASGIApp:
    """Return the application of a service that is open. jobs: None where no folder is there to keep them."""

    async def models(_: Request) -> Response:
        found = [_model(one.id, one.created) for one in service.models.all]
        now = service.models.all[0].created
        found += [_model(alias, now) for alias in service.models.aliases]
        return _json(ModelList(data=found))

    async def model(request: Request) -> Response:
        name = request.path_params["name"]
        return _json(_model(name, service.models.find(name).created))

    async def live(_: Request) -> Response:
        return Response(b'{"status":"ok"}', media_type=_JSON)

    async def ready(_: Request) -> Response:
        state = health.readiness(service.models)
        return Response(msgspec.json.encode(state), status_code=200 if state.ready else 503, media_type=_JSON)

    async def measured(_: Request) -> Response:
        return Response(service.metrics.text(), headers={"content-type": metrics.CONTENT_TYPE})

    async def openapi(_: Request) -> Response:
        return Response(msgspec.json.encode(document()), media_type=_JSON)

    routes = [
        Route("/v1/audio/transcriptions", AudioEndpoint(service, "transcriptions"), methods=["POST"]),
        Route("/v1/audio/translations", AudioEndpoint(service, "translations"), methods=["POST"]),
        Route("/v1/models", models),
        Route("/v1/models/{name:path}", model),
        *job_routes(service, jobs),
        Route("/health/live", live),
        Route("/health/ready", ready),
        Route("/metrics", measured),
        Route("/openapi.json", openapi),
    ]
    return Gate(_in_openai_form(Router(routes, redirect_slashes=False)), service)


def _in_openai_form(app: Router) -> ASGIApp:
    """Have a path or method that is not there raise an ApiError, which the gate answers."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = call  # Starlette raises HTTPException in an application, and answers plain text outside one
        try:
            await app(scope, receive, send)
        except HTTPException as error:
            raise _of_http(error, scope) from None

    return call


def _of_http(error: HTTPException, scope: Scope) -> ApiError:
    if error.status_code == 404:
        close = get_close_matches(scope["path"][:200], _PATHS, n=1, cutoff=0.7)
        hint = f" Did you mean {close[0]}?" if close else ""
        return ApiError(404, f"There is nothing at {scope['method']} {scope['path'][:200]}.{hint}", code="unknown_url")
    allowed = (error.headers or {}).get("Allow", "")
    message = f"{error.detail}. Allowed: {allowed}." if allowed else str(error.detail)
    code = "method_not_allowed" if error.status_code == 405 else None
    return ApiError(error.status_code, message, code=code, allowed=allowed)


def _model(name: str, created: int) -> Model:
    return Model(id=name, created=created, owned_by="stapes")


def _json(value: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(value), media_type=_JSON)
