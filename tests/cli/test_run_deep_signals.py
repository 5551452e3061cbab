"""What a program under `vrange run --deep` notices of the signal that trims its stacks: nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from run_support import clean_environment, program, run

OTHERS_OFF = ("--no-numpy", "--no-watch", "--trim-every", "never")
HELPERS = {"PYTHONPATH": str(Path(__file__).parents[1] / "helpers")}
IMPORTS = """
import fcntl, json, os, resource, signal, socket, subprocess, sys, threading, time
import vrange
from deep_program import *
ALL = signal.valid_signals()
def go_deep():
    json.loads("[" * 150_000 + "]" * 150_000)
def stacks():
    return max(use.resident_bytes for use in vrange.stack_info().threads)
def becomes_true(what, wait=lambda: time.sleep(.02)):
    end = time.monotonic() + 10
    while not what() and time.monotonic() < end:
        wait()
    return what()
def is_returned(wait=lambda: time.sleep(.02)):
    before = vrange.stack_info().returned_bytes
    go_deep()
    becomes_true(lambda: stacks() <= 1 << 20, wait)
    return vrange.stack_info().returned_bytes - before > 8 << 20, stacks() <= 1 << 20
def busy():
    sum(range(10_000))
def send_urgent():  # a socket's own SIGURG, for out-of-band data
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as client, server.accept()[0] as end:
            fcntl.fcntl(end, fcntl.F_SETOWN, os.getpid())
            before = len(seen)
            client.send(b"!", socket.MSG_OOB)
            assert becomes_true(lambda: len(seen) > before)
seen = []
"""


def deep(directory: Path, code: str) -> list[str]:
    file = program(directory, IMPORTS + code)
    done = run("--deep", *OTHERS_OFF, file, environment=HELPERS, timeout=110)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_what_is_pending_at_exec_does_not_end_the_new_program(tmp_path: Path) -> None:
    """A signal stays pending through exec, and the new program has its default action."""
    code = """
signal.pthread_sigmask(signal.SIG_BLOCK, ALL)
threading.Thread(target=go_deep).start()
go_deep()
time.sleep(1)
after = "import signal; print(signal.sigpending());"
after += "print(signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals()) != set())"
os.execv(sys.executable, [sys.executable, "-S", "-E", "-c", after])
"""
    assert deep(tmp_path, code) == ["set()", "True"]


def test_programs_that_are_executed_while_stacks_are_trimmed(tmp_path: Path) -> None:
    """In the child of a fork, a limit makes main trim its stack, and then it executes a program."""
    code = """
def prepare():
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, resource.RLIM_INFINITY))
print({subprocess.run(["/bin/true"], preexec_fn=prepare).returncode for _ in range(30)})
"""
    assert deep(tmp_path, code) == ["{0}"]


def test_a_program_that_handles_the_signal_itself(tmp_path: Path) -> None:
    """Its handler sees its own signals and no others, and its stacks are trimmed all the same."""
    code = """
def handle(number, frame):
    seen.append(number)
print(signal.signal(signal.SIGURG, handle) == signal.SIG_DFL)
print(is_returned(), is_returned(busy), len(seen))
for turn in range(3):
    send_urgent()
    os.kill(os.getpid(), signal.SIGURG)
    assert becomes_true(lambda: len(seen) == 2 * turn + 2), seen
    signal.raise_signal(signal.SIGURG)
    seen.pop()
in_thread(is_returned)
print(len(seen), signal.getsignal(signal.SIGURG) is handle)
# a system call that the handler interrupts ends early, as it does without vrange
signal.siginterrupt(signal.SIGURG, True)
def interrupt(number, frame):
    raise InterruptedError
signal.signal(signal.SIGURG, interrupt)
threading.Timer(.3, signal.pthread_kill, (threading.main_thread().ident, signal.SIGURG)).start()
try:
    os.read(os.pipe()[0], 1)
except InterruptedError:
    print("interrupted")
signal.signal(signal.SIGURG, signal.SIG_DFL)
print(is_returned(busy))
os.kill(os.getpid(), signal.SIGURG)
"""
    expected = ["True", "(True, True) (True, True) 0", "6 True", "interrupted"]
    assert deep(tmp_path, code) == [*expected, "(True, True)"]


def test_a_thread_that_waits_for_the_signal_gets_none_of_ours(tmp_path: Path) -> None:
    code = """
def wait_for_it():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGURG})
    go_deep()
    return signal.sigtimedwait({signal.SIGURG}, 1.2)
print(wait_for_it(), in_thread(wait_for_it))
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGURG})
print(is_returned())
"""
    assert deep(tmp_path, code) == ["None None", "(True, True)"]


def test_a_child_s_stack_is_trimmed_wherever_the_fork_was(tmp_path: Path) -> None:
    """A signal that was pending in the parent at the fork is not in the child."""
    code = """
import warnings
warnings.simplefilter("ignore")  # 3.12 and later warn of a fork beside threads
def in_child():
    os._exit(is_returned() != (True, True))
codes = set()
for turn in range(2):
    go_deep()
    time.sleep(.24 + turn / 200)  # near the first look at the stack
    pid = os.fork()
    if pid == 0:
        in_child()
    codes.add(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
print(codes)
"""
    assert deep(tmp_path, code) == ["{0}"]


def test_threads_that_were_registered_survive_exec_too(tmp_path: Path) -> None:
    code = """
def wait():
    vrange.register_thread()
    ready.set()
    threading.Event().wait()
signal.pthread_sigmask(signal.SIG_BLOCK, ALL)
ready = threading.Event()
threading.Thread(target=wait, daemon=True).start()
ready.wait()
def trim():
    while True:
        vrange.trim_idle_stacks(wait=0)
threading.Thread(target=trim, daemon=True).start()
def execute():
    vrange.register_thread()
    time.sleep(.3)
    os.execv(sys.executable, [sys.executable, "-S", "-E", "-c", after])
after = "import signal; signal.pthread_sigmask(1, signal.valid_signals()); print('alive')"
threading.Thread(target=execute).start()
"""
    file = program(tmp_path, IMPORTS + code)
    done = subprocess.run(
        [sys.executable, file], capture_output=True, text=True, env=clean_environment(**HELPERS)
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "alive\n", "")
