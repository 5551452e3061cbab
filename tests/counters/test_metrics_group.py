"""Several workers of one service: a scrape of any tells of all, and no counter goes back."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse_text

from vrange._counters.ledger import ledger_path
from vrange._counters.totals import NAMES_MOST, Totals


def scraped(text: bytes) -> dict[str, float]:
    """Values by name and labels."""
    return {
        sample.name + str(sorted(sample.labels.items())): sample.value
        for family in parse_text(text.decode())
        for sample in family.samples
    }


WORKER = """
import mmap, os, sys
import prometheus_client, vrange
registry = prometheus_client.CollectorRegistry()
vrange.metrics.register(registry, processes="group")
cache = vrange.VolatileCache(name="shared", hot_bytes=0)
print("ready", flush=True)
for line in sys.stdin:
    if line == "ask\\n":
        cache.get_or_compute(1, lambda: b"x" * 9000)
    elif line == "offer\\n":
        offered = mmap.mmap(-1, 8 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        offered.write(bytes(8 << 20))
        offered.madvise(mmap.MADV_FREE)
    elif line == "scrape\\n":
        sys.stdout.write(prometheus_client.generate_latest(registry).decode() + "# END\\n")
        sys.stdout.flush()
        continue
    print("done", flush=True)
"""


class Worker:
    def __init__(self, directory: Path, name: str = "test-service") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER],
            env=os.environ | {"VRANGE_RUNTIME_DIR": str(directory), "VRANGE_SERVICE": name},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._line() == "ready"

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def _tell(self, what: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()

    def ask(self, times: int) -> None:
        for _ in range(times):
            self._tell("ask")
            assert self._line() == "done"

    def offer(self) -> None:
        """Offers 8 MiB to the kernel, as tools outside see it."""
        self._tell("offer")
        assert self._line() == "done"

    def scrape(self) -> dict[str, float]:
        self._tell("scrape")
        lines = []
        while (line := self._line()) != "# END":
            lines.append(line)
        return scraped("\n".join(lines).encode() + b"\n")

    def end(self) -> None:
        self.process.communicate("", timeout=30)

    def kill(self) -> None:
        self.process.kill()
        self.end()


def requests(found: dict[str, float]) -> float:
    return sum(
        count for name, count in found.items() if name.startswith("vrange_cache_requests_total")
    )


def test_any_worker_tells_of_all_and_the_dead_still_count(directory: Path) -> None:
    workers = [Worker(directory) for _ in range(4)]
    for times, worker in enumerate(workers, 1):
        worker.ask(times * 10)
    for worker in workers:
        assert requests(worker.scrape()) == 100
    bytes_of_four = sum(v for n, v in workers[0].scrape().items() if n.startswith("vrange_bytes"))
    workers[3].kill()  # nobody saw it coming
    workers[2].end()  # in good order
    for worker in workers[:2]:
        found = worker.scrape()
        assert requests(found) == 100
        assert found["vrange_processes[]"] == 2
        left = sum(v for n, v in found.items() if n.startswith("vrange_bytes"))
        assert left == pytest.approx(bytes_of_four / 2)
    late = Worker(directory)
    late.ask(7)
    assert requests(late.scrape()) == requests(workers[0].scrape()) == 107
    other = Worker(directory, "another-service")
    assert requests(other.scrape()) == 0
    for worker in (*workers[:2], late):
        worker.end()
    assert {path.suffix for path in directory.iterdir()} == {".stats"}  # the other's
    other.end()
    assert list(directory.iterdir()) == []


def test_what_the_kernel_may_take_of_all_is_told_by_any(directory: Path) -> None:
    workers = [Worker(directory) for _ in range(3)]
    for worker in workers:
        worker.offer()
    for worker in workers:
        told = worker.scrape()["vrange_process_lazyfree_bytes[]"]
        assert 23 << 20 < told < 64 << 20  # a page or two may be on their way to be counted
    workers[0].kill()
    assert workers[1].scrape()["vrange_process_lazyfree_bytes[]"] < 22 << 20
    for worker in workers[1:]:
        worker.end()


def test_nothing_of_a_killed_service_stays_for_ever(directory: Path) -> None:
    workers = [Worker(directory), Worker(directory)]
    for worker in workers:
        worker.ask(3)
    workers[0].kill()
    assert requests(workers[1].scrape()) == 6
    assert any(path.suffix == ".ledger" for path in directory.iterdir())
    workers[1].kill()
    bystander = Worker(directory, "bystander")
    bystander.scrape()
    bystander.end()
    assert list(directory.iterdir()) == []


def test_a_fold_that_was_cut_short_is_not_done_twice(directory: Path) -> None:
    workers = [Worker(directory), Worker(directory)]
    workers[0].ask(5)
    (left,) = [path for path in directory.iterdir() if str(workers[0].process.pid) in path.name]
    copy = left.read_bytes()
    workers[0].kill()
    assert requests(workers[1].scrape()) == 5
    assert not left.exists()
    # As if the one who folded it had been killed before he could remove it.
    ledger = next(directory.glob("*.ledger"))
    ledger.write_text(ledger.read_text().replace('"folded":[]', f'"folded":["{left.name}"]'))
    left.write_bytes(copy)
    assert requests(workers[1].scrape()) == 5
    assert not left.exists()
    workers[1].end()


def test_a_ledger_that_is_none_counts_for_nothing(directory: Path) -> None:
    worker = Worker(directory)
    worker.ask(2)
    path = ledger_path(directory, "test-service")
    for text in ("", "{}", "[]", '{"version":1,"key":"test-service"}', "\0\0"):
        path.write_text(text)
        assert requests(worker.scrape()) == 2
    worker.end()


def test_workers_come_and_go_while_somebody_scrapes(directory: Path) -> None:
    watcher = Worker(directory)
    seen = [0.0]
    asked = 0
    until = time.monotonic() + 4
    while time.monotonic() < until:
        worker = Worker(directory)
        worker.ask(5)
        asked += 5
        seen.append(requests(watcher.scrape()))
        worker.end() if asked % 2 else worker.kill()
        seen.append(requests(watcher.scrape()))
    assert seen == sorted(seen)
    assert seen[-1] == asked
    watcher.end()


def test_forked_workers_with_the_application_loaded_before(directory: Path) -> None:
    code = """
import os, sys, prometheus_client, vrange
registry = prometheus_client.CollectorRegistry()
vrange.metrics.register(registry, processes="group")
cache = vrange.VolatileCache(name="preloaded", hot_bytes=0)
cache.get_or_compute(1, lambda: 1)
labels = {"name": "preloaded", "outcome": "peer"}
total = lambda: registry.get_sample_value("vrange_cache_requests_total", labels)
assert total() == 0
for ending in (sys.exit, os._exit):
    before = total()
    if (pid := os.fork()) == 0:
        cache.get_or_compute(1, lambda: 1)  # nobody held it: it is read from the parent
        for _ in range(10): cache[1]
        assert total() == before + 11
        ending(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert total() == before + 11
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code],
        env=os.environ | {"VRANGE_RUNTIME_DIR": str(directory), "VRANGE_SERVICE": "forks"},
        capture_output=True,
        text=True,
        timeout=60,
        start_new_session=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert list(directory.iterdir()) == []


def test_a_child_of_a_fork_does_not_keep_the_directory_locked(directory: Path) -> None:
    """As where one thread scrapes while another one begins a worker."""
    code = """
import os, sys
from pathlib import Path
from vrange._counters import lock, service
directory = Path(sys.argv[1])
read, write = os.pipe()
with lock.locked(directory):
    if (child := os.fork()) == 0:
        os.close(write)
        os.read(read, 1)
        os._exit(0)
assert service.services(directory) == {}
os.close(write)
assert os.waitpid(child, 0)[1] == 0
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code, str(directory)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_without_a_directory_the_group_is_this_process(tmp_path: Path) -> None:
    code = """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import prometheus_client, vrange
    vrange.VolatileCache(name="alone").get_or_compute(1, lambda: 1)
    registry = prometheus_client.CollectorRegistry()
    vrange.metrics.register(registry, processes="group")
    labels = {"name": "alone", "outcome": "miss"}
    assert registry.get_sample_value("vrange_cache_requests_total", labels) == 1
assert len(caught) == 1, [str(w.message) for w in caught]
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"VRANGE_RUNTIME_DIR": str(tmp_path / "missing" / "too")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_names_of_a_service_are_bounded() -> None:
    from vrange._counters.segment import AccountCounts, Snapshot

    totals = Totals()
    for number in range(3 * NAMES_MOST):
        account = AccountCounts(f"n{number}", "cache", requests={"miss": 1})
        totals.add(Snapshot(1, 1, "", "", 1, "", True, [account], {}, 0, 0, 0, 0))
    assert len(totals.accounts) <= NAMES_MOST + 1
    assert sum(one.requests["miss"] for one in totals.accounts.values()) == 3 * NAMES_MOST
    again = Totals.from_json(totals.as_json())
    assert again.as_json() == totals.as_json()


def test_all_names_of_one_process_are_told() -> None:
    from vrange._counters.names import KINDS
    from vrange._counters.segment import AccountCounts, Snapshot
    from vrange._counters.totals import OTHER

    names = [f"n{number}" for number in range(NAMES_MOST)]
    accounts = [AccountCounts(OTHER, kind) for kind in KINDS]  # they come first in a segment
    accounts += [AccountCounts(name, "cache") for name in names]
    totals = Totals()
    totals.add(Snapshot(1, 1, "", "", 1, "", True, accounts, {}, 0, 0, 0, 0))
    assert {name for _, name in totals.accounts} == {OTHER, *names}
