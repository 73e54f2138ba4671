"""Recordings as telephones and browsers make them, written by PyAV's own encoders."""

import io

import av
import numpy as np
import soxr

# Container and encoder of FFmpeg, rate, channels, options of the container.
PHONES: dict[str, tuple[str, str, int, str, dict[str, str]]] = {
    "M4A of an iPhone": ("ipod", "aac", 44_100, "mono", {}),
    "M4A without loss": ("ipod", "alac", 44_100, "mono", {}),
    "MP4 in fragments": ("mp4", "aac", 48_000, "stereo", {"movflags": "frag_keyframe+empty_moov"}),
    "MOV": ("mov", "pcm_s16le", 16_000, "mono", {}),
    "3GP with AAC": ("3gp", "aac", 16_000, "mono", {}),
    "3GP with AMR": ("3gp", "libopencore_amrnb", 8_000, "mono", {}),
    "AMR": ("amr", "libopencore_amrnb", 8_000, "mono", {}),
    "AAC": ("adts", "aac", 44_100, "mono", {}),
    "WebM": ("webm", "libopus", 48_000, "mono", {}),
    "WebM of a live recorder": ("webm", "libopus", 48_000, "stereo", {"live": "1"}),
    "CAF without loss": ("caf", "alac", 44_100, "mono", {}),
    "Ogg with FLAC": ("ogg", "flac", 16_000, "mono", {}),
    "MP3 without a count": ("mp3", "libmp3lame", 44_100, "mono", {"write_xing": "0"}),
    "WAV with MP3": ("wav", "libmp3lame", 16_000, "mono", {}),
}


def recorded(name: str, samples: np.ndarray) -> bytes:
    """A file of the kind `name` in PHONES that holds `samples` of 16 kHz."""
    container, codec, rate, layout, options = PHONES[name]
    return muxed(samples, container, codec, rate, layout, options)


def muxed(
    samples: np.ndarray, container: str, codec: str, rate: int, layout: str, options: dict[str, str]
) -> bytes:
    buffer = io.BytesIO()
    at_rate = soxr.resample(samples, 16_000, rate).astype(np.float32)
    with av.open(buffer, "w", format=container, options=options) as out:
        stream = out.add_stream(codec, rate=rate)
        stream.codec_context.layout = layout
        resampler = av.AudioResampler(format=stream.codec_context.format, layout=layout, rate=rate)
        for start in range(0, len(at_rate), rate):
            part = np.tile(at_rate[None, start : start + rate], (1 if layout == "mono" else 2, 1))
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=layout)
            frame.sample_rate, frame.pts = rate, start
            for ready in resampler.resample(frame):
                out.mux(stream.encode(ready))
        for ready in resampler.resample(None):
            out.mux(stream.encode(ready))
        out.mux(stream.encode(None))
    return buffer.getvalue()
