"""Without Linux, too, first and later answers are the same, and changing one changes no other."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import other_platform
import pytest

TESTS = Path(__file__).parent.parent / "cache"
elsewhere = partial(
    other_platform.elsewhere,
    imports="asyncio, concurrent.futures, sqlite3, tempfile, threading, "
    "numpy as np, pandas, psutil, pytest, scipy.sparse",
    prelude=f"""
sys.path.insert(0, {str(TESTS)!r})
import test_answers as answers, test_closing as closing, test_identity as identity
import test_unstored_answers as unstored
""",
)


@pytest.mark.parametrize(
    "check",
    [
        "test_first_and_later_answers_are_the_same(kind, 'auto')",
        "test_changing_an_answer_changes_no_other(kind, 'auto')",
        "test_a_stored_value_is_as_it_was_when_it_was_stored(kind)",
        "test_copies_are_writable_and_each_callers_own(kind)",
    ],
    ids=lambda check: check.partition("(")[0],
)
def test_answers(check: str) -> None:
    elsewhere(f"""
    for kind in answers.KINDS:
        answers.{check}
    """)


def test_answers_that_are_not_stored() -> None:
    elsewhere("""
    for kind in unstored.KINDS:
        for way in unstored.WAYS:
            for copy in False, True:
                unstored.test_it_is_as_writable_as_a_stored_one(kind, way, copy)
    unstored.test_computations_are_counted_though_their_values_are_not_stored({"max_entries": 0})
    """)


def test_a_caller_that_reshapes_an_array_of_a_tuple_changes_no_other() -> None:
    elsewhere("""
    with vrange.VolatileCache() as cache:
        cache.get_or_compute("k", lambda: (np.arange(4.0), "name"))
        cache["k"][0].shape = 2, 2
        assert cache["k"][0].shape == (4,)
    """)


def test_closing() -> None:
    elsewhere("""
    for value in closing.VALUES:
        for how in "thread", "task":
            make = lambda: vrange.VolatileCache(name="closing")
            closing.test_each_caller_gets_its_answer(make, how, value)
    closing.test_a_decorated_function_returns_its_value()
    """)


def test_identity() -> None:
    elsewhere("""
    for value in identity.SINGLETONS:
        with vrange.VolatileCache() as cache:
            identity.test_singletons_come_back_as_themselves(cache, value)
        with vrange.VolatileCache() as cache:
            identity.test_singletons_come_back_as_themselves_at_any_depth(cache, value)
    with vrange.VolatileCache() as cache:
        identity.test_lists_and_dicts_of_a_module_are_data(cache)
    @vrange.cached
    def settings():
        return identity.Settings()
    assert settings() is settings()
    """)


def test_what_can_not_be_kept() -> None:
    elsewhere("""
    for kind in identity.NOT_KEPT:
        for is_deep in (False, True):
            identity.test_what_can_not_be_kept_is_returned_with_one_warning(kind, is_deep)
    identity.test_a_signal_while_a_value_is_pickled_is_not_taken_for_the_values_fault()
    """)
