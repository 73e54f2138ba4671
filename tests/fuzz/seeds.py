"""The seed corpus, made when it is needed: synthesised voices in every format, requests, model cards."""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path

import numpy as np
import soundfile as sf
from phone_samples import PHONES, recorded
from runtime_samples import card, toy_network

from sayso.runtime.card import with_card
from sayso.runtime.live import ENCODINGS
from sayso.runtime.opus import OggPackets
from sayso.runtime.synthesis import synthetic_voice

FORMATS = {
    "pcm16.wav": (16_000, "WAV", "PCM_16", 1),
    "float.wav": (8_000, "WAV", "FLOAT", 1),
    "mulaw.wav": (8_000, "WAV", "ULAW", 1),
    "stereo24.wav": (16_000, "WAV", "PCM_24", 2),
    "adpcm.wav": (8_000, "WAV", "MS_ADPCM", 1),
    "gsm.wav": (8_000, "WAV", "GSM610", 1),
    "extensible.wav": (16_000, "WAVEX", "PCM_16", 3),
    "rf64.wav": (8_000, "RF64", "PCM_16", 1),
    "wave64.w64": (8_000, "W64", "PCM_16", 1),
    "voice.aiff": (8_000, "AIFF", "PCM_16", 1),
    "voice.au": (8_000, "AU", "ULAW", 1),
    "alac.caf": (8_000, "CAF", "ALAC_16", 1),
    "voice.flac": (16_000, "FLAC", "PCM_16", 1),
    "eight.flac": (8_000, "FLAC", "PCM_S8", 8),
    "voice.mp3": (16_000, "MP3", "MPEG_LAYER_III", 1),
    "vorbis.ogg": (16_000, "OGG", "VORBIS", 1),
    "opus.ogg": (16_000, "OGG", "OPUS", 1),
}
REQUESTS = {
    "create": b'POST /v1/speakers\napplication/json\n{"id": "bob", "groups": ["a"], "metadata": {"x": [1]}}',
    "change": b'PATCH /v1/speakers/ann\napplication/json\n{"name": "Ann", "status": "enrolled"}',
    "list": b"GET /v1/speakers?limit=5&cursor=MQ\n\n",
    "identify": b"POST /v1/identify?top_k=3&candidates=ann\naudio/wav\nRIFF",
    "form": b"POST /v1/compare\nmultipart/form-data; boundary=x\n--x\r\nContent-Disposition: form-data; "
    b'name="audio"; filename="a"\r\n\r\nRIFF\r\n--x--\r\n',
}


@cache
def audio() -> dict[str, bytes]:
    """A quarter of a second of a synthesised voice in every format, and one long enough to embed."""
    made = {}
    for name, (rate, format, subtype, channels) in FORMATS.items():
        voice = synthetic_voice(0.25)[:: 16_000 // rate]
        file = io.BytesIO()
        sf.write(file, np.repeat(voice[:, None], channels, axis=1), rate, format=format, subtype=subtype)
        made[name] = file.getvalue()
    for name in PHONES:
        made[name.lower().replace(" ", "-")] = recorded(name, synthetic_voice(0.4))
    whole = io.BytesIO()
    sf.write(whole, synthetic_voice(2.5), 16_000, format="OGG", subtype="OPUS")
    return {**made, "enough.ogg": whole.getvalue()}


def streams() -> dict[str, bytes]:
    """Audio of each encoding that a stream may bring, led by two bytes: guided.py says which."""
    voice = synthetic_voice(0.5)
    made = {}
    for number, encoding in enumerate(ENCODINGS):
        subtype = {"pcm_s16le": "PCM_16", "mulaw": "ULAW", "alaw": "ALAW"}.get(encoding)
        file = io.BytesIO()
        raw = {"format": "RAW", "subtype": subtype} if subtype else {"format": "OGG", "subtype": "OPUS"}
        sf.write(file, voice, 16_000, **raw)
        content = file.getvalue()
        if encoding == "opus":
            content = OggPackets().packets(content)[0]
        made[encoding] = bytes([number, 20]) + content
    return made


def cards() -> dict[str, bytes]:
    """Model files of a toy network, and a card."""
    return {
        "model.onnx": with_card(toy_network(), card()),
        "network.onnx": toy_network(),
        "card.json": json.dumps(json.loads(card().to_json())).encode(),
    }


def write(target: str, folder: Path) -> None:
    """The seeds of one of guided.py's targets, as files, which is how libFuzzer takes them."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {"audio": audio, "live": streams, "card": cards, "requests": lambda: REQUESTS}[target]()
    for name, content in made.items():
        (folder / name).write_bytes(content)
