# SPDX-License-Identifier: LGPL-2.1-or-later
"""Words put on a kernel command line, and taken off it, with all other bytes left as they are."""

# No postponed annotations here: see nestd/model.py.

from typing import NamedTuple

from nestd.text import cmdline

_BLANKS = " \t"


class Edit(NamedTuple):
    """Whole words as they are written: `kvm_amd.nested=1`. Those of `remove` go first."""

    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.add and not self.remove


def has(line: str, word: str) -> bool:
    """Whether `word` is one of the line's words; `-` equals `_` in its name."""
    return any(_normal(one) == _normal(word) for one in cmdline.words(line))


def edited(line: str, edit: Edit) -> str:
    """The line without each word that equals one of `edit.remove`, and with each of `edit.add`, once.

    A word that goes takes one blank along. One that comes is put at the end, before the white space there;
    but before a bare `--`, behind which all is init's, and to the front where a quote is never closed.
    """
    for word in edit.remove:
        line = _without(line, word)
    for word in edit.add:
        if not has(_kernels(line), word):
            line = _with(line, word)
    return line


def _without(line: str, word: str) -> str:
    for start, end in reversed(_spans(line)):
        if _normal(line[start:end]) == _normal(word):
            if line[:start].endswith(tuple(_BLANKS)):
                line = line[: start - 1] + line[end:]
            else:
                line = line[:start] + (line[end + 1 :] if line[end : end + 1] in _BLANKS else line[end:])
    return line


def _with(line: str, word: str) -> str:
    kernels = _kernels(line).rstrip()
    if not kernels or kernels.count('"') % 2:
        return f"{word} {line}" if line.strip() else word + line
    return f"{kernels} {word}{line[len(kernels) :]}"


def _kernels(line: str) -> str:
    """What of the line the kernel takes for itself: all in front of a bare `--`."""
    return next((line[:start] for start, end in _spans(line) if line[start:end] in {"--", '"--"'}), line)


def _spans(line: str) -> list[tuple[int, int]]:
    found = []
    at = 0
    for word in cmdline.words(line):
        start = line.index(word, at)
        at = start + len(word)
        found.append((start, at))
    return found


def _normal(word: str) -> str:
    name, equals, value = word.partition("=")
    return name.replace("-", "_") + equals + value
