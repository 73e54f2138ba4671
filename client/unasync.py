"""Make the sync client of the async one: `python client/unasync.py`. A test fails when it was forgotten."""

import re
from pathlib import Path

PACKAGE = Path(__file__).parent / "sayso_client"
FILES = {"_async.py": "_sync.py", "_async_stream.py": "_sync_stream.py"}
WORDS = {
    r"`_sync(\w*)\.py` is made of this file by `unasync\.py`: change this one": (
        r"Made of `_async\1.py` by `unasync.py`: change that one"
    ),
    r"\basync (def|with|for)\b": r"\1",
    r"\bawait ": "",
    r"\b__a(enter|exit)__\b": r"__\1__",
    r"\baclose\b": "close",
    r"\bAsync(Client|Stream|Iterator)\b": r"\1",
    r"\bAsyncBaseTransport\b": "BaseTransport",
    r"\b_async_stream\b": "_sync_stream",
    r"\basyncio\.sleep\b": "time.sleep",
    r"^import asyncio$": "import time",
    r"\bwebsockets\.asyncio\.": "websockets.sync.",
}


def synced(source: str) -> str:
    """The sync form of async source."""
    for pattern, replacement in WORDS.items():
        source = re.sub(pattern, replacement, source, flags=re.MULTILINE)
    return source


if __name__ == "__main__":
    for theirs, ours in FILES.items():
        (PACKAGE / ours).write_text(synced((PACKAGE / theirs).read_text()))
