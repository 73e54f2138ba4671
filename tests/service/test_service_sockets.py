"""Clients that misbehave on real sockets against the real process: nothing they do lasts."""

import contextlib
import json
import os
import resource
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psutil
import pytest
from process import Server
from sounds import voice_of

PATIENCE_S = 60.0  # far beyond what any wait here takes
CLIENT_TIMEOUT_S = 2


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(
        tmp_path_factory.mktemp("sockets") / "data",
        SAYSO_CLIENT_TIMEOUT_S=str(CLIENT_TIMEOUT_S),
        SAYSO_MAX_CONNECTIONS="40",
        SAYSO_MAX_BODY_BYTES="3000000",
        SAYSO_MAX_HELD_BYTES="8000000",
        SAYSO_RATE_LIMIT="0",
    )
    running.client.post("/v1/speakers", json={"id": "ann"})
    yield running
    running.close()


@pytest.fixture(autouse=True)
def _goes_on(server: Server) -> Iterator[None]:
    """After each test everybody is served, nothing is held, and only the tests' own client is connected."""
    yield
    assert server.process.poll() is None
    eventually(lambda: server.client.get("/readyz").status_code == 200)
    eventually(lambda: b"sayso_held_bytes 0.0" in server.client.get("/metrics").content)
    assert b"sayso_in_flight 0.0" in server.client.get("/metrics").content
    eventually(lambda: connections(server) <= 1)


def eventually(true: object) -> None:
    stop = time.monotonic() + PATIENCE_S
    while True:
        try:
            if true():  # type: ignore[operator]
                return
        except httpx2.TransportError:
            pass
        assert time.monotonic() < stop
        time.sleep(0.1)


def connections(server: Server) -> int:
    """Sockets the server process has open to clients, whatever their state."""
    found = psutil.Process(server.process.pid).net_connections("tcp")
    return sum(c.laddr.port == server.port and c.status != "LISTEN" for c in found)


def connect(server: Server, receive_buffer: int | None = None) -> socket.socket:
    made = socket.socket()
    if receive_buffer:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    made.settimeout(PATIENCE_S)
    made.connect(("127.0.0.1", server.port))
    return made


def head(server: Server, start: str, *lines: str) -> bytes:
    named = [f"{start} HTTP/1.1", "Host: x", f"Authorization: Bearer {server.key}", *lines]
    return "\r\n".join([*named, "", ""]).encode()


def until_closed(made: socket.socket) -> bytes:
    """What arrives until the server ends the connection."""
    received = b""
    try:
        while part := made.recv(65_536):
            received += part
    except ConnectionResetError:
        pass
    return received


def status(received: bytes) -> int:
    return int(received.split(b" ", 2)[1])


