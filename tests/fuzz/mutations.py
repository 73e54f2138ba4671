"""Requests that are almost right: drawn from the OpenAPI document, a corpus of recordings, and a seed."""

from __future__ import annotations

import json
import random
import struct
from typing import Any
from urllib.parse import quote_from_bytes

import seeds
from inprocess import Sent

IDS = ["ann", "bob", "nobody", "", ".", "..", "a/b", "%", "a" * 129, "\x00", "\U0001f600", "ann\n", "é" * 60]
WORDS = ["", "0", "-1", "1", "5", "100", "1001", "9" * 400, "null", "true", "NaN", "baseline", "nested",
         "ann", "a" * 255, "a" * 300, "\x00", "\u202e", "%00", "%ff%fe", "../../etc/passwd",
         "'; DROP TABLE speakers;--", "{{7*7}}", "<script>", "MTIz", "=", "\ufffd"]  # fmt: skip
CONTENT_TYPES = ["application/json", "audio/wav", "audio/ogg", "application/octet-stream", "text/plain", "",
                 "application/json; charset=utf-16", "multipart/form-data", "multipart/mixed; boundary=x",
                 "multipart/form-data; boundary=", "multipart/form-data; boundary=\"x\"; charset=bogus",
                 "application/x-www-form-urlencoded", "a" * 5000]  # fmt: skip
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "PROPFIND"]
INTERESTING = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
MULTIPART = "multipart/form-data; boundary=x"


