"""What the doctor finds, on this machine and on others made up."""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

import vrange
from vrange._cgroup.limits import MemoryLimit
from vrange.cli import doctor, main
from vrange.cli.memory_cgroup import MemoryCgroup


def finding(name: str, findings: list[doctor.Finding]) -> doctor.Finding:
    found = [one for one in findings if one.name == name]
    assert len(found) == 1, name
    return found[0]


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """A /proc and a /sys in one, as most machines have them."""
    for file, text in {
        "sys/vm/overcommit_memory": "0\n",
        "kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
    }.items():
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text(text)
    return tmp_path


def test_prints_each_finding_on_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["rung", vrange.capabilities().rung]
    assert {"kernel", "limit", "usage", "swap", "overcommit", "reserve"} <= {
        line.split(" ", 1)[0] for line in lines
    }


def test_json_has_each_finding_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)
    assert findings["rung"]["value"] == vrange.capabilities().rung
    assert findings["limit"]["value"] > 0
    assert findings["reserve tick"]["value"] == vrange.stats().reserve.tick_seconds
    assert set(findings["swap"]) == {"value", "text", "change"}


def test_check_prints_what_to_change_and_its_status_says_whether_there_is_something(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fine = doctor.Finding("kernel", "6.8", "Linux 6.8")
    monkeypatch.setattr(doctor, "examine", lambda: [fine])
    assert main(["doctor", "--check"]) == 0
    assert capsys.readouterr().out == "nothing to change\n"
    swap = doctor.Finding("swap", 1, "1 byte", "use none")
    monkeypatch.setattr(doctor, "examine", lambda: [fine, swap])
    assert main(["doctor", "--check"]) == 1
    assert capsys.readouterr().out == "swap  1 byte\n      -> use none\n\n1 to change, marked ->\n"
    assert main(["doctor", "--check", "--json"]) == 1
    assert list(json.loads(capsys.readouterr().out)) == ["swap"]
    assert main(["doctor"]) == 0


def test_tells_why_not_a_higher_rung(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VRANGE_RUNG", raising=False)
    real = vrange.capabilities()
    lower = replace(real, rung="sentinel", refusals={"refault": "userfaultfd: EPERM"})
    monkeypatch.setattr(doctor, "capabilities", lambda: lower)
    findings = doctor.examine()
    assert "seccomp" in str(finding("rung", findings).change)
    assert finding("not refault", findings).text == "userfaultfd: EPERM"


def test_a_forced_rung_is_said_to_be_forced() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vrange.cli", "doctor"],
        env=os.environ | {"VRANGE_RUNG": "eager"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "eager (VRANGE_RUNG)" in done.stdout
    assert "unset it" in done.stdout


def test_a_rung_that_is_none_cannot_be_run() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vrange.cli", "doctor"],
        env=os.environ | {"VRANGE_RUNG": "ladder"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("vrange doctor: VRANGE_RUNG=ladder")
    assert len(done.stderr.splitlines()) == 1


def test_settings_that_are_fine_need_no_change(settings: Path) -> None:
    findings = doctor.examine(settings, settings)
    assert finding("overcommit", findings).value == 0
    assert finding("overcommit", findings).change is None
    assert finding("huge pages", findings).value == "madvise"


def test_strict_overcommit(settings: Path) -> None:
    (settings / "sys/vm/overcommit_memory").write_text("2\n")
    found = finding("overcommit", doctor.examine(settings, settings))
    assert found.text == "2, never"
    assert "vm.overcommit_ratio" in str(found.change)


def test_huge_pages_always(settings: Path) -> None:
    file = settings / "kernel/mm/transparent_hugepage/enabled"
    file.write_text("[always] madvise never\n")
    assert "not in arenas" in finding("huge pages", doctor.examine(settings, settings)).text


def test_settings_that_are_not_told(tmp_path: Path) -> None:
    findings = doctor.examine(tmp_path, tmp_path)
    assert finding("overcommit", findings).value is None
    assert finding("huge pages", findings).value is None


def test_swap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "swap_memory", lambda: SimpleNamespace(total=2 << 30))
    found = finding("swap", doctor.examine())
    assert (found.value, found.text) == (2 << 30, "2.0 GiB")
    assert "memory.swap.max" in str(found.change)


def test_limited_address_space(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1 << 30, 1 << 30))
    found = finding("address space", doctor.examine())
    assert found.value == 1 << 30
    assert "ulimit -v unlimited" in str(found.change)


@pytest.mark.parametrize(
    ("release", "says"),
    [
        ("5.10.0-28-amd64", "made for Linux 5.14"),
        ("5.14.0", "find lost pages faster"),
        ("6.7.0-rc1", "Linux 6.7"),
    ],
)
def test_kernel(monkeypatch: pytest.MonkeyPatch, release: str, says: str) -> None:
    monkeypatch.setattr(platform, "release", lambda: release)
    found = finding("kernel", doctor.examine())
    assert says in f"{found.text} {found.change}"
    assert ("faster" in found.text) == (release == "5.14.0")


def test_little_is_spare(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = MemoryLimit(1 << 30, "/c/memory.current", "cgroup v2", "/c")
    monkeypatch.setattr(doctor, "memory_limit", lambda: limit)
    monkeypatch.setattr(doctor, "memory_usage", lambda: (1 << 30) - 1)
    findings = doctor.examine()
    assert finding("limit", findings).text == "1.0 GiB (cgroup v2, /c)"
    assert "raise the limit" in str(finding("usage", findings).change)


def test_no_thread_for_the_reserve(monkeypatch: pytest.MonkeyPatch) -> None:
    doctor.examine()  # starts it
    now = vrange.stats()
    stopped = replace(now, reserve=replace(now.reserve, running=False))
    monkeypatch.setattr(doctor, "stats", lambda: stopped)
    found = finding("reserve", doctor.examine())
    assert "offered at release" in str(found.change)


def test_no_cgroup_is_told_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryCgroup, "unavailable", lambda: "not today")
    found = finding("cgroups", doctor.examine())
    assert found.value is False
    assert "not today" in found.text


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "vrange.cli", "doctor"],
            stdout=write,
            stderr=subprocess.PIPE,
            check=False,
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_command_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([])
    assert left.value.code == 2
    assert "dashboards,demo,doctor" in capsys.readouterr().err


def test_the_name_of_a_cgroup_does_not_act_on_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    limit = MemoryLimit(1 << 30, "/c/memory.current", "cgroup v2", "/\x1b[2Jjob\nlimit  none\udcff")
    monkeypatch.setattr(doctor, "memory_limit", lambda: limit)
    monkeypatch.setattr(doctor, "memory_usage", lambda: 1)
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "/\\x1b[2Jjob\\nlimit  none" in out
