"""`vrange run`: the program can't tell that it was started by it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from run_support import VRANGE, alike, plain, program, run

LOOK = """
import os, sys
print(sys.argv, __name__, __file__, sys.path, getattr(__spec__, "name", None))
print(sys.orig_argv[1:], sys.flags, sorted(sys.path_importer_cache) and "")
print(sorted(name for name in os.environ if name not in ("_", "SHLVL")))
print(os.environ.get("PYTHONPATH"), os.environ.get("PYTHONMALLOC"), "sitecustomize" in sys.modules)
"""


@pytest.mark.parametrize("heap", ["pymalloc", "libc"])
@pytest.mark.parametrize("path", [None, "", "/nowhere", "/nowhere:"])
def test_what_a_program_sees(tmp_path: Path, heap: str, path: str | None) -> None:
    file = program(tmp_path, LOOK)
    environment = {} if path is None else {"PYTHONPATH": path}
    without = plain(file, "a", "--report", "-m", environment=environment)
    within = run("--heap", heap, file, "a", "--report", "-m", environment=environment)
    assert within.stdout == without.stdout
    assert within.stderr == ""


@pytest.mark.parametrize("ending", ["sys.exit(7)", "sys.exit('why')", "1/0", "os._exit(5)", ""])
def test_exit_status_and_traceback(tmp_path: Path, ending: str) -> None:
    alike(program(tmp_path, f"import os, sys\ndef f():\n    {ending or 'pass'}\nf()\n"))


def test_threads_that_a_program_sees_and_patches(tmp_path: Path) -> None:
    code = """
import os, threading, warnings
warnings.simplefilter("ignore")  # 3.12 and later warn of a fork beside threads
print([thread.name for thread in threading.enumerate()])
from gevent import monkey
monkey.patch_all()
print(threading.active_count())
pid = os.fork()
print(os.waitpid(pid, 0)[1] if pid else threading.active_count())
"""
    assert alike(program(tmp_path, code)).stdout.startswith("['MainThread']\n")


def test_a_thread_s_traceback(tmp_path: Path) -> None:
    code = "import threading\nt = threading.Thread(target=lambda: 1 / 0)\nt.start()\nt.join()\n"
    assert "ZeroDivisionError" in alike(program(tmp_path, code)).stderr


def test_signals_that_the_program_waits_for_reach_it(tmp_path: Path) -> None:
    """Its own threads block them, as those do that it starts. Others would be ended by them."""
    code = """
import os, signal, warnings
warnings.simplefilter("ignore")  # 3.12 and later warn of a fork beside threads
numbers = {signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGCHLD}
signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
for _ in range(20):
    for number in numbers:
        os.kill(os.getpid(), number)
        assert signal.sigwait(numbers) == number
pid = os.fork()
if not pid:
    kept = [[] for _ in range(100_000)]  # the child works, so vrange's threads begin there
    for number in numbers:
        os.kill(os.getpid(), number)
        assert signal.sigwait(numbers) == number
    os._exit(0)
print(os.waitpid(pid, 0)[1])
print(signal.pthread_sigmask(signal.SIG_BLOCK, ()) == numbers)
"""
    assert alike(program(tmp_path, code)).stdout == "0\nTrue\n"
    done = run("--metrics", "0", program(tmp_path, code))
    assert (done.stdout, done.stderr) == ("0\nTrue\n", "")


def test_standard_input_and_an_interactive_interpreter(tmp_path: Path) -> None:
    alike(program(tmp_path, "print(input()[::-1])"), input="backwards\n")
    done = run(sys.executable, "-", "x", input="import sys; print(sys.argv)")
    assert done.stdout == "['-', 'x']\n"


@pytest.mark.parametrize("options", [[], ["--report"]])
def test_standard_output_that_is_closed(tmp_path: Path, options: list[str]) -> None:
    file, seen = program(tmp_path, "import sys\nopen(sys.argv[1], 'w')\n"), tmp_path / "seen"
    assert run(*options, file, seen, preexec_fn=lambda: os.close(1)).returncode == 0
    assert seen.exists()


def test_module_code_directory_and_zip(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    program(package, LOOK, "__main__.py")
    alike("-m", "package", "-m", "--help", cwd=tmp_path)
    alike(package, "x")
    alike("-c", "import sys; print(sys.argv, __name__)", "-c", "--", "-m")
    for archive in "app.pyz", "app.zip":
        assert run("-m", "zipapp", package, "-o", tmp_path / archive).returncode == 0
        alike(tmp_path / archive)


def test_main_s_classes_are_pickled_and_pools_of_both_kinds_work(tmp_path: Path) -> None:
    code = """
