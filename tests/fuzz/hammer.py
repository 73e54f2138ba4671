"""Sends malformed and mutated requests to every route and stream, in this process; counts what came back.

    PYTHONPATH=.:tests/support:tests/runtime python tests/fuzz/hammer.py --count 100000 --seed 1

It fails on an answer of 500 and above, on an exception or a hang, on an error that is no problem document,
and when memory has grown by more than the bound from a tenth of the requests to the last one.
"""

from __future__ import annotations

import argparse
import collections
import gc
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from inprocess import Answer, Sent, Service, Talk
from mutations import Mutator

GROWTH_BOUND = 64 * 2**20  # bytes


def wrong(sent: Sent | Talk, answer: Answer) -> str | None:
    """What an answer must never be, in words; None for a good one."""
    if answer.status == 0 and not sent.leaves:
        return "no answer"
    if isinstance(sent, Talk):
        return _wrong_last_word(answer)
    if answer.status >= 500:
        return f"{answer.status}: {answer.body[:300]!r}"
    if answer.status >= 400 and answer.status != 499 and sent.method != "HEAD":
        if _kind(sent) == "pages" and answer.status in (400, 416) and b"ange" in answer.body:
            return None  # starlette's plain words about a part of a page that cannot be
        if b"x-ms-error-code" in answer.headers:
            azure = json.loads(answer.body)["error"]
            return None if azure["code"] and len(answer.body) < 2_000 else f"odd: {answer.body[:200]!r}"
        if answer.headers.get(b"content-type") != b"application/problem+json":
            return f"{answer.status} is no problem document: {answer.body[:200]!r}"
        problem = json.loads(answer.body)
        if problem["status"] != answer.status or not problem["code"] or len(answer.body) > 25_000:
            return f"an odd problem document: {answer.body[:200]!r}"
    return None


def _wrong_last_word(answer: Answer) -> str | None:
    """A stream ends with its result and 1000, or with a problem document and its status in the code."""
    last = json.loads(answer.body) if answer.body else {}
    if answer.status in (0, 1000):  # 0: the client left
        return None if answer.status == 0 or last.get("final") else f"no last word: {answer.body[:200]!r}"
    problem = last.get("problem", {})
    if not 4400 <= answer.status < 4500 or problem.get("status") != answer.status - 4000:
        return f"{answer.status}: {answer.body[:300]!r}"
    return None if problem["code"] and len(answer.body) < 25_000 else f"odd: {answer.body[:200]!r}"


def hammer(count: int, seed: int, folder: Path, progress: bool = False) -> dict[str, Any]:
    """Send `count` requests; the report. Raises AssertionError with the request that went wrong."""
    service = Service(folder)
    statuses: collections.Counter[int] = collections.Counter()
    slowest, began, process = 0.0, time.monotonic(), psutil.Process()
    early = peak = 0
    try:
        mutator = Mutator(seed, service.app, service.key)
        kinds: collections.Counter[str] = collections.Counter()
        for number in range(count):
            sent = mutator.request()
            kinds[_kind(sent)] += 1
            start = time.monotonic()
            try:
                answer = service.call(sent)
            except Exception as error:
                raise AssertionError(f"request {number} of seed {seed}: {error!r} from {sent!r}") from error
            slowest = max(slowest, time.monotonic() - start)
            fault = wrong(sent, answer)
            assert fault is None, f"request {number} of seed {seed}: {fault} to {sent!r}"
            statuses[answer.status] += 1
            if number == count // 10:
                gc.collect()
                early = process.memory_info().rss
            if number % 1000 == 999:
                peak = max(peak, process.memory_info().rss)
                if progress:
                    print(
                        number + 1, dict(statuses), f"{process.memory_info().rss / 2**20:.0f} MiB", flush=True
                    )
        gc.collect()
        grown = process.memory_info().rss - early
        held = service.app.state.held.held
        assert held == 0, f"{held} bytes of bodies are still held"
        assert service.app.state.admission.taken == service.app.state.streams.taken == 0
        assert service.app.state.idempotent_in_flight == set()
        assert grown < GROWTH_BOUND, f"memory grew by {grown / 2**20:.0f} MiB"
    finally:
        service.close()
    return {
        "count": count,
        "seed": seed,
        "seconds": round(time.monotonic() - began, 1),
        "statuses": dict(sorted(statuses.items())),
        "kinds": dict(kinds),
        "slowest_s": round(slowest, 3),
        "rss_after_a_tenth_mib": round(early / 2**20, 1),
        "rss_grown_mib": round(grown / 2**20, 1),
        "rss_peak_mib": round(peak / 2**20, 1),
    }


def _kind(sent: Sent | Talk) -> str:
    if isinstance(sent, Talk):
        return "streams"
    if sent.path in ("/", "/docs") or sent.path.startswith("/console/"):
        return "pages"
    families = {"/v1/": "v1", "/speaker-recognition": "azure"}
    return next((kind for prefix, kind in families.items() if sent.path.startswith(prefix)), "other")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(hammer(chosen.count, chosen.seed, Path(folder), progress=True), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
