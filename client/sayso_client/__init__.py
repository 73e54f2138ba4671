"""Client for Sayso, the self-hosted speaker-verification service."""

from sayso_client._async import AsyncClient
from sayso_client._async_stream import AsyncStream
from sayso_client._sync import Client
from sayso_client._sync_stream import Stream
from sayso_client.errors import (
    BadRecording,
    Conflict,
    InvalidRequest,
    NotFound,
    Problem,
    SaysoError,
    StreamEnded,
    TooLittleSpeech,
    Unauthorized,
    Unavailable,
    Unreachable,
)

__all__ = [
    "AsyncClient",
    "AsyncStream",
    "BadRecording",
    "Client",
    "Conflict",
    "InvalidRequest",
    "NotFound",
    "Problem",
    "SaysoError",
    "Stream",
    "StreamEnded",
    "TooLittleSpeech",
    "Unauthorized",
    "Unavailable",
    "Unreachable",
]
