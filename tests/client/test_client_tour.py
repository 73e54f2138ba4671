"""The whole tour with each client against a live server."""

import asyncio
import inspect
import io
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import soundfile as sf
from process import Server
from sayso_client import (
    AsyncClient,
    Client,
    Conflict,
    NotFound,
    StreamEnded,
    TooLittleSpeech,
    Unauthorized,
    Unreachable,
)
from sounds import encode, voice_of


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    # Thresholds that part the synthetic voices, which are more alike than people are.
    set_by_hand = '{"baseline": 0.95, "nested": 0.9}'
    folder = tmp_path_factory.mktemp("client")
    running = Server(
        folder / "data",
        SAYSO_THREADS="1",
        SAYSO_REPLAY_DAYS="0",
        SAYSO_ATTEMPTS_BEFORE_DELAY="0",
        SAYSO_THRESHOLDS=set_by_hand,
    )
    yield running
    running.close()


@pytest.fixture(params=["sync", "async"])
def tour(request: pytest.FixtureRequest, server: Server) -> Callable[..., None]:
    """Runs an async tour with the async client, and with the sync one as if it were async."""

    @asynccontextmanager
    async def opened(**options: Any) -> AsyncIterator[Any]:
        url, key = f"http://127.0.0.1:{server.port}", options.pop("key", server.key)
        if request.param == "async":
            async with AsyncClient(url, key, **options) as client:
                yield client
        else:
            with Client(url, key, **options) as client:
                yield _Awaitable(client)

    return lambda steps, **options: asyncio.run(steps(opened(**options), request.param))


