"""What is shipped: the wheel that pip builds from this tree, and what its metadata promises to OpenTelemetry."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from configparser import ConfigParser
from email import message_from_bytes
from email.message import Message
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import shekel
from shekel import package

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "shekel"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built as pip builds it for a user."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    [path] = folder.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    return message_from_bytes(wheel.read(_in_dist_info(wheel, "METADATA")))


def _in_dist_info(wheel: zipfile.ZipFile, name: str) -> str:
    [path] = [each for each in wheel.namelist() if each.endswith(f".dist-info/{name}")]
    return path


class TestFiles:
    def test_every_file_of_the_package_and_nothing_else(self, wheel: zipfile.ZipFile) -> None:
        shipped = {name for name in wheel.namelist() if ".dist-info/" not in name}
        here = {
            path.relative_to(SOURCE.parent).as_posix()
            for path in SOURCE.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert shipped == here
        assert {name.partition("/")[0] for name in shipped} == {"shekel"}

    def test_it_is_typed(self, wheel: zipfile.ZipFile) -> None:
        assert "shekel/py.typed" in wheel.namelist()

    def test_no_tests_and_no_benchmarks(self, wheel: zipfile.ZipFile) -> None:
        parts = {part for name in wheel.namelist() for part in Path(name).parts}
        assert parts & {"tests", "benchmarks", "conftest.py", ".ci"} == set()

    def test_the_licence_is_inside(self, wheel: zipfile.ZipFile) -> None:
        assert wheel.read(_in_dist_info(wheel, "licenses/LICENSE")) == (ROOT / "LICENSE").read_bytes()


class TestMetadata:
    def test_opentelemetry_and_the_shell_find_it(self, wheel: zipfile.ZipFile) -> None:
        points = ConfigParser(delimiters=("=",))
        points.read_string(wheel.read(_in_dist_info(wheel, "entry_points.txt")).decode())
        assert dict(points["opentelemetry_instrumentor"]) == {"shekel": "shekel.instrumentor:ShekelInstrumentor"}
        assert dict(points["console_scripts"]) == {"shekel": "shekel.cli:main"}

    def test_the_entry_point_loads_the_instrumentor(self) -> None:
        [point] = entry_points(group="opentelemetry_instrumentor", name="shekel")
        assert point.load() is shekel.ShekelInstrumentor

    def test_its_name_version_and_python(self, metadata: Message) -> None:
        assert metadata["Name"] == package.DISTRIBUTION
        assert metadata["Version"] == shekel.__version__
        assert metadata["Requires-Python"] == ">=3.11"
        assert metadata["License-Expression"] == "Apache-2.0"

    def test_neither_sdk_is_required_and_either_is_enough(self, metadata: Message) -> None:
        required = [each for each in metadata.get_all("Requires-Dist", []) if "extra ==" not in each]
        assert len(required) >= 6
        assert not [each for each in required if each.startswith(("openai", "anthropic"))]
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        declared = project["optional-dependencies"]["instruments-any"]
        assert declared == [each.replace(" ", "") for each in package._instruments_any]
