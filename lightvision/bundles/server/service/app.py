"""The application: what is asked by which path, and what is answered."""

# pyright: reportMissingImports=false

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from lightvision_runner.classifying import Classifier
from lightvision_runner.model import load
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from . import problems, uploads
from .admission import Admission
from .batching import Batcher
from .decoding import Decoder
from .measures import Measures
from .problems import Problem
from .settings import Settings
from .watching import Watching

PICTURES = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "pictures": {"type": "array", "items": {"type": "string", "format": "binary"}},
                    },
                }
            },
            "image/*": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"description": "no picture, or a broken form"},
    408: {"description": "the body came too slowly"},
    413: {"description": "too many bytes, pixels or pictures"},
    415: {"description": "not a picture of a known kind"},
    422: {"description": "a damaged picture, or `top` out of range"},
    503: {"description": "full; Retry-After says when to come again"},
}


class Service:
    """One session, and what stands before it."""

    def __init__(self, model: Path, settings: Settings) -> None:
        self.settings = settings
        self.model: Classifier = load(model, settings.threads)
        self.admission = Admission(settings.requests)
        self.decoder = Decoder(self.model, settings)
        self.measures = Measures(lambda: self.batcher.waiting, lambda: self.admission.at_work)
        self.batcher = Batcher(self.model.probabilities, settings, self.measures.batches.observe)

    async def predict(self, request: Request, top: int) -> list[dict[str, Any]]:
        with self.admission.one():
            pictures = await uploads.pictures(request, self.settings)
            answers = await self.batcher.ask(await self.decoder.decoded(pictures))
        return [self._told(answer, top) for answer in answers]

    def _told(self, probabilities: np.ndarray, top: int) -> dict[str, Any]:
        best = (-probabilities).argsort(kind="stable")[:top]
        ranked = [{"class": self.model.classes[at], "probability": round(float(probabilities[at]), 6)} for at in best]
        return ranked[0] | ({"top": ranked} if top > 1 else {})

    @asynccontextmanager
    async def living(self, _: FastAPI) -> AsyncIterator[None]:
        """The first answer of a session is slow: it is given to nobody."""
        size = self.model.image_size
        self.model.probabilities(np.zeros((1, size, size, 3), np.uint8))
        self.batcher.start()
        yield
        await self.batcher.close()
        self.decoder.close()


def create(model: Path, facts: dict[str, Any], settings: Settings) -> FastAPI:
    """`facts` are told at /, as they stand in bundle.json."""
    service = Service(model, settings)
    app = FastAPI(title="LightVision", version=str(facts["model"]["sha256"])[:12], lifespan=service.living)
    top_classes = Query(ge=1, le=len(service.model.classes))

    @app.post("/predict", openapi_extra=PICTURES, responses=REFUSALS)
    async def predict(request: Request, top: Annotated[int, top_classes] = 1) -> dict[str, Any]:
        """Of each picture of a form, or of the one that is the body: its class, and how sure the network is."""
        return {"model": facts["name"], "answers": await service.predict(request, top)}

    @app.get("/")
    async def about() -> dict[str, Any]:
        return facts | {"limits": settings.model_dump(include={"upload_bytes", "pixels", "pictures"})}

    @app.get("/health")
    async def health() -> JSONResponse:
        """Live: this is answered. Ready: there is room for another request."""
        ready = service.batcher.alive and service.admission.room
        return JSONResponse({"live": True, "ready": ready}, 200 if ready else problems.BUSY)

    @app.get("/health/live")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(service.measures.text(), media_type=CONTENT_TYPE_LATEST)

    async def mistaken(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)  # noqa: S101 - what it is registered for
        problem = error.errors()[0]
        return problems.answer(422, f"{problem['loc'][-1]}: {problem['msg']}")

    async def unknown(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)  # noqa: S101
        return problems.answer(error.status_code, error.detail)

    async def broken(_: Request, error: Exception) -> JSONResponse:
        return problems.answer(500, f"an error of the service: {type(error).__name__}")

    app.add_exception_handler(Exception, broken)
    app.add_exception_handler(Problem, problems.handle)
    app.add_exception_handler(RequestValidationError, mistaken)
    app.add_exception_handler(HTTPException, unknown)
    paths = [path for route in app.routes if (path := getattr(route, "path", None))]
    app.add_middleware(Watching, measures=service.measures, paths=paths)
    return app
