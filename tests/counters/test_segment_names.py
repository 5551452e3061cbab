"""Where readers look for stats segments, and which files they take for one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vrange._counters.processes import directories, is_segment_name


@pytest.mark.parametrize("name", ["1-1.stats", "4194304-18446744073709551615.stats"])
def test_names_of_segments(name: str) -> None:
    assert is_segment_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "-1.stats",
        "1-.stats",
        "+1-1.stats",
        " 1-1.stats",
        "1- 1.stats",
        "11111111111-1.stats",
        "1-111111111111111111111.stats",
        "1-1.stats.ledger",
        "1-1.stats\0",
        "1-1\ud800.stats",
        "١-1.stats",
        "../1-1.stats",
    ],
)
def test_other_names(name: str) -> None:
    assert not is_segment_name(name)


def test_the_variable_names_the_only_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VRANGE_RUNTIME_DIR", str(tmp_path))
    assert directories() == [tmp_path]


def test_readers_look_in_the_session_the_login_and_shared_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("VRANGE_RUNTIME_DIR", raising=False)
    user = os.geteuid()
    everywhere = [Path(f"/run/user/{user}/vrange"), Path(f"/dev/shm/vrange-{user}")]
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert directories() == [tmp_path / "vrange", *everywhere]
    monkeypatch.setenv("XDG_RUNTIME_DIR", f"/run/user/{user}")
    assert directories() == everywhere
    for absent in ("", "relative"):
        monkeypatch.setenv("XDG_RUNTIME_DIR", absent)
        assert directories() == everywhere
