"""One name is installed, `sayso`: the wheel's content, and the wheel beside other people's modules."""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from tools import tool

ROOT = Path(__file__).parents[2]
ROOMS = ("bench", "domain", "enroll", "evaluate", "export", "models", "runtime", "service", "train")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and with the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("built")
    done = subprocess.run(
        [tool("uv"), "build", "--quiet", "--no-progress", "--out-dir", folder, ROOT],
        capture_output=True,
        text=True,
        timeout=250,
    )
    if "Failed to resolve requirements from `build-system.requires`" in done.stderr:
        pytest.skip("the build backend hatchling comes from a registry, and none answers")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as it lies where it is installed."""
    folder = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def python(*arguments: str, cwd: Path, path: tuple[Path, ...]) -> str:
    """What a fresh Python says whose path begins with these folders; dependencies are this environment's."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_one_name(names: set[str]) -> None:
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"sayso"}
    assert len(tops) == 2


def test_the_wheel_holds_all_that_git_tracks_and_no_checkpoints(names: set[str]) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", *ROOMS, "sayso"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    files = [file for file in listed.stdout.split("\0") if file and not (ROOT / file).is_symlink()]
    wanted = {file if file.startswith("sayso/") else f"sayso/{file}" for file in files}
    checkpoints = {file for file in wanted if file.startswith("sayso/models/weights/")}
    assert checkpoints
    assert {name for name in names if name.startswith("sayso/")} == wanted - checkpoints
    assert "sayso/py.typed" in names
    assert not [name for name in names if "tests" in name.split("/")]


def test_the_sdist_holds_each_room_once(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    listed = subprocess.run(["tar", "--list", "--file", sdist], capture_output=True, text=True, check=True)
    inside = {line.partition("/")[2] for line in listed.stdout.splitlines()}
    for room in ROOMS:
        assert f"sayso/{room}/__init__.py" in inside
        assert f"{room}/__init__.py" not in inside


def test_the_links_are_relative_and_one_a_room() -> None:
    links = {path.name: os.readlink(path) for path in (ROOT / "sayso").iterdir() if path.is_symlink()}
    assert links == {room: f"../{room}" for room in ROOMS}


def test_it_lies_beside_somebody_elses_models_and_evaluate(site: Path, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()  # as in voxceleb_trainer: no __init__.py
    (tmp_path / "models/ResNetSE34L.py").write_text("def MainModel(**kwargs): return 1\n")
    (tmp_path / "evaluate").mkdir()
    (tmp_path / "evaluate/__init__.py").write_text("WHOSE = 'theirs'\n")
    code = (
        "import evaluate, sayso, sayso.evaluate, sayso.models\n"
        "from models.ResNetSE34L import MainModel\n"
        "from sayso.runtime.speech import SpeechDetector\n"
        "from sayso.service.settings import Settings\n"
        "SpeechDetector()\n"
        "assert all(path.is_file() for path in Settings().served_models().values())\n"
        "print(MainModel(nOut=512), evaluate.WHOSE, sayso.__file__)"
    )
    said = python("-c", code, cwd=tmp_path, path=(site, tmp_path))
    assert said.split() == ["1", "theirs", str(site / "sayso/__init__.py")]
    assert not [room for room in ROOMS if (site / room).exists()]


@pytest.mark.parametrize("installed", ["wheel", "editable"])
def test_it_starts_in_a_folder_with_a_users_own_service(
    installed: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    for room in ROOMS:
        (tmp_path / f"{room}.py").write_text("raise RuntimeError('this file is the user\\'s own')\n")
    path = (request.getfixturevalue("site"),) if installed == "wheel" else ()
    said = python("-m", "sayso", "--help", cwd=tmp_path, path=path)
    assert "Self-hosted speaker verification" in said


def test_every_room_is_known_wherever_rooms_are_listed() -> None:
    """A room that one of these lists lacks is missing in a package or in an image."""
    linked = {path.name for path in (ROOT / "sayso").iterdir() if path.is_symlink()}
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    excluded = settings["tool"]["hatch"]["build"]["targets"]["sdist"]["exclude"]
    banned = settings["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"]
    assert linked == set(ROOMS)
    assert linked <= {path.removeprefix("/") for path in excluded}
    assert linked <= set(banned)
    assert linked <= {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines()}
