"""Requests that are almost right: drawn from the application's routes, a corpus of recordings, and a seed."""

from __future__ import annotations

import json
import random
import struct
from typing import Any
from urllib.parse import quote_from_bytes

import seeds
from fastapi import FastAPI
from inprocess import PROFILE, Sent, Talk
from routes import every_route
from starlette.routing import Route

from sayso.runtime.live import ENCODINGS
from sayso.runtime.opus import OggPackets

IDS = ["ann", "bob", "nobody", "", ".", "..", "a/b", "%", "a" * 129, "\x00", "\U0001f600", "ann\n", "é" * 60]
WORDS = ["", "0", "-1", "1", "5", "100", "1001", "9" * 400, "null", "true", "NaN", "baseline", "nested",
         "ann", "a" * 255, "a" * 300, "\x00", "\u202e", "%00", "%ff%fe", "../../etc/passwd",
         "'; DROP TABLE speakers;--", "{{7*7}}", "<script>", "MTIz", "=", "\ufffd"]  # fmt: skip
CONTENT_TYPES = ["application/json", "audio/wav", "audio/ogg", "application/octet-stream", "text/plain", "",
                 "audio/basic", "audio/L16;rate=16000", "audio/pcm;rate=x;channels=9",
                 "application/json; charset=utf-16", "multipart/form-data", "multipart/mixed; boundary=x",
                 "multipart/form-data; boundary=", "multipart/form-data; boundary=\"x\"; charset=bogus",
                 "application/x-www-form-urlencoded", "a" * 5000]  # fmt: skip
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "PROPFIND"]
INTERESTING = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
MULTIPART = "multipart/form-data; boundary=x"
KINDS = ["verification", "verification", "identification", "", "x"]
PROFILES = [PROFILE, "{49A36324FC4B4387AA06090CFBF0064F}", "0" * 32]
FILES = [
    "app.js",
    "style.css",
    "../../../settings.py",
    "vendor/swagger-ui/LICENSE",
    "vendor",
    ".",
    "a" * 5_000,
]
# What stands for the routes that the document leaves out: the console's files, and Azure's calls.
UNDOCUMENTED = {
    "parameters": [
        {"name": name, "in": "query"}
        for name in ("api-version", "maxpagesize", "$skiptoken", "profileIds", "ignoreMinLength")
    ],
    "requestBody": {"content": {"application/json": {}, "audio/wav": {}, "multipart/form-data": {}}},
}


class Mutator:
    """Draws requests; the same seed draws the same ones."""

    def __init__(self, seed: int, app: FastAPI, key: str) -> None:
        self.random = random.Random(seed)
        self.key = key
        documented = app.openapi()["paths"]
        self.operations: list[tuple[str, str, dict[str, Any]]] = [
            (method.upper(), path, call)
            for path, calls in documented.items()
            for method, call in calls.items()
        ]
        for route in every_route(app.routes):
            if isinstance(route, Route) and route.path not in documented:
                self.operations += [(method, route.path, UNDOCUMENTED) for method in route.methods or ()]
        self.recordings = list(seeds.audio().values())
        self.speech = [seeds.audio()["enough.ogg"], seeds.audio()["opus.ogg"]]

    def request(self) -> Sent | Talk:
        r = self.random
        if r.random() < 0.05:
            return self.talk()
        method, path, call = r.choice(self.operations)
        for name in ("speaker_id", "enrollment_id"):
            known = "ann" if method in ("GET", "POST") else r.choice(["bob", f"s{r.randrange(500)}"])
            path = path.replace(f"{{{name}}}", known if r.random() < 0.6 else r.choice(IDS[1:]))
        path = path.replace("{kind}", r.choice(KINDS)).replace("{locale}", r.choice(WORDS))
        path = path.replace("{profile_id}", r.choice([*PROFILES, *IDS]))
        path = path.replace("{path:path}", r.choice([*FILES, *IDS, *WORDS]))
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
        named.append((b"ocp-apim-subscription-key", key.encode()))
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

    def talk(self) -> Talk:
        """A stream: a start that is almost right, audio that may be, and a stop, or none of that."""
        r = self.random
        encoding = r.choice(ENCODINGS)
        start = {"type": "start", "call": r.choice(["verify", "verify", "identify", "enroll"])}
        start |= {"speaker_id": "ann" if r.random() < 0.8 else r.choice(IDS), "encoding": encoding}
        start |= {"sample_rate": r.choice([8_000, 16_000, 16_000, 48_000, *INTERESTING])}
        if r.random() < 0.95:
            start["key"] = self.key
        for name in r.sample(
            ["model", "group", "candidates", "top_k", "call", "key", "x"], r.choice([0, 0, 0, 1])
        ):
            start[name] = self.value(2)
        text = json.dumps(start, ensure_ascii=r.random() < 0.5).encode(errors="surrogatepass")
        if r.random() < 0.1:
            text = self.mutated(text)
        messages: list[str | bytes] = [text.decode(errors="replace"), *self.spoken(encoding)]
        if r.random() < 0.1:
            odd: list[str | bytes] = ["", "[", '{"type": "start"}', b"", "x" * 300_000, b"x" * (2**20 + 1)]
            messages.insert(r.randrange(len(messages) + 1), r.choice(odd))
        leaves = r.random() < 0.1
        if not leaves:
            messages.append('{"type": "stop"}')
        return Talk(self.headers("", b"")[2:], messages, leaves)

    def spoken(self, encoding: str) -> list[bytes]:
        """Audio of an encoding in up to eight messages, mutated now and then."""
        r = self.random
        if encoding == "opus":
            packets = OggPackets().packets(r.choice(self.speech))[: r.choice([5, 10, 20, 200])]
            return [packet if r.random() < 0.98 else self.mutated(packet) for packet in packets]
        data = r.choice(self.speech) if encoding == "ogg_opus" else r.choice(self.recordings)
        if r.random() < 0.5:
            data = self.mutated(data)
        cuts = sorted(r.randrange(len(data) + 1) for _ in range(r.randrange(8)))
        return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]

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
        fields = ["id", "name", "groups", "metadata", "status", "locale", r.choice(WORDS)]
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
