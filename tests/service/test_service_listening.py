"""The address: bound or refused with a sentence, written as a URL, and what the environment says of it."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from process import Server

from sayso.service.listening import CannotListen, bound, url_of

# What the kubelet sets in a pod of a namespace with a Service called `sayso`.
SERVICE_LINKS = {
    "SAYSO_PORT": "tcp://10.96.0.12:8000",
    "SAYSO_SERVICE_HOST": "10.96.0.12",
    "SAYSO_SERVICE_PORT": "80",
    "SAYSO_PORT_80_TCP": "tcp://10.96.0.12:80",
    "SAYSO_PORT_80_TCP_PROTO": "tcp",
    "SAYSO_PORT_80_TCP_PORT": "80",
    "SAYSO_PORT_80_TCP_ADDR": "10.96.0.12",
}


def serve(data: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("SAYSO_")}
    return subprocess.run(
        [sys.executable, "-m", "sayso", *words],
        env={**inherited, "SAYSO_DATA_DIR": str(data), **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("host", "tls", "url"),
    [
        ("127.0.0.1", False, "http://127.0.0.1:8000"),
        ("::1", False, "http://[::1]:8000"),
        ("[::1]", True, "https://[::1]:8000"),
        ("fe80::1%eth0", False, "http://[fe80::1%25eth0]:8000"),
        ("voice.example", True, "https://voice.example:8000"),
    ],
)
def test_an_address_as_a_url(host: str, tls: bool, url: str) -> None:
    assert url_of(host, 8000, tls) == url


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]"])
def test_a_taken_port_is_named(host: str) -> None:
    if ":" in host and not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    with bound(host, 0) as first:
        first.listen()
        port = first.getsockname()[1]
        with pytest.raises(CannotListen, match=rf"port {port} of .* is taken .* SAYSO_PORT"):
            bound(host, port)


def test_a_foreign_address_is_named() -> None:
    for host in ("192.0.2.1", "no-such-host.invalid"):
        with pytest.raises(CannotListen, match=f"{host} is no address of this machine"):
            bound(host, 0)


def test_a_pod_with_service_links_starts_on_the_default_port(tmp_path: Path) -> None:
    """The port is taken here, so that the process says which it is and ends."""
    with socket.socket() as taken:
        try:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(("127.0.0.1", 8000))
            taken.listen()
        except OSError:
            pass  # by another program: as good
        done = serve(tmp_path / "data", "serve", **SERVICE_LINKS)
    assert (done.returncode, done.stdout) == (1, "")
    assert "port 8000 of 127.0.0.1 is taken" in done.stderr
    keys = serve(tmp_path / "data", "keys", "list", **SERVICE_LINKS)
    assert keys.returncode == 0, keys.stderr


def test_a_mistyped_setting_is_named_at_the_start_and_by_doctor(tmp_path: Path) -> None:
    sentence = "SAYSO_ADMINKEY is no setting: did you mean SAYSO_ADMIN_KEY?"
    server = Server(tmp_path / "data", SAYSO_ADMINKEY="a-key-of-sixteen-or-more")
    try:
        assert sentence in server.log.read_text()
    finally:
        server.close()
    said = serve(tmp_path / "data", "doctor", SAYSO_ADMINKEY="a-key-of-sixteen-or-more").stdout
    assert sentence in said


def test_pages_answer_on_an_ipv6_address(tmp_path: Path) -> None:
    """The announced URL is one that can be opened."""
    try:
        with bound("::1", 0) as free:
            port = free.getsockname()[1]
    except CannotListen:
        pytest.skip("no IPv6 here")
    process = subprocess.Popen(
        [sys.executable, "-m", "sayso", "serve", "--host", "::1", "--port", str(port)],
        env={**os.environ, "SAYSO_DATA_DIR": str(tmp_path / "data")},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        announced = process.stdout.readline()
        assert f"Sayso answers on http://[::1]:{port} " in announced
        assert httpx2.get(f"http://[::1]:{port}/healthz", timeout=60).status_code == 200
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
