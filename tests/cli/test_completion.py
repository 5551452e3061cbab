"""What a shell completes after `vrange`."""

from __future__ import annotations

import subprocess

import pytest

from vrange.cli import main


def script_of(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


def completed(script: str, *words: str) -> set[str]:
    """What bash offers for the last of these words."""
    code = """
    source /dev/stdin
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
    _vrange
    printf '%s\\n' "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        ["bash", "-u", "-c", code, "bash", *words],
        input=script,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert not done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["vrange", "to"], {"top"}),
        (["vrange", "do"], {"doctor"}),
        (["vrange", "--v"], {"--version"}),
        (["vrange", "doctor", "--c"], {"--check"}),
        (["vrange", "top", "12", "--in"], {"--interval"}),
        (["vrange", "top", "1"], set()),
        (["vrange", "none", "--x"], set()),
    ],
)
def test_bash(words: list[str], expected: set[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert completed(script_of("bash", capsys), *words) == expected


def test_all_commands_and_other_shells(capsys: pytest.CaptureFixture[str]) -> None:
    bash = script_of("bash", capsys)
    offered = completed(bash, "vrange", "")
    assert {"completion", "doctor", "run", "top", "why"} <= offered
    assert script_of("zsh", capsys).endswith(bash)
    fish = script_of("fish", capsys)
    for command in offered - {"--help", "--version"}:
        assert f"-n __fish_use_subcommand -a {command}\n" in fish
    assert "-n '__fish_seen_subcommand_from doctor' -l check\n" in fish


def test_a_shell_that_is_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["completion", "tcsh"])
    assert "'bash', 'fish', 'zsh'" in capsys.readouterr().err
