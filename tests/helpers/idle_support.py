"""What the tests of trims share: threads that have used much stack and wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from deep_helpers import MIB

import vrange


def touch_own_stack(size: int) -> None:
    """Make so much of this thread's stack resident, as deep recursion would have."""
    import ctypes

    libc = ctypes.PyDLL(None)
    libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    info = [t for t in vrange.stack_info().threads if t.thread_id == threading.get_native_id()]
    (low, high) = own_mapping(info[0].reserved_bytes)
    # well below any frame of this thread, and well above the guard
    libc.memset(high - 2 * MIB - size, 7, size)
    del low


def own_mapping(size: int) -> tuple[int, int]:
    import ctypes

    class Local(ctypes.Structure):
        _fields_ = [("x", ctypes.c_int)]

    # the mapping that holds this thread's stack: found by pthread_getattr_np
    libc = ctypes.PyDLL(None)
    attributes = (ctypes.c_char * 128)()
    address, length = ctypes.c_void_p(), ctypes.c_size_t()
    libc.pthread_self.restype = ctypes.c_ulong
    libc.pthread_getattr_np.argtypes = [ctypes.c_ulong, ctypes.c_void_p]
    assert libc.pthread_getattr_np(libc.pthread_self(), attributes) == 0
    libc.pthread_attr_getstack(attributes, ctypes.byref(address), ctypes.byref(length))
    libc.pthread_attr_destroy(attributes)
    assert address.value is not None
    assert length.value == size
    return address.value, address.value + length.value


class Worker:
    """A registered thread that has used much stack and then blocks in what it was given."""

    def __init__(self, block: Callable[[Worker], object], stack: int = 64 * MIB) -> None:
        self.ready = threading.Event()
        self.result: object = None
        self.error: BaseException | None = None
        self.native_id = 0
        self.signals = 0
        old = threading.stack_size(stack)
        self.thread = threading.Thread(target=self._run, args=(block,))
        try:
            self.thread.start()
        finally:
            threading.stack_size(old)
        assert self.ready.wait(30)

    def _run(self, block: Callable[[Worker], object]) -> None:
        vrange.register_thread()
        self.native_id = threading.get_native_id()
        touch_own_stack(8 * MIB)
        self.ready.set()
        try:
            self.result = block(self)
        except BaseException as error:
            self.error = error

    def use(self) -> vrange.StackUse:
        (use,) = [t for t in vrange.stack_info().threads if t.thread_id == self.native_id]
        return use

    def wait_until_blocked(self) -> None:
        assert until(lambda: is_blocked(self.native_id)), "the worker never blocked"

    def join(self) -> object:
        self.thread.join(30)
        assert not self.thread.is_alive()
        if self.error is not None:
            raise self.error
        return self.result


def is_blocked(native_id: int) -> bool:
    """Whether it waits in the kernel, be it for what it was given or for the GIL."""
    with open(f"/proc/self/task/{native_id}/stat") as line:
        return line.read().rpartition(")")[2].split()[0] == "S"


def until(condition: Callable[[], bool]) -> bool:
    """Whether it comes true. join() for one returns a little before the thread is gone."""
    for _ in range(1000):
        if condition():
            return True
        time.sleep(0.01)
    return False
