"""Coverage-guided fuzzing with atheris (libFuzzer) of what reads a stranger's bytes.

    pip install -e '.[fuzz]'
    make fuzz TARGET=audio SECONDS=60

Targets: `audio` (decoding), `live` (what a stream brings: the first byte picks the encoding, the second how
it is cut), `card` (model files and their cards), `requests` (a whole request, through the application).
Seeds and new inputs go into the folder named. Guided by Python code; the C libraries below are not
instrumented and are only driven. Anything but the errors a room names ends the run, its input kept.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=["runtime", "enroll", "service", "python_multipart", "starlette", "fastapi"],
    enable_loader_override=False,
):
    import seeds
    from hammer import wrong
    from inprocess import Sent, Service

    from sayso.runtime.audio import decode
    from sayso.runtime.card import CARD_KEY, read_card
    from sayso.runtime.errors import InputError, ModelError
    from sayso.runtime.live import ENCODINGS, LiveRecording
    from sayso.runtime.model_file import check_self_contained, network_sha256, with_metadata
    from sayso.runtime.speech import SpeechDetector

NETWORK = seeds.cards()["network.onnx"]


def audio(data: bytes) -> None:
    for content_type in (None, "audio/L16;rate=8000;channels=2", data[:60].decode("latin-1")):
        try:
            decoded = decode(data, 2.0, content_type)
        except InputError:
            continue
        assert len(decoded.samples) <= 2 * 16_000 + 64


class Live:
    """Input: two bytes, and what is pushed."""

    def __init__(self) -> None:
        self._detector = SpeechDetector()

    def __call__(self, data: bytes) -> None:
        encoding, size = ENCODINGS[data[0] % len(ENCODINGS)] if data else "opus", data[1:2] or b"\1"
        step = 16 * (size[0] + 1)
        live = LiveRecording(self._detector, encoding, 16_000, 2.0)
        try:
            for at in range(2, len(data), step):
                live.push(data[at : at + step])
            live.finish()
            recording = live.recording()
        except InputError:
            return
        assert 0 < len(recording.samples) <= 2 * 16_000


def model_card(data: bytes) -> None:
    try:
        check_self_contained(data)
        network_sha256(data)
    except ValueError:
        pass
    for model in (data, with_metadata(NETWORK, CARD_KEY, data.decode(errors="replace"))):
        with contextlib.suppress(ModelError):
            read_card(model, "x")


class Requests:
    """Input: the method and target, a line with the content type, and the body."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._service = Service(Path(self._folder.name))

    def __call__(self, data: bytes) -> None:
        start, _, rest = data.partition(b"\n")
        content_type, _, body = rest.partition(b"\n")
        method, _, target = start.decode(errors="replace").partition(" ")
        path, _, query = target.partition("?")
        headers = [(b"authorization", f"Bearer {self._service.key}".encode()), (b"host", b"fuzz")]
        headers.append((b"content-type", content_type))
        half = len(body) // 2
        query_bytes = query.encode(errors="replace")
        sent = Sent(method or "GET", "/" + path.lstrip("/"), query_bytes, headers, [body[:half], body[half:]])
        fault = wrong(sent, self._service.call(sent))
        assert fault is None, fault


def main() -> None:
    name = sys.argv.pop(1)
    seeds.write(name, Path(sys.argv[1]))
    target = {"audio": lambda: audio, "live": Live, "card": lambda: model_card, "requests": Requests}[name]()
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
