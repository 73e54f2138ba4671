"""Recordings in forms: in memory whatever their size, and whatever a client leaves out of a part."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from sounds import voice_of

from sayso.service.errors import ServiceError
from sayso.service.forms import MAX_HEAD_BYTES, parts_named

written: list[str] = []
_watching = False


def _notice(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook (which cannot be taken down again): notes the files that are opened to be written."""
    if _watching and event == "open" and isinstance(arguments[0], str | bytes):
        path, _, flags = arguments
        if flags & (os.O_WRONLY | os.O_RDWR):
            written.append(os.fsdecode(path))


@pytest.fixture
def writes() -> Iterator[list[str]]:
    """The files that this process opens for writing meanwhile, by any thread."""
    global _watching
    if not hasattr(sys, "_sayso_notices"):
        sys.addaudithook(_notice)
        sys._sayso_notices = True  # type: ignore[attr-defined]
    written.clear()
    _watching = True
    yield written
    _watching = False


def form(*parts: tuple[str, bytes], boundary: bytes = b"x") -> bytes:
    sent = [b"--" + boundary + b"\r\n" + head.encode() + b"\r\n\r\n" + body for head, body in parts]
    return b"\r\n".join([*sent, b"--" + boundary + b"--\r\n"])


AUDIO = 'Content-Disposition: form-data; name="audio"'
HEADERS = {"Content-Type": "multipart/form-data; boundary=x"}


def test_a_recording_in_a_form_never_reaches_a_disk(service: Any, tmp_path: Path, writes: list[str]) -> None:
    large = voice_of("ann", 1, 100)
    assert len(large) > 3_000_000
    for headers in ({}, {"Idempotency-Key": "k"}):
        answer = service.post("/v1/identify", files={"audio": ("a.wav", large)}, headers=headers)
        assert answer.status_code == 200, answer.text
    assert {path for path in writes if not path.startswith(str(tmp_path))} == set()


@pytest.mark.parametrize(
    "head",
    [
        AUDIO,
        AUDIO + "\r\nContent-Type: audio/wav",
        AUDIO + "; filename*=UTF-8''a.wav",
        "content-type: audio/wav\r\ncontent-disposition: form-data; filename=a; name=audio",
        AUDIO + '; filename="a;\\"b.wav"',
    ],
)
def test_a_part_counts_whatever_names_its_file(service: Any, head: str) -> None:
    sent = form(("Content-Disposition: form-data; name=text", b"1"), (head, voice_of("ann", 1)))
    answer = service.post("/v1/identify", content=sent, headers=HEADERS)
    assert answer.status_code == 200, answer.text


async def pieces(body: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


def parts(body: bytes, size: int = 1000, content_type: str = HEADERS["Content-Type"]) -> list[bytes]:
    return [part.content for part in asyncio.run(parts_named("audio", content_type, pieces(body, size)))]


@pytest.mark.parametrize("size", [1, 2, 7, 10_000])
def test_parts_are_the_same_however_the_body_arrives(size: int) -> None:
    contents = [b"", b"\r\n--", b"\r\n--y\r\n", bytes(range(256)) * 3]
    sent = form(*[(AUDIO, content) for content in contents], ("Content-Disposition: form-data; name=b", b"?"))
    assert parts(sent, size) == contents


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (form((AUDIO, b"abc"))[:-8], "ends in the middle"),
        (form((AUDIO + "x" * MAX_HEAD_BYTES, b"abc")), "header"),
        (b"nothing of the kind", "boundary"),
    ],
)
def test_a_form_that_cannot_be_read_says_why(body: bytes, reason: str) -> None:
    with pytest.raises(ServiceError, match=reason) as refused:
        parts(body)
    assert refused.value.code == "malformed_multipart"


def test_a_form_needs_a_boundary() -> None:
    with pytest.raises(ServiceError, match="boundary"):
        parts(b"", content_type="multipart/form-data")


def test_silence_in_one_letter_is_no_text(service: Any) -> None:
    """A-law silence is the letter U; whether such a body is read is the decoder's to say."""
    answer = service.post("/v1/identify", content=b"U" * 16_000)
    assert answer.json()["code"] != "audio_is_text"