@pytest.mark.parametrize(
    "sent",
    [b"", b"G", b"GET /healthz HT", b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ", b"\r\n\r\n"],
    ids=["nothing", "a letter", "half a line", "half a header", "empty lines"],
)
def test_a_request_that_never_comes(server: Server, sent: bytes) -> None:
    with connect(server) as made:
        made.sendall(sent)
        until_closed(made)


def test_a_request_that_stalls_after_a_good_one(server: Server) -> None:
    with connect(server) as made:
        made.sendall(head(server, "GET /healthz") + b"GET /heal")
        assert b'{"status":"ok"}' in until_closed(made)


@pytest.mark.parametrize("path", ["/v1/identify", "/v1/speakers"])
@pytest.mark.parametrize("framing", ["Content-Length: 3000", "Transfer-Encoding: chunked"])
def test_a_body_that_never_comes(server: Server, path: str, framing: str) -> None:
    with connect(server) as made:
        made.sendall(head(server, f"POST {path}", framing, "Content-Type: application/json"))
        received = until_closed(made)
    assert status(received) == 408
    assert json.loads(received.partition(b"\r\n\r\n")[2])["code"] == "upload_too_slow"


def test_a_body_that_trickles(server: Server) -> None:
    """Some bytes now and then do not buy time."""
    with connect(server) as made:
        made.sendall(head(server, "POST /v1/identify", "Content-Length: 1000000"))
        made.settimeout(0.2)
        received = b""
        stop = time.monotonic() + PATIENCE_S
        while b"\r\n\r\n" not in received:
            assert time.monotonic() < stop
            try:
                made.sendall(b"x" * 100)
                received += made.recv(65_536)
            except TimeoutError:
                continue
            except (BrokenPipeError, ConnectionResetError):
                break
    assert status(received) == 408


def test_a_head_without_end(server: Server) -> None:
    with connect(server) as made:
        made.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: ")
        received = b""
        try:
            for _ in range(64):
                made.sendall(b"y" * 65_536)
        except (BrokenPipeError, ConnectionResetError):
            pass
        received = until_closed(made)
    assert not received or status(received) == 431


def test_a_body_without_end(server: Server) -> None:
    for framing in ("Content-Length: 99999999999", "Transfer-Encoding: chunked"):
        with connect(server) as made:
            made.sendall(head(server, "POST /v1/identify", framing, "Connection: close"))
            chunk = b"10000\r\n" + b"z" * 65_536 + b"\r\n"
            try:
                for _ in range(200):
                    made.sendall(chunk)
            except (BrokenPipeError, ConnectionResetError):
                pass
            received = until_closed(made)
        assert not received or status(received) == 413


def test_an_answer_that_is_never_read(server: Server) -> None:
    """Many large answers are asked for and left lying in the server's buffers."""
    for i in range(40):
        made = {"id": f"fat{i}", "metadata": {"x": "y" * 8_000}}
        assert server.client.post("/v1/speakers", json=made).status_code in (201, 409)
    before = psutil.Process(server.process.pid).memory_info().rss
    unread = [connect(server, receive_buffer=4_096) for _ in range(5)]
    for made in unread:
        made.sendall(head(server, "GET /v1/speakers?limit=1000") * 40)  # pipelined: 12 MB of answers
    eventually(lambda: connections(server) <= 1)  # the server let go, though no client closed
    for made in unread:
        made.close()
    assert psutil.Process(server.process.pid).memory_info().rss - before < 60e6


def frame(kind: int, content: bytes) -> bytes:
    """One WebSocket frame of a client, masked with zeros (RFC 6455, section 5)."""
    size = bytes([128 | len(content)]) if len(content) < 126 else b"\xfe" + len(content).to_bytes(2, "big")
    return bytes([128 | kind]) + size + bytes(4) + content


def test_a_stream_that_is_never_read(server: Server) -> None:
    """Its place and its connection are given back, though it goes on sending and closes nothing."""
    upgrade = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
    with connect(server, receive_buffer=4_096) as made:
        made.sendall(head(server, "GET /v1/stream", *upgrade, "Sec-WebSocket-Key: " + "A" * 22 + "=="))
        assert status(made.recv(4_096)) == 101
        made.sendall(frame(1, b'{"type": "start", "call": "identify"}'))
        eventually(lambda: b"sayso_streams 1.0" in server.client.get("/metrics").content)
        sending = frame(2, bytes(2)) * 1_000  # each is answered
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while True:
                made.sendall(sending)
        eventually(lambda: b"sayso_streams 0.0" in server.client.get("/metrics").content)
        eventually(lambda: connections(server) <= 1)


def test_clients_that_leave(server: Server) -> None:
    """In the middle of a body, and while their recording is being worked on."""
    whole = voice_of("ann", 1, 30)
    for sent in (whole[:1000], whole[:-1], whole):
        for _ in range(8):
            made = connect(server)
            made.sendall(head(server, "POST /v1/embeddings", f"Content-Length: {len(whole)}") + sent)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # close with a reset
            made.close()
    eventually(lambda: b"sayso_in_flight 0.0" in server.client.get("/metrics").content)


def test_more_connections_than_there_may_be(server: Server) -> None:
    made = [connect(server) for _ in range(60)]
    answered = [until_closed(one) for one in reversed(made)]
    for one in made:
        one.close()
    assert {status(answer) for answer in answered if answer} == {503}
    assert sum(bool(answer) for answer in answered) >= 20


def test_slow_uploads_together_are_held_to_the_budget(server: Server) -> None:
    """Four of 2.9 MB cannot all be held in 8 MB; who is within the budget is not turned away."""
    made = [connect(server) for _ in range(4)]
    for one in made:
        one.sendall(head(server, "POST /v1/embeddings", "Content-Length: 2999999") + b"x" * 2_900_000)
    found = sorted(status(until_closed(one)) for one in made)
    for one in made:
        one.close()
    assert found == [408, 408, 429, 429] or found == [408, 408, 408, 429], found


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS greeting
        b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/speakers?cursor=\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET http://[::1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /v1/speakers HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/speakers HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /v1/speakers HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n",
        b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\0" * 10_000,
        os.urandom(4_096),
    ],
)
def test_bytes_that_are_no_http(server: Server, garbage: bytes) -> None:
    with connect(server) as made:
        made.sendall(garbage)
        received = until_closed(made)
    assert not received or status(received) < 500


def test_files_are_not_leaked(server: Server) -> None:
    process = psutil.Process(server.process.pid)
    server.client.get("/readyz")
    before = process.num_fds()
    for _ in range(200):
        with connect(server) as made:
            made.sendall(head(server, "POST /v1/identify", "Content-Length: 1000") + b"x")
    eventually(lambda: connections(server) <= 1)
    assert process.num_fds() <= before + 8
    assert before < resource.getrlimit(resource.RLIMIT_NOFILE)[0]


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1:DeprecationWarning")
def test_https(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", key, "-out", certificate],
        capture_output=True,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("no openssl to make a certificate with")
    server = Server(tmp_path / "data", certificate, SAYSO_TLS_CERT=str(certificate), SAYSO_TLS_KEY=str(key))
    try:
        assert f"https://127.0.0.1:{server.port}" in server.log.read_text()
        answer = server.client.get("/v1/speakers")
        assert answer.status_code == 200
        assert "max-age" in answer.headers["strict-transport-security"]
        with socket.create_connection(("127.0.0.1", server.port)) as plain:
            old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
            old.maximum_version = ssl.TLSVersion.TLSv1_1
            with pytest.raises((ssl.SSLError, ConnectionResetError)):
                old.wrap_socket(plain)
    finally:
        server.close()


def test_nobody_is_worked_for_who_has_gone(server: Server) -> None:
    long = voice_of("ann", 1, 40)
    asked = "POST /v1/embeddings"
    for _ in range(12):
        with connect(server) as made:
            made.sendall(head(server, asked, f"Content-Length: {len(long)}") + long)
    eventually(lambda: b"sayso_in_flight 0.0" in server.client.get("/metrics").content)
    text = server.client.get("/metrics").text
    assert 'sayso_requests_total{method="POST",route="/v1/embeddings",status="499"}' in text