class _Awaitable:
    """A sync object whose results can be awaited, iterated and entered as the async ones are."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found) or name == "result":
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            if name == "stream":
                return _Awaitable(found(*args, **kwargs))
            if name == "speakers":
                return _each(found(*args, **kwargs))
            return _later(found, *args, **kwargs)

        return call

    async def __aenter__(self) -> Any:
        return _Awaitable(self._inner.__enter__())

    async def __aexit__(self, *error: Any) -> None:
        self._inner.__exit__(*error)


async def _later(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return await asyncio.to_thread(call, *args, **kwargs)


async def _each(items: Iterator[Any]) -> AsyncIterator[Any]:
    for item in items:
        yield item


def test_the_tour(tour: Callable[..., None]) -> None:
    async def steps(opened: Any, kind: str) -> None:
        async with opened as sayso:
            ann = f"ann-{kind}"
            made = await sayso.create_speaker(ann, name="Ann", groups=["crew"], metadata={"shift": 2})
            assert (made.status, made.metadata, made.created_at.tzinfo is not None) == (
                "enrolling",
                {"shift": 2},
                True,
            )
            first = await sayso.enroll(ann, voice_of("ann", 1, 6))
            assert first.status == "enrolling"
            assert first.remaining_speech_s > 0
            added = await sayso.enroll(ann, io.BytesIO(voice_of("ann", 2, 9)))
            assert (added.status, added.enrollment.speaker_id) == ("enrolled", ann)

            accepted = await sayso.verify(ann, voice_of("ann", 3))
            assert (accepted.decision, accepted.model.name) == ("accept", "nested")
            assert (await sayso.verify(ann, voice_of("bob", 1))).decision == "reject"
            assert (await sayso.verify(ann, voice_of("ann", 3), model="nested")).model.name == "nested"
            found = await sayso.identify(voice_of("ann", 3), candidates=[ann], top_k=1)
            assert (found.speaker_id, found.searched) == (ann, 1)
            nobody = await sayso.identify(voice_of("ann", 3), group="nobody")
            assert (nobody.decision, nobody.candidates) == ("no_match", [])
            same = await sayso.compare(voice_of("ann", 1), voice_of("ann", 3))
            assert (same.decision, len(same.audio)) == ("accept", 2)
            assert len((await sayso.embedding(voice_of("ann", 1))).embedding) == 512
            assert [m.name for m in await sayso.models()] == ["nested", "baseline"]

            changed = await sayso.update_speaker(ann, groups=["crew", "night"])
            assert changed.groups == ["crew", "night"]
            assert ann in [one.id async for one in sayso.speakers(group="night")]
            listed = await sayso.enrollments(ann)
            assert [e.id for e in listed] == [first.enrollment.id, added.enrollment.id]
            await sayso.delete_enrollment(ann, listed[0].id)
            assert (await sayso.speaker(ann)).enrollments == 1

            with pytest.raises(Conflict):
                await sayso.create_speaker(ann)
            with pytest.raises(TooLittleSpeech) as short:
                await sayso.identify(encode(sf.read(io.BytesIO(voice_of("ann", 1)))[0][:8000]))
            assert short.value.required_speech_s == 1.5
            await sayso.delete_speaker(ann)
            with pytest.raises(NotFound):
                await sayso.speaker(ann)

    tour(steps)


def test_a_stream_from_enrolment_to_decision(tour: Callable[..., None]) -> None:
    def pieces(data: bytes) -> list[bytes]:
        return [data[44:][i : i + 3200] for i in range(0, len(data) - 44, 3200)]

    async def steps(opened: Any, kind: str) -> None:
        async with opened as sayso:
            bob = f"bob-{kind}"
            await sayso.create_speaker(bob)
            async with sayso.stream("enroll", speaker_id=bob) as stream:
                assert stream.started.required_speech_s == 10.0
                for piece in pieces(voice_of("bob", 1, 16)):
                    (event,) = await stream.send(piece)
                enrolled = await stream.stop()
            assert event.remaining_speech_s == 0
            assert (enrolled.type, enrolled.result.status) == ("enrolled", "enrolled")

            events = []
            async with sayso.stream("verify", speaker_id=bob) as stream:
                for piece in pieces(voice_of("bob", 2, 6)):
                    events += await stream.send(piece)
                last = await stream.stop()
            decisions = [event for event in events if event.type == "decision"]
            assert decisions[0].after_enough_speech_ms > 0
            assert (last.result.decision, last.ended) == ("accept", "stopped")
            async with sayso.stream("identify", candidates=[bob]) as stream:
                for piece in pieces(voice_of("bob", 3, 40)):
                    await stream.send(piece)
                    if stream.final:
                        break
                found = await stream.stop()
            assert (found.result.speaker_id, found.ended) == (bob, "enough")

            with pytest.raises(NotFound):
                async with sayso.stream("verify", speaker_id="nobody"):
                    pass
            async with sayso.stream("verify", speaker_id=bob) as stream:
                await stream.send(bytes(3200))
                with pytest.raises(TooLittleSpeech):
                    await stream.stop()

    tour(steps)


def test_a_wrong_key(tour: Callable[..., None]) -> None:
    async def steps(opened: Any, kind: str) -> None:
        async with opened as sayso:
            with pytest.raises(Unauthorized):
                await sayso.models()
            with pytest.raises(Unauthorized):
                async with sayso.stream("identify"):
                    pass

    tour(steps, key="sayso_wrong")


def test_a_server_that_is_killed(tmp_path: Path) -> None:
    server = Server(
        tmp_path / "data", SAYSO_THREADS="1", SAYSO_REPLAY_DAYS="0", SAYSO_ATTEMPTS_BEFORE_DELAY="0"
    )
    try:
        with Client(f"http://127.0.0.1:{server.port}", server.key, retries=0) as sayso:
            with sayso.stream("identify") as stream:
                stream.send(bytes(3200))
                server.kill()
                with pytest.raises(StreamEnded):
                    stream.stop()
            with pytest.raises(Unreachable):
                sayso.models()
            with pytest.raises(Unreachable), sayso.stream("identify"):
                pass
    finally:
        server.close()


def test_both_clients_have_the_same_methods() -> None:
    def public(kind: type) -> set[str]:
        return {name for name, _ in inspect.getmembers(kind) if not name.startswith("_")}

    assert public(Client) - {"close"} == public(AsyncClient) - {"aclose"}
