# SPDX-License-Identifier: LGPL-2.1-or-later
"""What kernelinstall.py takes back, as sh: for when nestd is gone."""

# No postponed annotations here: see nestd/model.py.

import shlex

from nestd.host.efi import PARTITIONS
from nestd.nesting.loaders import entries, sed
from nestd.nesting.loaders.entries import ENTRIES, TEMPLATE
from nestd.nesting.loaders.kernelinstall import SEED, TOKENS
from nestd.nesting.own import Own
from nestd.text.arguments import Edit

_OPTIONS = "[[:blank:]]*options[[:blank:]]+"
_SILENT = "^[[:blank:]]*(#|$)"
# $1: the file, $2: what sed does to it. What comes out the same is not written.
_FUNCTION = """\
nestd_edit() {
    cp -p -- "$1" "$1.nestd" && LC_ALL=C sed -E -e "$2" -- "$1" > "$1.nestd" || {
        rm -f -- "$1.nestd"
        return 1
    }
    if cmp -s -- "$1" "$1.nestd"; then
        rm -f -- "$1.nestd"
    else
        sync "$1.nestd" && mv -f -- "$1.nestd" "$1" && sync -f "$1"
    fi
}
"""


def lines(own: Own) -> str:
    """The sh lines. Where somebody has changed a file since, only nestd's words go, and theirs come back."""
    had = Edit(own.added, own.removed)
    before = own.notes.get(TEMPLATE, own.notes.get(SEED, ""))
    later = _row_program(entries.theirs(had, before, entries.template_has))
    cases = []
    for key, row in own.notes.items():
        if not key.endswith(".conf"):
            continue
        program = [sed.exchanged(entries.row_edited(row, had), row), "t"]
        program += _row_program(entries.theirs(had, row, entries.row_has))
        name = shlex.quote(key.removesuffix(".conf"))
        cases.append(f'        {name}.conf|{name}+*.conf) nestd_edit "$entry" {_quoted(program)} ;;\n')
    for token in own.notes.get(TOKENS, "").split():
        cases.append(f'        */{shlex.quote(token)}-*.conf) nestd_edit "$entry" {_quoted(later)} ;;\n')
    folders = " ".join(f"{partition}/{ENTRIES}/*.conf" for partition in PARTITIONS)
    return (
        f"{_FUNCTION}for entry in {folders}; do\n"
        '    test -f "$entry" || continue\n    case "$entry" in\n'
        f"{''.join(cases)}    esac\ndone\n{_template(own, had, before)}"
    )


def _row_program(back: Edit) -> list[str]:
    return [f"/^{_OPTIONS}/!b", *sed.without(back.remove, _OPTIONS), *sed.added(back.add)]


def _template(own: Own, had: Edit, before: str) -> str:
    written = shlex.quote(entries.template_edited(before, had))
    back = entries.theirs(had, before, entries.template_has)
    edits = f"    nestd_edit {TEMPLATE} {_quoted([f'/{_SILENT}/b', *sed.without(back.remove)])}\n"
    for word in back.add:
        # x, the hold space: whether the first row that says something is behind
        program = [f"/{_SILENT}/b", "x", "/./{", "x", "b", "}", "s/^/x/", "x", *sed.added((word,))]
        rows = f"grep -Ev {shlex.quote(_SILENT)} {TEMPLATE}"
        edits += f"    {rows} | grep -Eq {shlex.quote(sed.there(word))} ||\n"
        edits += f"        nestd_edit {TEMPLATE} {_quoted(program)}\n"
    if SEED in own.notes:
        restored = f"rm -f {TEMPLATE}"
    else:
        new = f"{TEMPLATE}.nestd"
        restored = (
            f"cp -p {TEMPLATE} {new} && printf %s {shlex.quote(before)} > {new} && sync {new} && "
            f"mv -f {new} {TEMPLATE}"
        )
    return (
        f"if printf %s {written} | cmp -s - {TEMPLATE}; then\n    {restored}\n"
        f"elif test -f {TEMPLATE}; then\n{edits}fi\n"
    )


def _quoted(program: list[str]) -> str:
    return shlex.quote("\n".join(program))
