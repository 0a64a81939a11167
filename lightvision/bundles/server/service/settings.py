"""What may be changed, by environment variables: SERVE_ and the name of a setting. Any other, or a typo, is refused."""

import os
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

PREFIX = "SERVE_"


class Misconfigured(Exception):
    """A setting that cannot be kept; the message names it."""


def _told(default: Any, meaning: str, **limits: Any) -> Any:
    return Field(default, description=meaning, **limits)


class Settings(BaseModel):
    """Memory is bounded by `requests` bodies of `upload_bytes`, and by `decode_threads` pictures of `pixels`, each of
    up to twenty bytes while it is decoded: WebP takes most.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = _told("127.0.0.1", "address to listen at")
    port: int = _told(8000, "0: any that is free", ge=0, le=65_535)
    threads: int = _told(1, "of the network; 0: every core", ge=0, le=1024)
    batch: int = _told(8, "pictures at most that the network is asked about at once", ge=1, le=1024)
    wait_milliseconds: float = _told(0.0, "that it waits for more of them", ge=0, le=1000)
    queue: int = _told(64, "pictures that may wait for the network", ge=1, le=100_000)
    requests: int = _told(32, "for answers, at work at once", ge=1, le=100_000)
    connections: int = _told(512, "open at once", ge=1, le=100_000)
    upload_bytes: int = _told(10_000_000, "of one request", ge=1_000, le=1_000_000_000)
    pixels: int = _told(25_000_000, "of one picture, looked at before it is decoded", ge=1, le=100_000_000)
    pictures: int = _told(16, "of one request", ge=1, le=1024)
    decode_threads: int = _told(2, "that decode pictures", ge=1, le=1024)
    header_seconds: float = _told(5.0, "that a client may take for its headers", gt=0, le=600)
    body_seconds: float = _told(15.0, "and for its pictures", gt=0, le=600)
    decode_seconds: float = _told(5.0, "for all pictures of a request", gt=0, le=600)
    idle_seconds: int = _told(15, "between two requests of a connection", ge=1, le=600)
    drain_seconds: int = _told(20, "for what is at work when the service is told to end", ge=1, le=600)

    @model_validator(mode="after")
    def _room_for_one(self) -> "Settings":
        if self.queue < self.pictures:
            raise ValueError(f"QUEUE of {self.queue} has no room for one request of {self.pictures} PICTURES")
        return self


def read(environment: Mapping[str, str] = os.environ) -> Settings:
    asked = {name[len(PREFIX) :].lower(): text for name, text in environment.items() if name.startswith(PREFIX)}
    try:
        return Settings.model_validate(asked)
    except ValidationError as error:
        problem = error.errors()[0]
        name = PREFIX + "_".join(map(str, problem["loc"])).upper()
        raise Misconfigured(f"{name}: {problem['msg']}; known are {known()}") from error


def known() -> str:
    return ", ".join(PREFIX + name.upper() for name in Settings.model_fields)
