"""The program to run: a file for the interpreter, a module, code, or a command."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CannotRunError", "Target", "find_target"]

_NOT_FOUND, _NOT_EXECUTABLE = 127, 126  # the exit statuses that shells use
# Of an interpreter's options, which may stand in one word.
_SKIP_START, _END_OPTIONS, _TAKE_VALUE = "EIS", "cm", "WX"
_PYTHON_FILES = (".py", ".pyw", ".pyc", ".pyz", ".pyzw")


@dataclass(frozen=True)
class Target:
    """The file to execute, and its arguments from argv[0] on."""

    path: str
    arguments: list[str]

    def skips_start(self) -> str | None:
        """Return the option by which an interpreter skips what starts vrange in it, or None.

        `-E` and `-I` ignore PYTHONPATH, and `-S` and `-I` imports that the site module makes.
        """
        if not Path(self.path).name.startswith(("python", "pypy")):
            return None
        words = iter(self.arguments[1:])
        for word in words:
            if not word.startswith("-") or word in ("-", "--"):
                return None
            if word.startswith("--"):
                continue
            for letter in word[1:]:
                if letter in _SKIP_START:
                    return f"-{letter}"
                if letter in _END_OPTIONS:
                    return None
                if letter in _TAKE_VALUE:
                    if word.endswith(letter):
                        next(words, None)
                    break
        return None


class CannotRunError(Exception):
    """The program can't be started; `status` is the exit status that a shell would use."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status

    @classmethod
    def of(cls, target: Target, error: OSError) -> CannotRunError | None:
        """Translate the kernel's refusal to execute; None if the error has another cause."""
        if error.errno == errno.ENOENT and os.path.exists(target.path):
            return cls(
                f"{target.path}: the interpreter in its first line (#!) was not found", _NOT_FOUND
            )
        if error.errno == errno.ENOENT:
            return cls(f"{target.path}: no such program", _NOT_FOUND)
        if error.errno == errno.ENOEXEC:
            why = "it is not a program for this machine and has no first line with #!"
            return cls(f"{target.path}: can't be executed: {why}", _NOT_EXECUTABLE)
        if error.errno in (errno.EACCES, errno.E2BIG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR):
            return cls(f"{target.path}: can't be executed: {error.strerror}", _NOT_EXECUTABLE)
        return None


def find_target(command_line: Sequence[str]) -> Target:
    """Decide what to execute: -m module, -c code, a file or a command, and its arguments.

    This interpreter runs a file whose name says Python (.py, .pyw, .pyz, .pyc), a directory or zip
    with a `__main__`, and a file in this directory that isn't executable. Anything else is a
    command, which is looked up on PATH unless it contains a slash.

    Raises
    ------
    CannotRunError
        If nothing is found, or nothing that can be executed.
    ValueError
        If nothing was named.

    """
    words = list(command_line)
    if words[:1] == ["--"]:
        del words[0]
    if words and words[0][:2] in ("-m", "-c"):
        if words in (["-m"], ["-c"]):
            raise ValueError(f"{words[0]} needs an argument, as python's own does")
        return Target(sys.executable, [sys.executable, *words])
    if not words:
        raise ValueError("nothing to run: name a program.py, -m module, or a command")
    name = words[0]
    path = Path(name)
    if path.suffix.lower() in _PYTHON_FILES or path.is_dir():
        if not path.exists():
            raise CannotRunError(f"{name}: no such file", _NOT_FOUND)
        if path.is_dir() and not (path / "__main__.py").exists():
            raise CannotRunError(f"{name}: a directory without a __main__.py", _NOT_EXECUTABLE)
        if not os.access(path, os.R_OK):
            raise CannotRunError(f"{name}: it can't be read", _NOT_EXECUTABLE)
        return Target(sys.executable, [sys.executable, *words])
    found = name if "/" in name else _which(name)
    if found is None or not os.access(found, os.X_OK):
        if path.is_file() and (_is_text(path) or _is_zip(path)):
            return Target(sys.executable, [sys.executable, *words])
        if path.exists():
            raise CannotRunError(f"{name}: neither executable nor Python", _NOT_EXECUTABLE)
        raise CannotRunError(f"{name}: no such file, and no such command on PATH", _NOT_FOUND)
    return Target(found, words)


# Each takes milliseconds to import, before the program begins.
def _which(name: str) -> str | None:
    import shutil

    return shutil.which(name)


def _is_zip(path: Path) -> bool:
    import zipfile

    return zipfile.is_zipfile(path)


def _is_text(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return b"\0" not in file.read(4096)
    except OSError:
        return False
