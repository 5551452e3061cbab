"""`vrange completion SHELL`: prints a script by which a shell completes commands and options.

eval "$(vrange completion bash)"        in ~/.bashrc; "zsh" in ~/.zshrc
vrange completion fish | source         in ~/.config/fish/config.fish
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping

__all__ = ["DESCRIBES_ALL", "add_parser", "run"]

DESCRIBES_ALL = True

_BASH = """\
_vrange() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} words=""
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{commands}" -- "$word"))
        return
    fi
    case ${{COMP_WORDS[1]}} in
{cases}
    esac
    COMPREPLY=()
    case $word in
        -*) COMPREPLY=($(compgen -W "$words" -- "$word")) ;;
    esac
}}
complete -o default -F _vrange vrange
"""
_ZSH = "autoload -U +X compinit bashcompinit && compinit && bashcompinit\n"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `vrange completion`."""
    parser = subparsers.add_parser(
        "completion",
        help="print a script that completes commands and options in a shell",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=sorted(_SCRIPTS))
    parser.set_defaults(parsers=subparsers.choices)  # all of them, once they are added


def run(args: argparse.Namespace) -> int:
    """Print the script, and return 0."""
    options = {name: _options(parser) for name, parser in args.parsers.items()}
    print(_SCRIPTS[args.shell](options), end="")
    return 0


def _options(parser: argparse.ArgumentParser) -> list[str]:
    return sorted(name for name in parser._option_string_actions if name.startswith("--"))


def _bash(options: Mapping[str, Iterable[str]]) -> str:
    cases = "\n".join(
        f'        {name}) words="{" ".join(its)}" ;;' for name, its in options.items()
    )
    return _BASH.format(commands=" ".join([*options, "--help", "--version"]), cases=cases)


def _fish(options: Mapping[str, Iterable[str]]) -> str:
    lines = [
        "complete -c vrange -n __fish_use_subcommand -f",
        "complete -c vrange -n __fish_use_subcommand -l help",
        "complete -c vrange -n __fish_use_subcommand -l version",
    ]
    for name, its in options.items():
        lines.append(f"complete -c vrange -n __fish_use_subcommand -a {name}")
        lines += [
            f"complete -c vrange -n '__fish_seen_subcommand_from {name}' -l {option[2:]}"
            for option in its
        ]
    return "\n".join(lines) + "\n"


_SCRIPTS: dict[str, Callable[[Mapping[str, Iterable[str]]], str]] = {
    "bash": _bash,
    "fish": _fish,
    "zsh": lambda options: _ZSH + _bash(options),
}
