"""Which container a recording comes in, by its first bytes, and what to say of bytes that are none."""

from __future__ import annotations

from typing import Literal

from sayso.runtime.errors import UndecodableAudio

Container = Literal[
    "wav", "rf64", "w64", "aiff", "au", "caf", "flac", "ogg", "mp3", "mp4", "webm", "amr", "aac"
]
READ = "WAV, FLAC, MP3, Ogg Vorbis, Ogg Opus, M4A, 3GP, WebM, AAC or AMR"
SEND = f"send {READ}"
UTF8_MARK = b"\xef\xbb\xbf"
_STARTS: dict[bytes, Container] = {
    b"fLaC": "flac",
    b"OggS": "ogg",
    b"RF64": "rf64",
    b"BW64": "rf64",
    b"riff\x2e\x91\xcf\x11": "w64",
    b"caff": "caf",
    b".snd": "au",
    b"dns.": "au",
    b"ID3": "mp3",
    b"#!AMR\n": "amr",
    b"#!AMR-WB\n": "amr",
    b"\x1a\x45\xdf\xa3": "webm",
}
_MP4_BOXES = (b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"wide", b"free", b"skip")
# What people send by mistake, by its first bytes: what it is, and the way out.
_MISTAKES = {
    b"data:": "this is a data URL: send the bytes that it encodes, not its text",
    b"UklGR": "this is base64 text: decode it and send the bytes",  # RIFF
    b"T2dnUw": "this is base64 text: decode it and send the bytes",  # OggS
    b"ZkxhQ": "this is base64 text: decode it and send the bytes",  # fLaC
    b"SUQz": "this is base64 text: decode it and send the bytes",  # ID3
    b"//uQ": "this is base64 text: decode it and send the bytes",  # an MP3 frame
    b"GkXfo": "this is base64 text: decode it and send the bytes",  # WebM
    b"AAAA": "this is base64 text: decode it and send the bytes",  # MP4
    b"{": f"this is JSON, not audio: {SEND} as the body or as the form field `audio`",
    b"[": f"this is JSON, not audio: {SEND} as the body or as the form field `audio`",
    b"<": f"this is a page of HTML or XML, not audio: {SEND}",
    b"#EXTM3U": f"this is a playlist, not audio: {SEND}",
    b"PK\x03\x04": f"this is a ZIP archive: unpack it and {SEND}",
    b"\x1f\x8b": f"this is a gzip archive: unpack it and {SEND}",
    b"\x30\x26\xb2\x75": f"WMA (ASF) is not read: convert it, for example to FLAC, or {SEND}",
    b"NIST_1A": f"NIST SPHERE is not read: convert it with `sph2pipe -f wav` or `sox`, or {SEND}",
    b"MThd": "MIDI holds notes, no voice: send a recording",
    b"wvpk": f"WavPack is not read: convert it, for example to FLAC, or {SEND}",
    b"MAC ": f"Monkey's Audio is not read: convert it, for example to FLAC, or {SEND}",
    b"FLV": f"Flash video is not read: convert it, for example to FLAC, or {SEND}",
    b"#!AMR_MC": f"AMR of several channels is not read: send one channel, or {SEND}",
    b"\xff\xfe": f"this is text in UTF-16, not audio: {SEND}",
    b"\xfe\xff": f"this is text in UTF-16, not audio: {SEND}",
}


def container_of(data: bytes) -> Container:
    """The container that `data` begins like. Raises `UndecodableAudio` that names what it is instead."""
    container = signed_container(data)
    if container is not None:
        return container
    if len(data) > 3 and data[0] == 0xFF and data[1] >= 0xE0:
        layer = data[1] >> 1 & 3
        if layer == 0 and data[1] >= 0xF0:
            return "aac"
        if layer in (1, 2) and data[1] >> 3 & 3 != 1:  # layers III and II of MPEG 1, 2 and 2.5
            return "mp3"
    text = data[:64].removeprefix(UTF8_MARK).lstrip()
    for start, sentence in _MISTAKES.items():
        if text.startswith(start):
            raise UndecodableAudio(sentence)
    if data[:4] in (b"RIFF", b"FORM"):
        kind = data[8:12].decode("ascii", "replace").strip()
        raise UndecodableAudio(f"this is a {data[:4].decode()} file of the kind {kind!r}, not audio: {SEND}")
    raise UndecodableAudio(
        f"this is no audio format that is read: {SEND}. Samples without a container need a content type "
        "that describes them, for example audio/L16;rate=16000 or audio/basic"
    )


def signed_container(data: bytes) -> Container | None:
    """The container whose signature `data` begins with: several bytes that samples hardly begin with."""
    kind, form = data[:4], data[8:12]
    if kind in (b"RIFF", b"RIFX") and form == b"WAVE":
        return "wav"
    if kind == b"FORM" and form in (b"AIFF", b"AIFC"):
        return "aiff"
    if data[4:8] in _MP4_BOXES:
        return "mp4"
    return next((container for start, container in _STARTS.items() if data.startswith(start)), None)