import multiprocessing, pickle
class Thing:
    def __init__(self, n): self.n = n
def double(thing): return Thing(thing.n * 2)
if __name__ == "__main__":
    assert pickle.loads(pickle.dumps(Thing(3))).n == 3
    for method in ("spawn", "fork", "forkserver"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            print(method, [one.n for one in pool.map(double, map(Thing, range(5)))])
"""
    assert alike(program(tmp_path, code)).stdout.count("[0, 2, 4, 6, 8]") == 3


@pytest.mark.parametrize(("option", "found"), [([], "off off off"), (["--children"], "on on on")])
def test_interpreters_that_the_program_starts(
    tmp_path: Path, option: list[str], found: str
) -> None:
    code = """
import multiprocessing, subprocess, sys
LOOK = "import sys; print('on' if 'vrange._autostart' in sys.modules else 'off', end=' ')"
def look():
    exec(LOOK)
    sys.stdout.flush()
if __name__ == "__main__":
    assert "vrange._autostart" in sys.modules
    subprocess.run([sys.executable, "-c", LOOK])
    for method in ("spawn", "forkserver"):
        process = multiprocessing.get_context(method).Process(target=look)
        process.start()
        process.join()
"""
    done = run(*option, program(tmp_path, code))
    assert done.stdout.split() == found.split(), done.stderr


def test_subinterpreters_are_left_alone(tmp_path: Path) -> None:
    """CPython ends the process if one of them ends while it has a thread."""
    code = """
import _testcapi
for _ in range(2):
    _testcapi.run_in_subinterp("print('within', flush=True)")
print("ended")
"""
    for options in ([], ["--children"]):
        done = run(*options, program(tmp_path, code))
        assert (done.stdout, done.stderr) == ("within\nwithin\nended\n", "")


def test_a_script_by_its_first_line_and_a_command_on_the_path(tmp_path: Path) -> None:
    script = program(tmp_path, f"#!{sys.executable}\n{LOOK}", "tool")
    script.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    without = plain(script, "a b")
    assert run(script, "a b").stdout == without.stdout
    assert run("tool", "a b", environment=environment).stdout == without.stdout
    script.chmod(0o644)
    assert "a b" in run(script, "a b").stdout  # not executable, and Python all the same


def test_it_becomes_the_program(tmp_path: Path) -> None:
    import subprocess

    from run_support import VRANGE

    file = program(tmp_path, "import os; print(os.getpid())")
    with subprocess.Popen([*VRANGE, "run", str(file)], stdout=subprocess.PIPE, text=True) as child:
        out, _ = child.communicate(timeout=60)
    assert int(out) == child.pid


def test_a_user_s_own_sitecustomize_is_run_in_its_place(tmp_path: Path) -> None:
    mine = "import builtins\nbuiltins.runs = getattr(builtins, 'runs', 0) + 1\nmark = __name__\n"
    program(tmp_path, mine, "sitecustomize.py")
    code = "import sitecustomize as one; print(one.mark, one.__file__, runs)"
    environment = {"PYTHONPATH": str(tmp_path)}
    assert alike("-c", code, environment=environment).stdout.startswith("sitecustomize /")
    program(tmp_path, "1/0\n", "sitecustomize.py")
    # Once in the interpreter that becomes the program, and once in the program.
    failed = run("-c", "print('ran')", environment=environment)
    assert failed.stdout == "ran\n"
    assert failed.stderr == plain("-c", "", environment=environment).stderr * 2


def test_pytest_as_a_command(tmp_path: Path) -> None:
    program(tmp_path, "def test_one(): pass\ndef test_two(): assert 0\n", "test_it.py")
    command = str(Path(sys.executable).with_name("pytest"))
    done = run(command, "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, tmp_path)
    assert done.returncode == 1
    assert "1 failed, 1 passed" in done.stdout


def test_gunicorn_s_workers_are_forked_with_it_on(tmp_path: Path) -> None:
    import subprocess
    import urllib.request

    from run_support import VRANGE

    program(
        tmp_path,
        "import os, sys\n"
        "def app(environ, respond):\n"
        "    respond('200 OK', [])\n"
        "    on = 'vrange._autostart' in sys.modules\n"
        "    return [f'{on} {os.getpid()} {os.getppid()}'.encode()]\n",
        "service.py",
    )
    command = [*VRANGE, "run", str(Path(sys.executable).with_name("gunicorn")), "service:app"]
    with subprocess.Popen(
        [*command, "--bind", "127.0.0.1:0", "--workers", "1"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stderr is not None
        try:
            address = next(line for line in server.stderr if "Listening at" in line)
            url = address.split("Listening at: ")[1].split()[0]
            with urllib.request.urlopen(url, timeout=20) as answer:
                on, worker, master = answer.read().decode().split()
        finally:
            server.send_signal(signal.SIGTERM)
            server.stderr.read()
        assert server.wait(30) == 0
    assert on == "True"
    assert int(master) == server.pid != int(worker)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["nowhere.py"], 127, "no such file"),
        (["no-such-command"], 127, "no such command on PATH"),
        (["./no-such-file"], 127, "no such file"),
        (["data.bin"], 126, "neither executable nor Python"),
        (["./stale"], 127, "interpreter in its first line"),
        (["./garbage"], 126, "not a program for this machine"),
        (["empty"], 126, "without a __main__.py"),
        ([], 2, "nothing to run"),
        (["-m"], 2, "-m needs an argument"),
        (["--trim-every", "5", "x.py"], 2, "neither a time such as"),
        (["--metrics", "host", "x.py"], 2, "not [ADDR:]PORT"),
        (["--plot", "x.gif", "x.py"], 2, ".png or .svg"),
        (["--json", "/nowhere/x.json", "x.py"], 2, "directory is missing"),
        (["--json", ".", "x.py"], 2, "this is a directory"),
    ],
)
@pytest.mark.parametrize("reported", [False, True])
def test_what_can_t_be_run(
    tmp_path: Path, words: list[str], status: int, said: str, reported: bool
) -> None:
    (tmp_path / "data.bin").write_bytes(b"\0\1")
    (tmp_path / "empty").mkdir()
    for name, content in (("stale", b"#!/no/such/python\n"), ("garbage", b"\0\1\2")):
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o755)
    done = run(*(["--report"] if reported else []), *words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_an_interpreter_without_vrange_runs_the_program_and_says_so(tmp_path: Path) -> None:
    import subprocess

    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True, timeout=60
    )
    done = run(tmp_path / "bare" / "bin" / "python", "-c", "print('ran')")
    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert "vrange can't be imported by" in done.stderr
    assert "runs without it" in done.stderr
    closed = [
        "sh",
        "-c",
        'exec "$@" 2>&-',
        "sh",
        *VRANGE,
        "run",
        str(tmp_path / "bare" / "bin" / "python"),
    ]
    silent = subprocess.run([*closed, "-c", "print('ran')"], stdout=subprocess.PIPE, check=False)
    assert (silent.returncode, silent.stdout) == (0, b"ran\n")


def test_an_old_interpreter_says_only_that_it_is_one() -> None:
    found = sorted(Path.home().glob(".pyenv/versions/2.7*/bin/python"))
    if not found:
        pytest.skip("needs Python 2.7")
    done = run(found[0], "-c", "print('ran')")
    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert len(done.stderr.splitlines()) == 1
    assert "vrange can't be imported by" in done.stderr


@pytest.mark.parametrize(
    ("words", "skips"),
    [
        (["-E"], "-E"),
        (["-uI"], "-I"),
        (["-W", "ignore", "-S"], "-S"),
        (["-Wignore"], None),  # the E and I of a value are no options
        (["-X", "dev"], None),
    ],
)
def test_an_interpreter_that_skips_what_starts_vrange_is_named(
    words: list[str], skips: str | None
) -> None:
    ask = "import sys; print('vrange' in sys.modules)"
    done = run(sys.executable, *words, "-c", ask, "-E")
    assert (done.returncode, done.stdout) == (0, f"{skips is None}\n")
    assert (f"{skips} has python" in done.stderr) == (skips is not None)
    assert ("only malloc is on" in done.stderr) == (skips is not None)


def test_where_nothing_can_be_on_it_says_so() -> None:
    done = run("--no-malloc", sys.executable, "-E", "-c", "print('ran')")
    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert "so nothing is on" in done.stderr


def test_an_unknown_option_shows_the_usage_of_the_command() -> None:
    done = run("--bogus", "x.py")
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: vrange run" in done.stderr
    assert "unrecognized arguments: --bogus" in done.stderr