class Mutator:
    """Draws requests; the same seed draws the same ones."""

    def __init__(self, seed: int, document: dict[str, Any], key: str) -> None:
        self.random = random.Random(seed)
        self.key = key
        self.operations = [
            (method.upper(), path, call)
            for path, calls in document["paths"].items()
            for method, call in calls.items()
        ]
        self.recordings = list(seeds.audio().values())

    def request(self) -> Sent:
        r = self.random
        method, path, call = r.choice(self.operations)
        for name in ("speaker_id", "enrollment_id"):
            known = "ann" if method in ("GET", "POST") else r.choice(["bob", f"s{r.randrange(500)}"])
            path = path.replace(f"{{{name}}}", known if r.random() < 0.6 else r.choice(IDS[1:]))
        if r.random() < 0.03:
            method = r.choice(METHODS)
        if r.random() < 0.02:
            path += r.choice(["/", "//", "/../..", "?", "%2f", "\x00", "/" + "a" * 2000])
        content_type, body = self.body(call)
        if r.random() < 0.05:
            content_type = r.choice(CONTENT_TYPES)
        headers = self.headers(content_type, body)
        return Sent(method, path, self.query(call), headers, self.parts(body), r.random() < 0.02)

    def headers(self, content_type: str, body: bytes) -> list[tuple[bytes, bytes]]:
        r = self.random
        key = self.key if r.random() < 0.95 else r.choice(WORDS)
        named = [(b"authorization", f"Bearer {key}".encode()), (b"content-type", content_type.encode())]
        named.append((b"host", b"fuzz"))
        if r.random() < 0.5:
            length = len(body) if r.random() < 0.9 else r.choice(INTERESTING)
            named.append((b"content-length", str(length).encode()))
        if r.random() < 0.05:
            named.append((b"idempotency-key", r.choice([*WORDS, "a", "b"]).encode()))
        if r.random() < 0.05:
            extra = r.choice([b"x-request-id", b"accept", b"range", b"cookie", b"x-forwarded-for", b"origin"])
            named.append((extra, r.randbytes(r.randrange(50))))
        return named

    def query(self, call: dict[str, Any]) -> bytes:
        r = self.random
        names = [p["name"] for p in call.get("parameters", []) if p["in"] == "query"] + ["unknown"]
        if r.random() < 0.6:
            return b""
        if r.random() < 0.05:
            return r.randbytes(r.randrange(60))
        pairs = [
            f"{r.choice(names)}={quote_from_bytes(r.choice(WORDS).encode())}" for _ in range(r.randrange(5))
        ]
        return "&".join(pairs).encode()

    def parts(self, body: bytes) -> list[bytes]:
        """The body in up to four pieces, some of them empty."""
        cuts = sorted(self.random.randrange(len(body) + 1) for _ in range(self.random.randrange(4)))
        return [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]

    def body(self, call: dict[str, Any]) -> tuple[str, bytes]:
        r = self.random
        content = call.get("requestBody", {}).get("content", {})
        if not content and r.random() < 0.9:
            return "", b""
        kind = r.choice(sorted(content)) if content and r.random() < 0.9 else r.choice(CONTENT_TYPES)
        if kind == "application/json":
            return kind, self.json_body()
        if kind.startswith("multipart/form-data"):
            return (MULTIPART if r.random() < 0.95 else kind), self.form()
        return kind, self.recording() if r.random() < 0.9 else r.randbytes(r.randrange(2000))

    def recording(self) -> bytes:
        return self.mutated(self.random.choice(self.recordings))

    def form(self) -> bytes:
        r = self.random
        parts = []
        for _ in range(r.choice([0, 1, 1, 1, 2, 2, 2, 3, 6])):
            name = "audio" if r.random() < 0.9 else r.choice(WORDS)
            file = (
                '; filename="a.wav"'
                if r.random() < 0.9
                else r.choice(["", "; filename*=utf-8''%ff", "; filename"])
            )
            extra = r.choice(
                ["", "", "", "Content-Type: audio/wav\r\n", "X: " + "y" * 5000 + "\r\n", "broken\r\n"]
            )
            head = f'--x\r\nContent-Disposition: form-data; name="{name}"{file}\r\n{extra}\r\n'
            parts.append(head.encode() + self.recording() + b"\r\n")
        whole = b"".join(parts) + b"--x--\r\n"
        return whole if r.random() < 0.7 else self.mutated(whole)

    def json_body(self) -> bytes:
        r = self.random
        if r.random() < 0.05:
            return r.choice([b"[", b'{"x":']) * r.choice([10, 100, 12_000])
        fields = ["id", "name", "groups", "metadata", "status", r.choice(WORDS)]
        value = {name: self.value(3) for name in r.sample(fields, r.randrange(5))}
        if r.random() < 0.4:
            value["id"] = r.choice(["ann", "bob", f"s{r.randrange(500)}"])
        text = json.dumps(value, ensure_ascii=r.random() < 0.5).encode(errors="surrogatepass")
        return text if r.random() < 0.6 else self.mutated(text)

    def value(self, depth: int) -> Any:
        r = self.random
        kind = r.randrange(9 if depth else 7)
        if kind < 3:
            return r.choice(WORDS)
        if kind == 3:
            return r.choice([None, True, False, "opted_out", "enrolled"])
        if kind == 4:
            return r.choice([0, -1, 2**63, -(2**64), 10**300, 1e308, float("nan"), float("inf"), 0.1])
        if kind == 5:
            return "\ud800" if r.random() < 0.2 else "x" * r.choice([10, 200, 201, 9000])
        if kind == 6:
            return []
        if kind == 7:
            return [self.value(depth - 1) for _ in range(r.randrange(4))]
        return {r.choice(WORDS): self.value(depth - 1) for _ in range(r.randrange(4))}

    def mutated(self, data: bytes) -> bytes:
        r = self.random
        changed = bytearray(data)
        for _ in range(r.choice([0, 1, 1, 2, 4, 16])):
            if not changed:
                break
            at = min(
                int(r.expovariate(1 / 60)) if r.random() < 0.6 else r.randrange(len(changed)),
                len(changed) - 1,
            )
            match r.randrange(7):
                case 0:
                    changed[at] = r.randrange(256)
                case 1:
                    changed[at] ^= 1 << r.randrange(8)
                case 2:
                    del changed[at:]
                case 3:
                    del changed[at : at + r.randrange(1, 40)]
                case 4:
                    changed[at:at] = r.randbytes(r.randrange(1, 40))
                case 5:
                    changed[at : at + 4] = struct.pack(r.choice("<>") + "I", r.choice(INTERESTING))
                case 6:
                    other = r.choice(self.recordings)
                    start = r.randrange(len(other))
                    changed[at : at + 100] = other[start : start + r.randrange(400)]
        return bytes(changed)
