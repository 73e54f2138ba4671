"""The whole tour with the Python client: tour.py ALICE-1.wav ALICE-2.wav OTHER.wav."""

import os
import sys

from sayso_client import Client, TooLittleSpeech

alice_1, alice_2, other = sys.argv[1:]

with Client(os.environ.get("SAYSO_URL", "http://127.0.0.1:8000"), os.environ["SAYSO_KEY"]) as sayso:
    sayso.create_speaker("example-alice", groups=["examples"])
    try:
        added = sayso.enroll("example-alice", alice_1)
        print(f"{added.status}, {added.remaining_speech_s:.1f} s of speech still needed")
        for recording in (alice_2, other):
            answer = sayso.verify("example-alice", recording)
            print(f"{recording}: {answer.decision}, score {answer.score}, LLR {answer.llr}")
        answer = sayso.identify(alice_2, group="examples")
        print(f"identify: {answer.decision} {answer.speaker_id or ''}")
        print(f"compare: {sayso.compare(alice_1, other).decision}")
    except TooLittleSpeech as error:
        print(f"record more: {error.net_speech_s} s of speech, {error.required_speech_s} s are needed")
    finally:
        sayso.delete_speaker("example-alice")
