"""What the keys of `vrange top` do: sorting and scrolling."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from vrange.cli import main
from vrange.cli.top.figures import SORTS, AccountFigures, ProcessFigures
from vrange.cli.top.view import View


def account(name: str, held: int, asked: float, lost: float) -> AccountFigures:
    sizes = {"pinned": held, "hot": 0, "idle": 0, "offered": 0}
    return AccountFigures(name, "cache", sizes, asked, 0.5, lost, 0, None, None)


ACCOUNTS = [account("tiles", 5, 7, 1), account("rows", 9, 1, 2), account("users", 1, 8, 0)]


def process(accounts: list[AccountFigures]) -> ProcessFigures:
    return ProcessFigures(1, "python", "", "refault", 1, 2, 0, 0, None, 0, 0, 0, accounts)


class Screen:
    """A terminal of so many lines, and what is on it."""

    def __init__(self, lines: int, sort: str | None = None) -> None:
        self._file = io.StringIO()
        self.console = Console(
            file=self._file, force_terminal=True, width=80, height=lines, color_system=None
        )
        self.view = View(self.console, sort)

    def draws(self, *keys: str) -> list[str]:
        """The lines of the drawing after the last of these keys."""
        for key in keys:
            self.view.press(key)
        return [
            "".join(segment.text for segment in line).rstrip()
            for line in self.console.render_lines(self.view._window)
        ]


def names(lines: list[str]) -> list[str]:
    shown = [line for line in lines if any(one.name in line for one in ACCOUNTS)]
    return [line.split()[1] for line in shown]


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        (None, ["tiles", "rows", "users"]),
        ("name", ["rows", "tiles", "users"]),
        ("memory", ["rows", "tiles", "users"]),
        ("asked", ["users", "tiles", "rows"]),
        ("lost", ["rows", "tiles", "users"]),
    ],
)
def test_sorting(sort: str | None, expected: list[str]) -> None:
    screen = Screen(40, sort)
    screen.view.show([process(ACCOUNTS)])
    assert names(screen.draws()) == expected
    assert sort is None or any(f"by {sort}" in line for line in screen.draws())


def test_s_goes_through_all_orders_and_back() -> None:
    screen = Screen(40)
    screen.view.show([process(ACCOUNTS)])
    seen = [names(screen.draws("s")) for _ in range(len(SORTS) + 1)]
    assert seen[2] == ["users", "tiles", "rows"]
    assert seen[-1] == ["tiles", "rows", "users"]


def test_what_does_not_fit_is_scrolled_to() -> None:
    many = [account(f"cache-{number:03}", 1, 1, 1) for number in range(100)]
    screen = Screen(20)
    screen.view.show([process(many)])
    first = screen.draws()
    assert len(first) <= 20
    assert first[-1].startswith("lines 1 to 18 of ")
    assert screen.draws("j", "\x1b[B")[:-1] == [*first[2:18], *screen.draws()[16:18]]
    assert screen.draws("k", "\x1bOA", "k") == first
    while screen.draws() != screen.draws(" "):
        pass
    last = screen.draws()
    assert any("cache-099" in line for line in last)
    screen.view.show([process(many[:3])])
    assert any("cache-000" in line for line in screen.draws())
    assert not any("lines " in line for line in screen.draws())


def test_a_slash_and_what_is_typed_show_only_what_has_it_in_its_name() -> None:
    screen = Screen(40)
    screen.view.show([process(ACCOUNTS)])
    assert names(screen.draws("/", "T", "i")) == ["tiles"]
    assert screen.draws()[-1].startswith("filter: Ti_")
    assert names(screen.draws("q")) == []  # a letter of the text, as any other
    assert any("'Tiq'" in line for line in screen.draws())
    assert names(screen.draws("\x7f", "\r")) == ["tiles"]
    assert screen.draws()[-1] == "filter: Ti"
    screen.view.show([process([*ACCOUNTS, account("titles", 3, 1, 1)])])
    assert names(screen.draws()) == ["tiles"]
    assert any("titles" in line for line in screen.draws())
    assert names(screen.draws("/", "\x1b")) == ["tiles", "rows", "users"]
    assert not any("filter" in line for line in screen.draws())


def test_a_process_that_is_named_has_all_its_caches() -> None:
    screen = Screen(40)
    screen.view.show([process(ACCOUNTS)])
    assert names(screen.draws("/", *"pyth", "\r")) == ["tiles", "rows", "users"]


def test_drawing_again_adds_nothing_to_the_past() -> None:
    screen = Screen(40)
    screen.view.show([process(ACCOUNTS)])
    before = {key: list(past) for key, past in screen.view._past.items()}
    screen.draws("s", "j")
    assert {key: list(past) for key, past in screen.view._past.items()} == before


def test_an_unknown_order_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["top", "--sort", "size"])
    assert "'name', 'memory', 'asked', 'lost'" in capsys.readouterr().err
