"""A telephone line, 8 kHz mu-law in 20 ms packets, over the WebSocket: telephone.py SPEAKER CALL.wav.

It needs `pip install './client[stream]' soundfile soxr`. The recording plays the line. A gateway would pass
on the payloads of its RTP packets instead, and need neither soundfile nor soxr.
"""

import io
import os
import sys
import time
from collections.abc import Iterator

import soundfile as sf
import soxr
from sayso_client import Client

RATE, PACKET = 8_000, 160  # samples of 20 ms


def packets(path: str) -> Iterator[bytes]:
    """The packets of a call, at the pace of a real one."""
    samples, rate = sf.read(path, dtype="float32", always_2d=True)
    narrow = soxr.resample(samples.mean(axis=1), rate, RATE)
    coded = io.BytesIO()
    sf.write(coded, narrow, RATE, format="RAW", subtype="ULAW")
    for at in range(0, len(coded.getvalue()), PACKET):
        time.sleep(PACKET / RATE)
        yield coded.getvalue()[at : at + PACKET]


speaker, call = sys.argv[1:]
with (
    Client(os.environ.get("SAYSO_URL", "http://127.0.0.1:8000"), os.environ["SAYSO_KEY"]) as sayso,
    sayso.stream("verify", speaker_id=speaker, encoding="mulaw", sample_rate=RATE) as stream,
):
    for packet in packets(call):
        for event in stream.send(packet):
            if event.type == "decision":
                answer = event.result
                print(f"{answer.audio.net_speech_s:.1f} s of speech: {answer.decision}, score {answer.score}")
        if stream.final:
            break
    print(f"in the end: {stream.stop().result.decision}")
