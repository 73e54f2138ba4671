"""`sayso doctor`: says how machine, models, store, keys and network are, and what to mend."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Literal

import onnxruntime as ort
import soundfile as sf
import typer

from sayso.cli import common
from sayso.cli.common import AsJson
from sayso.domain.errors import SaysoError
from sayso.enroll import clock
from sayso.enroll.db.lock import holder
from sayso.enroll.errors import EnrollError
from sayso.enroll.search.index import index_of
from sayso.enroll.store import KEY_FILE, Store
from sayso.runtime.published import catalog
from sayso.runtime.published.catalog import Published
from sayso.runtime.session import CPU, CUDA, available_cores, cuda_driver_present
from sayso.runtime.synthesis import synthetic_voice
from sayso.service.access.keys import KeyRing
from sayso.service.listening import url_of
from sayso.service.metrics import Metrics
from sayso.service.served import ServedModel, load_models
from sayso.service.settings import Settings, mistyped

app = typer.Typer()

State = Literal["ok", "look", "broken"]
_GIB = 2**30
_LEAST_FREE, _LITTLE_FREE = _GIB // 10, _GIB
_KEY_SOON, _BACKUP_OLD = timedelta(days=14), timedelta(days=30)
_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True)
class Finding:
    """The state of one thing: `look` works but may surprise, `broken` keeps the service from its work.

    `told` says what was found, `fix` what to do about it.
    """

    what: str
    state: State
    told: str
    fix: str | None = None


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Look at hardware, provider, models, store and keys, and say what to mend; 1 if something is broken."""
    with common.stages() as stage:
        stage("looking")
        findings = list(examine(common.settings()))
    text = "\n".join(_line(finding) for finding in findings)
    common.show([asdict(finding) for finding in findings], as_json, text)
    if any(finding.state == "broken" for finding in findings):
        raise typer.Exit(1)


def examine(chosen: Settings) -> Iterator[Finding]:
    """Look at everything, in the order in which one thing needs another.

    What cannot be looked at, such as a folder of another user, is broken; the rest is looked at all the same.
    """
    for sentence in mistyped(os.environ):
        yield Finding("settings", "look", sentence, "docs/settings.md lists them")
    yield from _reported("machine", _hardware(chosen))
    yield from _reported("provider", _provider(chosen))
    served: dict[str, ServedModel] = {}
    try:
        served = load_models(chosen, Metrics())
        yield from _models(served)
        yield from _stronger(chosen, served)
    except (SaysoError, OSError) as error:
        yield Finding("models", "broken", str(error))
    finally:
        for model in served.values():
            model.embedder.close()
    yield from _reported("data", _disk(chosen))
    yield from _reported("store", _store(chosen, served))
    yield from _reported("network", _network(chosen))


