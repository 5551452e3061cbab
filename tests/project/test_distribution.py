"""What is uploaded: an sdist, and a wheel that is built from it."""

from __future__ import annotations

import email
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import readme_renderer.markdown

ROOT = Path(__file__).resolve().parents[2]
# The tests run without these: what git ignores, and what only git and CI read.
NOT_SHIPPED = re.compile(r"\.(ci/|github/|gitignore|readthedocs)")


def source_files() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return listed.stdout.splitlines()


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The built files by ending, made in a copy: a build leaves files where it is made."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("dist")
    for name in source_files():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name)
    built = subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(out), str(copy)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-2000:]
    return {path.suffix: path for path in out.iterdir()}


@pytest.mark.timeout(700)
def test_the_sdist_has_all_that_the_tests_need(distributions: dict[str, Path]) -> None:
    with tarfile.open(distributions[".gz"]) as sdist:
        there = {name.partition("/")[2] for name in sdist.getnames()}
    assert [
        name for name in source_files() if name not in there and not NOT_SHIPPED.match(name)
    ] == []


def test_the_wheel_has_no_debug_information(distributions: dict[str, Path], tmp_path: Path) -> None:
    with zipfile.ZipFile(distributions[".whl"]) as wheel:
        wheel.extractall(tmp_path)
    libraries = [path for path in tmp_path.rglob("*.so*") if path.is_file()]
    assert {path.name.partition(".")[0] for path in libraries} >= {"libvrange", "_native"}
    for library in libraries:
        sections = subprocess.run(
            ["readelf", "--sections", "--wide", str(library)],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        assert ".text" in sections
        assert "debug_info" not in sections, library.name


def test_libraries_are_looked_for_beside_the_extension_only(
    distributions: dict[str, Path], tmp_path: Path
) -> None:
    """Not in a directory of the building interpreter, which may be anybody's elsewhere."""
    with zipfile.ZipFile(distributions[".whl"]) as wheel:
        wheel.extractall(tmp_path)
    libraries = list(tmp_path.rglob("*.so*"))
    assert len(libraries) == 3
    for library in libraries:
        told = subprocess.check_output(["readelf", "-d", library], text=True)
        paths = [line.split("[")[1] for line in told.splitlines() if "PATH)" in line]
        assert set(paths) <= {"$ORIGIN]"}, library


def test_the_wheel_writes_the_dashboards(distributions: dict[str, Path], tmp_path: Path) -> None:
    with zipfile.ZipFile(distributions[".whl"]) as wheel:
        wheel.extractall(tmp_path / "installed")
    subprocess.run(
        [sys.executable, "-m", "vrange", "dashboards", "--write", str(tmp_path / "written")],
        cwd=tmp_path / "installed",
        env={"PYTHONPATH": str(tmp_path / "installed")},
        check=True,
        timeout=60,
    )
    for name in source_files():
        folder, _, file = name.rpartition("/")
        if folder == "dashboards" and (file.endswith(".json") or file == "rules.yml"):
            assert (tmp_path / "written" / file).read_bytes() == (ROOT / name).read_bytes()


def test_an_archive_that_is_not_unpacked_is_refused(distributions: dict[str, Path]) -> None:
    wheel = distributions[".whl"]  # which is a zip file, as a zipapp is
    done = subprocess.run(
        [sys.executable, "-S", "-c", "import vrange"],
        env={"PYTHONPATH": str(wheel)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: vrange has libraries")
    assert str(wheel) in last
    assert "pip install vrange" in last


def test_sources_that_were_not_built_say_so(distributions: dict[str, Path], tmp_path: Path) -> None:
    with zipfile.ZipFile(distributions[".whl"]) as wheel:
        wheel.extractall(tmp_path, [name for name in wheel.namelist() if "_native" not in name])
    done = subprocess.run(
        [sys.executable, "-S", "-c", "import vrange"],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ImportError: vrange's native part is not in")


def metadata_of(distribution: Path) -> str:
    if distribution.suffix == ".whl":
        with zipfile.ZipFile(distribution) as wheel:
            (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
            return wheel.read(name).decode()
    with tarfile.open(distribution) as sdist:
        file = sdist.extractfile(f"{distribution.name.removesuffix('.tar.gz')}/PKG-INFO")
        assert file is not None
        return file.read().decode()


@pytest.mark.parametrize("kind", [".whl", ".gz"])
def test_the_page_of_an_index_has_no_link_that_leads_nowhere(
    distributions: dict[str, Path], kind: str
) -> None:
    metadata = email.message_from_string(metadata_of(distributions[kind]))
    assert metadata["Description-Content-Type"].startswith("text/markdown")
    assert metadata["Project-URL"]
    page = readme_renderer.markdown.render(str(metadata.get_payload()))
    assert page is not None
    assert "<h2" in page
    assert "pip install" in page
    targets = re.findall(r"""(?:href|src)=["']([^"']*)""", page)
    own = "#user-content-"  # of a heading
    assert [target for target in targets if not target.startswith(("https://", own))] == []
