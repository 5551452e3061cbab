"""Memory limits as service managers and container engines set them up.

`cgroup` and `mountinfo` are the lines that a process sees there, reduced to those of cgroups; the
files are those that lie below the mount then. `at` is where /sys/fs/cgroup is in the test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from vrange._cgroup.limits import memory_limit

MIB = 1 << 20
V1_NONE = 9223372036854771712
MACHINE = psutil.virtual_memory().total
POD = "kubepods-burstable-pod91f5b561_369f_4103_8015_66391059996a.slice"
ID = "66be9b2efdf4d85288c319b8c1a2f50d2439b5617e36f45d9d0d0be1381113be"


@dataclass
class Recorded:
    cgroup: str
    mountinfo: str
    limits: Mapping[str, int | str]  # the directory below /sys/fs/cgroup, and its limit
    expected: int | None  # MiB; None: only the machine's
    place: str = ""  # where the expected limit is
    version: int = 2
    high: dict[str, int] = field(default_factory=dict)


UNIFIED = (
    "30 23 0:26 / {at} rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate"
)
INSIDE = "486 477 0:30 / {at} ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate"
MEMORY_V1 = (
    "40 28 0:35 {root} {at}/memory {rights},nosuid,nodev,noexec,relatime {master} - "
    "cgroup cgroup rw,memory"
)

TREES = {
    "systemd service with MemoryMax=": Recorded(
        cgroup="0::/system.slice/web.service",
        mountinfo=UNIFIED,
        limits={"system.slice": "max", "system.slice/web.service": 300},
        expected=300,
        place="system.slice/web.service",
    ),
    "systemd slice around a service": Recorded(
        cgroup="0::/work.slice/work-jobs.slice/job@3.service",
        mountinfo=UNIFIED,
        limits={
            "work.slice": 800,
            "work.slice/work-jobs.slice": 500,
            "work.slice/work-jobs.slice/job@3.service": "max",
        },
        expected=500,
        place="work.slice/work-jobs.slice",
    ),
    "systemd service with MemoryHigh=": Recorded(
        cgroup="0::/system.slice/web.service",
        mountinfo=UNIFIED,
        limits={"system.slice": "max", "system.slice/web.service": 400},
        high={"system.slice/web.service": 350},
        expected=350,
        place="system.slice/web.service",
    ),
    "systemd-run --user --scope": Recorded(
        cgroup="0::/user.slice/user-1000.slice/user@1000.service/app.slice/run-r7f3.scope",
        mountinfo=UNIFIED,
        limits={
            "user.slice": "max",
            "user.slice/user-1000.slice": 900,
            "user.slice/user-1000.slice/user@1000.service": "max",
            "user.slice/user-1000.slice/user@1000.service/app.slice": "max",
            "user.slice/user-1000.slice/user@1000.service/app.slice/run-r7f3.scope": 200,
        },
        expected=200,
        place="user.slice/user-1000.slice/user@1000.service/app.slice/run-r7f3.scope",
    ),
    "hybrid: the memory controller in v1": Recorded(
        cgroup=f"11:memory:/machine.slice/libpod-{ID}.scope\n1:name=systemd:/machine.slice\n"
        f"0::/machine.slice/libpod-{ID}.scope",
        mountinfo="29 28 0:25 / {at}/unified rw,noexec shared:5 - cgroup2 cgroup rw\n"
        "30 28 0:26 / {at}/systemd rw,noexec shared:6 - cgroup cgroup rw,name=systemd\n"
        + MEMORY_V1.format(root="/", rights="rw", master="shared:17", at="{at}"),
        limits={"memory": V1_NONE, "memory/machine.slice": V1_NONE}
        | {f"memory/machine.slice/libpod-{ID}.scope": 128},
        expected=128,
        place=f"memory/machine.slice/libpod-{ID}.scope",
        version=1,
    ),
    "Docker, v2, its own namespace": Recorded(
        cgroup="0::/", mountinfo=INSIDE, limits={"": 256}, expected=256, place=""
    ),
    "Docker, v2, --cgroupns=host": Recorded(
        cgroup=f"0::/system.slice/docker-{ID}.scope",
        mountinfo=INSIDE,
        limits={"system.slice": "max", f"system.slice/docker-{ID}.scope": 256},
        expected=256,
        place=f"system.slice/docker-{ID}.scope",
    ),
    "Docker, v1": Recorded(
        cgroup=f"9:memory:/docker/{ID}\n8:cpu:/docker/{ID}\n0::/system.slice/containerd.service",
        mountinfo=MEMORY_V1.format(
            root=f"/docker/{ID}", rights="ro", master="master:20", at="{at}"
        ),
        limits={"memory": 256},
        expected=256,
        place="memory",
        version=1,
    ),
    "Docker in Docker, v1": Recorded(
        cgroup=f"9:memory:/docker/0123/docker/{ID}",
        mountinfo=MEMORY_V1.format(
            root=f"/docker/0123/docker/{ID}", rights="ro", master="", at="{at}"
        ),
        limits={"memory": 64},
        expected=64,
        place="memory",
        version=1,
    ),
    "Kubernetes, v2": Recorded(
        cgroup="0::/", mountinfo=INSIDE, limits={"": 512}, expected=512, place=""
    ),
    "Kubernetes, v2, seen from the node": Recorded(
        cgroup=f"0::/kubepods.slice/kubepods-burstable.slice/{POD}/cri-containerd-{ID}.scope",
        mountinfo=UNIFIED,
        limits={
            "kubepods.slice": 16000,
            "kubepods.slice/kubepods-burstable.slice": "max",
            f"kubepods.slice/kubepods-burstable.slice/{POD}": 300,
            f"kubepods.slice/kubepods-burstable.slice/{POD}/cri-containerd-{ID}.scope": 512,
        },
        expected=300,
        place=f"kubepods.slice/kubepods-burstable.slice/{POD}",
    ),
    "Kubernetes, v2, a limit of requests (MemoryQoS)": Recorded(
        cgroup="0::/", mountinfo=INSIDE, limits={"": 512}, high={"": 460}, expected=460, place=""
    ),
    "Kubernetes, v1": Recorded(
        cgroup=f"5:memory:/kubepods/burstable/pod91f5b561-369f/{ID}",
        mountinfo=MEMORY_V1.format(
            root=f"/kubepods/burstable/pod91f5b561-369f/{ID}",
            rights="ro",
            master="master:15",
            at="{at}",
        ),
        limits={"memory": 512},
        expected=512,
        place="memory",
        version=1,
    ),
    "a debug container, moved beside the one whose namespace it is in": Recorded(
        cgroup="0::/../cri-containerd-0123.scope",
        mountinfo=INSIDE,
        limits={"": 512},
        expected=512,
        place="",
    ),
    "Podman, rootful": Recorded(
        cgroup="0::/",
        mountinfo=INSIDE,
        limits={"": 100, "container": "max"},
        expected=100,
        place="",
    ),
    "Podman with --systemd": Recorded(
        cgroup="0::/init.scope",
        mountinfo="601 584 0:79 / {at} rw,relatime - tmpfs tmpfs rw,size=4k,uid=1000,gid=1000\n"
        "602 601 0:26 / {at} rw,relatime - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot",
        limits={"": 100, "init.scope": "max"},
        expected=100,
        place="",
    ),
    # The host's whole tree is mounted, and the process knows only its path below its namespace.
    # Nothing says where that is in the tree. So no limit is known, and the reserve stays offered.
    "Podman without a network namespace, rootless": Recorded(
        cgroup="0::/",
        mountinfo="582 580 0:26 /../../../../../.. {at} rw,noexec - cgroup2 cgroup2 rw\n"
        "597 582 0:26 /../../../../../.. {at} ro,noexec - cgroup2 cgroup2 rw",
        limits={"user.slice": "max", "user.slice/user-1000.slice": 900},
        expected=None,
    ),
    "LXC": Recorded(
        cgroup="0::/init.scope",
        mountinfo=INSIDE,
        limits={"": 700, "init.scope": "max"},
        expected=700,
        place="",
    ),
    "systemd-nspawn": Recorded(
        cgroup="0::/payload/system.slice/web.service",
        mountinfo="80 60 0:26 / {at} rw,nosuid,nodev,relatime - cgroup2 cgroup rw,nsdelegate",
        limits={
            "payload": "max",
            "payload/system.slice": "max",
            "payload/system.slice/web.service": 250,
        },
        expected=250,
        place="payload/system.slice/web.service",
    ),
}


def make(root: Path, tree: Recorded) -> None:
    files = {
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        2: ("memory.max", "memory.current"),
    }
    limit_file, usage_file = files[tree.version]
    for place, limit in tree.limits.items():
        directory = root / place
        directory.mkdir(parents=True, exist_ok=True)
        text = limit if isinstance(limit, str) or limit == V1_NONE else limit * MIB
        (directory / limit_file).write_text(f"{text}\n")
        (directory / usage_file).write_text("4096\n")
        (directory / "memory.stat").write_text("anon 0\n")
        if tree.version == 2:
            high = tree.high.get(place)
            (directory / "memory.high").write_text(f"{high * MIB if high else 'max'}\n")


@pytest.mark.parametrize("name", TREES)
def test_the_limit_is_found(tmp_path: Path, name: str) -> None:
    tree = TREES[name]
    point, proc = tmp_path / "cgroup", tmp_path / "proc"
    proc.mkdir()
    make(point, tree)
    for kind in ("unified", "systemd"):
        (point / kind).mkdir(exist_ok=True)
    (proc / "cgroup").write_text(tree.cgroup + "\n")
    other = "22 27 0:21 / /proc rw,relatime - proc proc rw\n"
    (proc / "mountinfo").write_text(other + tree.mountinfo.format(at=point) + "\n")
    found = memory_limit(proc_self=proc)
    if tree.expected is None:
        assert (found.limit_bytes, found.source) == (MACHINE, "machine")
        return
    assert (found.limit_bytes, found.source) == (tree.expected * MIB, f"cgroup v{tree.version}")
    assert found.path == str(point / tree.place).rstrip("/")