def _reported(what: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    """Pass findings on; an error of the operating system becomes one of them."""
    try:
        yield from findings
    except OSError as error:
        path = Path(error.filename) if error.filename else None
        if isinstance(error, PermissionError) and path is not None:
            yield Finding(what, "broken", f"{path} cannot be read: {_ownership(path)}", _as_owner(path))
        else:
            yield Finding(what, "broken", f"{error.strerror or error}{f': {path}' if path else ''}")


def _owned(path: Path) -> tuple[Path, str]:
    """The nearest folder or file up from `path` that can be looked at, and its owner's name or number."""
    for place in (path, *path.absolute().parents):
        try:
            return place, place.owner()
        except KeyError:  # a user without a name, as in a container
            return place, str(place.stat().st_uid)
        except OSError:
            continue
    return path, "somebody else"


def _ownership(path: Path) -> str:
    place, owner = _owned(path)
    return f"{place} belongs to {owner}, you are {common.user()}"


def _as_owner(path: Path) -> str:
    return f"run it as the user of the service: sudo -u {_owned(path)[1]} sayso doctor"


def _line(finding: Finding) -> str:
    text = f"{finding.state:<7} {finding.what:<10} {finding.told}"
    return f"{text}\n{'':<18} -> {finding.fix}" if finding.fix else text


def _hardware(chosen: Settings) -> Iterator[Finding]:
    cores = available_cores()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB
    yield Finding(
        "machine",
        "ok",
        f"Sayso {version('sayso')}, Python {platform.python_version()} on {platform.system()} "
        f"{platform.machine()}, {cores} cores, {memory:.0f} GiB memory, "
        f"libsndfile {sf.__libsndfile_version__}",
    )
    quota = _quota()
    if quota is not None and quota < cores and not chosen.threads:
        yield Finding(
            "machine",
            "look",
            f"this container may use {quota:g} of the {cores} cores it sees, and a batch would take all",
            f"SAYSO_THREADS={max(1, int(quota))}",
        )


def _quota() -> float | None:
    """Return the CPUs that the container's quota grants, None without a quota."""
    try:
        allowed, period = _CPU_QUOTA.read_text().split()
    except (OSError, ValueError):
        return None
    return None if allowed == "max" else int(allowed) / int(period)


def _provider(chosen: Settings) -> Iterator[Finding]:
    installed = {d.metadata["Name"] for d in distributions()} & {"onnxruntime", "onnxruntime-gpu"}
    driver, cuda = cuda_driver_present(), CUDA in ort.get_available_providers()
    told = (
        f"onnxruntime {ort.__version__} {'with' if cuda else 'without'} CUDA, "
        f"{'an' if driver else 'no'} NVIDIA driver, SAYSO_PROVIDER={chosen.provider}"
    )
    if len(installed) > 1:
        fix = "pip uninstall onnxruntime onnxruntime-gpu, then install Sayso again"
        yield Finding("provider", "broken", "onnxruntime and onnxruntime-gpu overwrite each other", fix)
    elif chosen.provider in ("cuda", "tensorrt") and not (driver and cuda):
        fix = "make nvidia-smi work here and pip install '.[cuda]', or SAYSO_PROVIDER=cpu"
        yield Finding("provider", "broken", told, fix)
    else:
        yield Finding("provider", "ok", told)


def _models(served: dict[str, ServedModel]) -> Iterator[Finding]:
    voice = synthetic_voice(3.0)
    for name, model in served.items():
        model.embedder.embed(voice)  # raises what a request would meet
        told = f"{name} on {model.embedder.provider}, {model.embedder.sha256[:12]}"
        if model.policy is None:
            fix = f"sayso calibrate {name} --trials TRIALS --root FOLDER"
            yield Finding("model", "look", f"{told}: not calibrated, so it refuses to decide", fix)
            continue
        point = model.policy.threshold
        told += f", decides at {point.name}"
        if model.embedder.provider == CPU and cuda_driver_present():
            yield Finding(
                "model", "look", f"{told}: there is a GPU that it does not use", "pip install '.[cuda]'"
            )
        else:
            yield Finding("model", "ok", told)


def _stronger(chosen: Settings, served: dict[str, ServedModel]) -> Iterator[Finding]:
    """Name the networks that can be added and err less on unseen voices than the default model."""
    default = chosen.default_of(served)
    now = served[default].embedder.card.evaluation.get(common.UNSEEN)
    for name in catalog.names():
        there = Published.read(name).card.evaluation.get(common.UNSEEN)
        if now and there and name not in served and there["eer"] < now["eer"]:
            told = f"{name} can be added: EER {there['eer']:.1%} on unseen voices, {default} {now['eer']:.1%}"
            yield Finding("models", "ok", told, f"sayso models add {name}")


def _disk(chosen: Settings) -> Iterator[Finding]:
    folder = _owned(chosen.data_dir)[0]
    free = shutil.disk_usage(folder).free
    told = f"{chosen.data_dir}, {free / _GIB:.1f} GiB free"
    if not os.access(folder, os.W_OK | os.X_OK):
        fix = f"let the user of the service write to {folder}, or choose another SAYSO_DATA_DIR"
        yield Finding("data", "broken", f"{told}: {folder} cannot be written to; {_ownership(folder)}", fix)
    elif free < _LITTLE_FREE:
        state: State = "broken" if free < _LEAST_FREE else "look"
        yield Finding("data", state, told, "make room: a full disk refuses every enrolment")
    else:
        yield Finding("data", "ok", told)


def _store(chosen: Settings, served: dict[str, ServedModel]) -> Iterator[Finding]:
    if chosen.store is not None:
        yield from _served_store(chosen, served)
        return
    path = chosen.store_path
    if not path.exists():
        yield Finding("store", "ok", "none yet: the first start makes it, its master key and an API key")
        return
    running = holder(path)
    yield Finding("service", "ok", f"running: {running}" if running else "not running on this store")
    try:
        with chosen.open_store() as store:
            yield from _contents(store, served)
            yield from _api_keys(store, chosen)
            yield from _backups(store)
    except EnrollError as error:
        yield Finding("store", "broken", str(error))
        return
    yield from _master_key(chosen)


def _served_store(chosen: Settings, served: dict[str, ServedModel]) -> Iterator[Finding]:
    try:
        with chosen.open_store() as store:
            store.database.ping()
            yield Finding("store", "ok", f"{store.database.path} answers and takes changes")
            yield from _outdated(store, served)
            yield from _api_keys(store, chosen)
            for problem in index_of(store).check():
                yield Finding("store", "look", problem, "sayso store index")
    except EnrollError as error:
        yield Finding("store", "broken", str(error))
        return
    yield from _master_key(chosen)


def _contents(store: Store, served: dict[str, ServedModel]) -> Iterator[Finding]:
    if damage := store.check():
        fix = "stop the service, move sayso.db* aside, sayso restore BACKUP"
        yield Finding("store", "broken", damage[0], fix)
    else:
        yield Finding("store", "ok", "the file is sound (sayso check looks at every sealed value, too)")
    yield from _outdated(store, served)


def _outdated(store: Store, served: dict[str, ServedModel]) -> Iterator[Finding]:
    for name, model in served.items():
        if outdated := store.recordings.outdated(model.embedder.sha256):
            yield Finding(
                "store",
                "look",
                f"speakers enrolled without the model {name}: {len(outdated)}",
                f"sayso speakers outdated --model {name}",
            )


def _api_keys(store: Store, chosen: Settings) -> Iterator[Finding]:
    now, soon = clock.stamp(clock.now()), clock.stamp(clock.now() + _KEY_SOON)
    valid = [
        k for k in KeyRing(store.vault).list_keys() if k.revoked_at is None and (k.expires_at or "~") > now
    ]
    if not valid and chosen.admin_key is None:
        yield Finding("API keys", "broken", "none is valid", "sayso keys create --scope admin")
        return
    yield Finding("API keys", "ok", f"{len(valid)} valid")
    for key in valid:
        if key.expires_at is not None and key.expires_at < soon:
            told = f"{key.id} ({key.label}) expires at {key.expires_at}"
            yield Finding("API keys", "look", told, f"sayso keys rotate {key.id} --hours 24")


def _backups(store: Store) -> Iterator[Finding]:
    made = store.backups()
    if not made:
        yield Finding("backup", "look", "none was ever made of this store", "sayso backup FILE")
    elif made[-1][0] < clock.stamp(clock.now() - _BACKUP_OLD):
        yield Finding("backup", "look", f"the last one was made at {made[-1][0]}", "sayso backup FILE")
    else:
        yield Finding("backup", "ok", f"{made[-1][1]}, made at {made[-1][0]}")


def _master_key(chosen: Settings) -> Iterator[Finding]:
    """Look at who else may read the master key: it is the right one, since the store was opened."""
    if chosen.master_key is not None:
        yield Finding("master key", "ok", "opens the store; it comes from SAYSO_MASTER_KEY")
        return
    path = chosen.master_key_file or chosen.data_dir / KEY_FILE
    for file in (path, chosen.store_path):
        if file.exists() and file.stat().st_mode & 0o077:
            told = f"{file} can be read by others on this machine"
            yield Finding("master key", "look", told, f"chmod 600 {file}")
            return
    yield Finding("master key", "ok", f"{path} opens the store; keep a copy of it away from the backups")


def _network(chosen: Settings) -> Iterator[Finding]:
    where = url_of(chosen.host, chosen.port, chosen.tls_cert is not None)
    if chosen.host in ("127.0.0.1", "::1", "localhost"):
        yield Finding("network", "ok", f"{where}, from this machine only")
        return
    if chosen.tls_cert is None:
        fix = "SAYSO_TLS_CERT and SAYSO_TLS_KEY, or a proxy in front that speaks HTTPS"
        yield Finding("network", "look", f"{where} without TLS: keys and voices travel in the clear", fix)
    else:
        yield Finding("network", "ok", f"{where} with TLS")
    if chosen.metrics_key is None:
        yield Finding("network", "look", "/metrics is open to whoever reaches it", "SAYSO_METRICS_KEY=…")
