"""Run by interpreters that `vrange run` starts: switches vrange on, and removes its own traces.

Its directory is first on PYTHONPATH. Before anything else it removes itself from the path and,
unless --children was given, from the environment, so that neither the program nor its children see
it. With --deep it stays there, because children are deep, too; nothing else is on in them. Then it
runs the sitecustomize that the interpreter would have run without it. Interpreters that vrange
doesn't support must be able to read this file, and it must never be the reason that a program ends.
"""

# ruff: noqa: SIM105, UP031
# mypy: ignore-errors

import os
import sys


def _restore(settings, here):
    """Restore the path and the environment that the program would have had without vrange."""
    sys.path[:] = [entry for entry in sys.path if entry != here]
    sys.path_importer_cache.pop(here, None)
    if settings.get("children"):
        return
    os.environ.pop("VRANGE_RUN", None)
    for name, value in settings.get("restore", {}).items():
        if name == "PYTHONPATH" and settings.get("deep"):
            continue
        now = os.environ.get(name)
        if name == "PYTHONPATH" and now is not None and now != here:
            # A program in between may have added to it.
            parts = now.split(os.pathsep)
            if here in parts:
                parts.remove(here)
            os.environ[name] = os.pathsep.join(parts)
        elif value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _say(text):
    """Write to standard error, which may be closed (None), or full."""
    try:
        sys.stderr.write(text)
    except Exception:
        pass


def _is_main_interpreter():
    """Return False in a subinterpreter: CPython ends the process if one ends with a thread."""
    for name in ("_interpreters", "_xxsubinterpreters"):
        try:
            interpreters = __import__(name)
            return interpreters.get_current() == interpreters.get_main()
        except (ImportError, AttributeError):
            pass
    return True


def _switch_on():
    here = os.path.dirname(os.path.abspath(__file__))
    settings = {}
    try:
        import json

        settings = json.loads(os.environ.get("VRANGE_RUN", "{}"))
        deep = os.environ.get("VRANGE_DEEP")
        if deep:
            settings = dict(settings or {"only_deep": True}, deep=deep)
    finally:
        _restore(settings, here)
    if not settings or not _is_main_interpreter():
        return
    try:
        from vrange import _autostart
    except Exception as error:
        if settings.get("only_deep"):
            return
        _say(
            "vrange run: vrange can't be imported by %s (%s): the program runs without it\n"
            % (sys.executable, error)
        )
        return
    _autostart.start(settings)


def _the_users_own():
    """Run the sitecustomize that this one hides, in its place. Return whether there is one."""
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        spec = find(__name__, None) if find else None
        if spec is not None and spec.loader is not None:
            import importlib.util

            module = importlib.util.module_from_spec(spec)
            sys.modules[__name__] = module
            spec.loader.exec_module(module)
            return True
    return False


try:
    _switch_on()
except Exception as error:
    _say("vrange run: %s: the program runs without it\n" % (error,))

if __name__ == "sitecustomize" and not _the_users_own():
    # The site module takes this to mean that there is no sitecustomize, which is true.
    # Python 2 takes no `name`, and writes to standard error what else is raised.
    _none = ImportError("there is no other sitecustomize")
    _none.name = "sitecustomize"
    raise _none
