"""The README as package indexes show it: there, a link to a file of the repository leads nowhere.

`setup.py` writes this page into the metadata of the wheel and the sdist. If `[project.urls]` in
pyproject.toml has a "Source", links and images lead there. Without it links are plain text, and
images are left out.
"""

from __future__ import annotations

import re

# A fenced block, or code within a line: not read for links.
_CODE = r"^(?P<fence>`{3,}|~{3,}).*?^(?P=fence)[ \t]*$|(?P<ticks>`+)[^`](?:.*?[^`])?(?P=ticks)(?!`)"
# [text](target), or an image with "!" before it. The text may have code or brackets in it.
_LINK = (
    r"(?P<image>!?)\[(?P<text>(?:[^\[\]]|\[[^\[\]]*\])*)\]"
    r"\((?P<target>[^()\s]+)(?P<title>\s+\"[^\"]*\")?\)"
)
_PART = re.compile(f"{_CODE}|{_LINK}", re.MULTILINE | re.DOTALL)
_ABSOLUTE = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:")


def project_page(readme: str, source: str | None, revision: str) -> str:
    """Return the README without relative links.

    Parameters
    ----------
    readme : str
        The README, in Markdown with inline links.
    source : str or None
        The address of the repository, where files are at `blob/REVISION/PATH` and images at
        `raw/REVISION/PATH`, as GitHub, GitLab and Gitea have them.
    revision : str
        The tag or branch that links lead to.

    Returns
    -------
    str
        The page, in Markdown.

    Examples
    --------
    >>> project_page("[docs](docs/a.md), [PEP](https://peps.python.org/)", None, "v1")
    'docs, [PEP](https://peps.python.org/)'
    >>> project_page("[docs](docs/a.md#b)", "https://example.org/vrange", "v1")
    '[docs](https://example.org/vrange/blob/v1/docs/a.md#b)'

    """

    def changed(part: re.Match[str]) -> str:
        target = part["target"]
        if target is None or _ABSOLUTE.match(target):
            return part[0]
        if source is None or target.startswith("#"):  # indexes name headings in their own way
            return "" if part["image"] else part["text"]
        kind = "raw" if part["image"] else "blob"
        there = f"{source.rstrip('/')}/{kind}/{revision}/{target}"
        return f"{part['image']}[{part['text']}]({there}{part['title'] or ''})"

    return _PART.sub(changed, readme)
