"""Multipart forms, read into memory: no byte of a recording may reach a disk.

Starlette's own reader rolls large parts into temporary files, from a size that its releases have named in
different ways. This one uses python-multipart's callbacks and has no files.
"""

from __future__ import annotations

from collections.abc import AsyncIterable
from dataclasses import dataclass
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from sayso.service.errors import ServiceError

MAX_PARTS = 20
MAX_HEAD_BYTES = 8192  # of the headers of one part


@dataclass(frozen=True)
class Part:
    """One part of a form: its content, and the content type that its sender gave."""

    content: bytes
    content_type: str | None


class _Reader:
    """Collects the content of the parts with one name, with a file name or without, in the order sent."""

    def __init__(self, name: str) -> None:
        self._name = name.encode()
        self.contents: list[bytearray] = []
        self.content_types: list[str | None] = []
        self.parts = 0
        self.in_part = False
        self._head_bytes = 0
        self._header = self._value = b""
        self._disposition = b""
        self._content_type: str | None = None
        self._content: bytearray | None = None  # None while the part has another name

    def callbacks(self) -> dict[str, Any]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_part_end": self._end,
        }

    def _begin(self) -> None:
        self.parts += 1
        if self.parts > MAX_PARTS:
            raise FormParserError(f"it has more than {MAX_PARTS} parts")
        self.in_part, self._head_bytes, self._disposition, self._content = True, 0, b"", None
        self._content_type = None

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        elif self._header.lower() == b"content-type":
            self._content_type = self._value.decode("latin-1").strip()
        self._header = self._value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if options.get(b"name") == self._name:
            self._content = bytearray()
            self.contents.append(self._content)
            self.content_types.append(self._content_type)

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._content is not None:
            self._content += data[start:end]

    def _end(self) -> None:
        self.in_part = False

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES:
            raise FormParserError(f"the headers of a part are longer than {MAX_HEAD_BYTES} bytes")


async def parts_named(name: str, content_type: str, body: AsyncIterable[bytes]) -> list[Part]:
    """Read a form and return its parts `name`.

    A part counts with a file name or without: some clients send none. Raises a 400 for a form that cannot
    be read, or that ends in the middle of a part.
    """
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise _malformed("the content type has no boundary")
    reader = _Reader(name)
    try:
        parser = MultipartParser(boundary, reader.callbacks())  # type: ignore[arg-type]
        async for chunk in body:
            parser.write(chunk)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise _malformed(str(error)) from error
    if reader.in_part:
        raise _malformed("it ends in the middle of a part")
    read = zip(reader.contents, reader.content_types, strict=True)
    return [Part(bytes(content), content_type) for content, content_type in read]


def _malformed(reason: str) -> ServiceError:
    return ServiceError(400, "malformed_multipart", f"the form cannot be read: {reason}")
