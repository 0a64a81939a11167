"""What may be changed, by environment variables: SERVE_ and the name of a setting. Any other, or a typo, is refused."""

import os
from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

PREFIX = "SERVE_"
Count = Annotated[int, Field(ge=1, le=100_000)]
Seconds = Annotated[float, Field(gt=0, le=600)]


class Misconfigured(Exception):
    """A setting that cannot be kept; the message names it."""


class Settings(BaseModel):
    """Memory is bounded by `requests` bodies of `upload_bytes`, and by `decode_threads` pictures of `pixels`, each of
    some ten bytes while it is decoded.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8000
    threads: Annotated[int, Field(ge=0, le=1024)] = 1  # of the network; 0: every core
    batch: Count = 8  # pictures that the network is asked about at once, at most
    wait_milliseconds: Annotated[float, Field(ge=0, le=1000)] = 0.0  # for more of them
    queue: Count = 64  # pictures that may wait for the network
    requests: Count = 32  # at work at once; more are told to come again
    connections: Count = 512
    upload_bytes: Annotated[int, Field(ge=1_000, le=1_000_000_000)] = 10_000_000  # of one request
    pixels: Annotated[int, Field(ge=1, le=100_000_000)] = 25_000_000  # of one picture, before it is decoded
    pictures: Count = 16  # of one request
    decode_threads: Count = 2
    header_seconds: Seconds = 5.0  # that a client may take for its headers,
    body_seconds: Seconds = 15.0  # and for its pictures
    decode_seconds: Seconds = 5.0
    idle_seconds: Annotated[int, Field(ge=1, le=600)] = 15  # between two requests of one connection
    drain_seconds: Annotated[int, Field(ge=1, le=600)] = 20  # for what is at work when the service is told to end

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
