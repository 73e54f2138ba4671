"""The address that the service listens on: its socket, and how it is written for people."""

from __future__ import annotations

import errno
import socket
import sys


class CannotListen(OSError):
    """The address cannot be listened on; the message says why and what to do."""


def url_of(host: str, port: int, tls: bool = False) -> str:
    """The URL of an address; an IPv6 address stands in brackets: `http://[::1]:8000`."""
    host = host.strip("[]")
    shown = f"[{host.replace('%', '%25')}]" if ":" in host else host
    return f"{'https' if tls else 'http'}://{shown}:{port}"


def bound(host: str, port: int) -> socket.socket:
    """A TCP socket bound to the address, IPv4 or IPv6, which does not listen yet; raises `CannotListen`."""
    host = host.strip("[]")
    opened: socket.socket | None = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        opened = socket.socket(family, kind, protocol)
        if sys.platform != "win32":  # there it would let two programs share the port
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
    except OSError as error:
        if opened is not None:
            opened.close()
        raise CannotListen(_reason(error, host, port)) from error
    return opened


def _reason(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} of {host} is taken by another program: "
            f"choose another with --port or SAYSO_PORT, or stop that program"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            f"port {port} of {host} is reserved for administrators: "
            f"choose one from 1024 with --port or SAYSO_PORT"
        )
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is no address of this machine: choose one with --host or SAYSO_HOST"
    return f"port {port} of {host} cannot be listened on: {error.strerror}"
