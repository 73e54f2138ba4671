"""`sayso serve`."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Annotated

import structlog
import typer
import uvicorn

from sayso.cli import common
from sayso.enroll.db.lock import only_server
from sayso.enroll.errors import InvalidField, StoreUnavailable
from sayso.service import logs
from sayso.service.access.keys import SCOPES, KeyRing
from sayso.service.app import create_app
from sayso.service.connection import guarded
from sayso.service.drain import GRACE_S, DrainingServer
from sayso.service.engine import Engine
from sayso.service.metrics import Metrics
from sayso.service.settings import Settings
from sayso.service.streaming import MAX_MESSAGE_BYTES

log = structlog.get_logger()
_CHECK_S = 1.0  # that a start waits for the check of the file

TENANT, ADMIN_LABEL = "default", "SAYSO_ADMIN_KEY"


def register(app: typer.Typer) -> None:
    app.command()(serve)


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
) -> None:
    """Run the service."""
    chosen = common.settings(host=host, port=port)
    logs.configure(chosen.log_level)
    if chosen.store is not None:  # which several servers may share
        _serve(chosen)
        return
    with only_server(chosen.store_path, f"http://{chosen.host}:{chosen.port}"):
        _serve(chosen)


def _serve(chosen: Settings) -> None:
    engine = Engine(chosen, Metrics())
    app = create_app(engine)
    config = uvicorn.Config(
        app,
        host=chosen.host,
        port=chosen.port,
        log_config=None,
        access_log=False,
        server_header=False,
        http=guarded(chosen.client_timeout_s, chosen.max_connections),
        ssl_certfile=chosen.tls_cert,
        ssl_keyfile=chosen.tls_key,
        timeout_graceful_shutdown=round(GRACE_S),
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_max_queue=4,
        # A pong waits behind audio that is still being worked on, which may take a request's time.
        ws_ping_timeout=20.0 + chosen.request_timeout_s,
    )
    try:
        checking = threading.Thread(target=_check_file, args=(engine,), name="file check", daemon=True)
        checking.start()
        engine.index.warm()
        # A large file takes longer to read than a start may. Until it is read, what is damaged in it gives
        # errors, never wrong answers: every vector is sealed.
        checking.join(_CHECK_S)
        engine.check()
        listening = config.bind_socket()  # before anything is promised
        _announce(engine, chosen, _first_key(engine.keys, chosen))
    except BaseException:
        engine.close()
        raise
    DrainingServer(config, app, chosen.drain_s).run(sockets=[listening])


def _check_file(engine: Engine) -> None:
    """Read the whole file; damage makes the service not ready, whenever it is found."""
    with suppress(StoreUnavailable):  # closed meanwhile
        engine.damage = engine.store.check()
    if engine.damage:
        log.error("store_damaged", detail=engine.damage[0])


def _first_key(keys: KeyRing, chosen: Settings) -> str | None:
    """Install the operator's key, or make one where there is none yet; the text of a new one."""
    if chosen.admin_key is not None:
        installed = keys.install_key(chosen.admin_key.get_secret_value(), TENANT, SCOPES, ADMIN_LABEL)
        if installed.revoked_at is not None:
            raise InvalidField("SAYSO_ADMIN_KEY", "this key was revoked: choose another")
        for key in keys.list_keys():
            if key.label == ADMIN_LABEL and key.id != installed.id and key.revoked_at is None:
                keys.revoke_key(key.id)  # an earlier value of the setting must not go on working
        return None
    if keys.has_keys():
        return None
    return keys.create_key(TENANT, SCOPES, "made at the first start")[1]


def _announce(engine: Engine, chosen: Settings, new_key: str | None) -> None:
    tls = chosen.tls_cert is not None
    url = f"{'https' if tls else 'http'}://{chosen.host}:{chosen.port}"
    where = chosen.data_dir if chosen.store is None else engine.store.database.path
    lines = [f"Sayso answers on {url} (API: {url}/docs), keeping its data in {where}"]
    for model in engine.models.values():
        point = model.policy.operating_point if model.policy else None
        state = f"threshold {point.source}" if point else "NOT CALIBRATED: it will refuse to decide"
        lines.append(f"  model {model.name} on {model.embedder.provider}, {state}")
        outdated = engine.store.recordings.outdated(model.embedder.sha256)
        if outdated:
            kept = sum(speaker.recordings for speaker in outdated)
            lines.append(
                f"    {len(outdated)} speakers were enrolled without it: {kept} are embedded again from kept "
                f"recordings, {len(outdated) - kept} must enrol again "
                f"(sayso speakers outdated --model {model.name})"
            )
    if not tls and chosen.host not in ("127.0.0.1", "::1", "localhost"):
        lines.append(
            "  without TLS: keys and voices travel in the clear unless a proxy in front encrypts them"
        )
    if new_key:
        lines += [
            "",
            "A first API key was made. It is shown only now; keep it:",
            f"  export SAYSO_KEY={new_key}",
            "Try it with any recording of a voice:",
            f'  curl -H "Authorization: Bearer {new_key}" -H "Content-Type: application/json" \\',
            f'       -d \'{{"id": "alice"}}\' {url}/v1/speakers',
            f'  curl -H "Authorization: Bearer {new_key}" -F audio=@alice.wav \\',
            f"       {url}/v1/speakers/alice/enrollments",
            "",
        ]
    typer.echo("\n".join(lines))
