"""Pictures out of a request's body, which is counted as it comes: what a client says of its length binds nobody."""

import asyncio
import io
from collections.abc import AsyncGenerator

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from .problems import Problem
from .settings import Settings

FORM = "multipart/form-data"
TOO_MANY = "Too many files"  # what Starlette's parser says


async def pictures(request: Request, settings: Settings) -> list[bytes]:
    """Of a form's files, or of a body that is a picture by itself."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != FORM and not kind.startswith("image/"):
        raise Problem(415, f"send {FORM}, or one picture as image/*; not {kind[:100] or 'a body without a type'}", True)
    if int(request.headers.get("content-length", 0)) > settings.upload_bytes:
        raise _too_large(settings)
    try:
        async with asyncio.timeout(settings.body_seconds):
            found = await (_files if kind == FORM else _whole)(request, settings)
    except TimeoutError:
        raise Problem(408, f"the body took longer than {settings.body_seconds:g} seconds", True) from None
    if not found:
        raise Problem(400, "no picture: send files in a form, or one as the body")
    if not all(found):
        raise Problem(400, "an empty picture")
    return found


async def _whole(request: Request, settings: Settings) -> list[bytes]:
    """Into one piece from the first: many small ones, of many requests, would leave holes as large as themselves."""
    held = io.BytesIO()
    async for chunk in _counted(request, settings):
        held.write(chunk)
    return [held.getvalue()]


async def _files(request: Request, settings: Settings) -> list[bytes]:
    parser = MultiPartParser(request.headers, _counted(request, settings), max_files=settings.pictures, max_fields=0)
    parser.spool_max_size = settings.upload_bytes + 1  # in memory, never on a disk
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith(TOO_MANY):
            raise Problem(413, f"more than {settings.pictures} pictures in one request", True) from error
        raise Problem(400, f"not a form of files: {error.message}", True) from error
    try:
        return [await file.read() for _, file in form.multi_items() if isinstance(file, UploadFile)]
    finally:
        await form.close()


async def _counted(request: Request, settings: Settings) -> AsyncGenerator[bytes, None]:
    total = 0
    try:
        async for chunk in request.stream():
            total += len(chunk)
            if total > settings.upload_bytes:
                raise _too_large(settings)
            yield chunk
    except ClientDisconnect:
        raise Problem(400, "the body ended too early", True) from None


def _too_large(settings: Settings) -> Problem:
    return Problem(413, f"more than {settings.upload_bytes:,} bytes in one request", True)
