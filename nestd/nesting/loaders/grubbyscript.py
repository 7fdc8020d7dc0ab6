# SPDX-License-Identifier: LGPL-2.1-or-later
"""What grubby.py takes back, as sh: for when nestd is gone."""

# No postponed annotations here: see nestd/model.py.

from nestd.host.bootloader import KERNEL_CMDLINE
from nestd.nesting.loaders import grubbyfiles, sed
from nestd.nesting.loaders.grubby import asking, kernel
from nestd.nesting.loaders.grubbyfiles import DEFAULTS, ENTRIES, MADE, Asked
from nestd.nesting.loaders.words import quoted
from nestd.nesting.own import Own
from nestd.text.arguments import Edit

_BLANK = "[[:blank:]]"
_FUNCTION = """\
nestd_put() {
    cp -p -- "$1" "$1.nestd" && printf %s "$2" > "$1.nestd" && sync "$1.nestd" && mv -f -- "$1.nestd" "$1"
}
"""
_CASE = """\
if [ ! -e {path} ] || [ "$(cat {path})" = {before} ]; then
    :
elif [ "$(cat {path})" = {after} ]; then
    {restore}
else
    {other}
fi
"""
_LATER = """\
for entry in {entries}/*.conf; do
    [ -e "$entry" ] || continue
    case "$entry" in {known}) continue;; esac
    kernel=$(sed -n 's/^linux[[:blank:]]*//p' "$entry")
    [ -z "$kernel" ] || grubby --update-kernel="/boot${{kernel#/boot}}" --remove-args={added}
done
"""


def lines(own: Own) -> str:
    """The sh lines. What is as nestd left it is written back; from the rest only nestd's words go."""
    edit = Edit(own.added, own.removed)
    files = {path: text for path, text in own.notes.items() if path.startswith("/")}
    cases = [_case(path, text, edit, f"nestd_put {quoted(path, text)}") for path, text in files.items()]
    if seed := own.notes.get(MADE + KERNEL_CMDLINE):
        cases.append(_case(KERNEL_CMDLINE, seed, edit, f"rm -f {KERNEL_CMDLINE}"))
    known = "|".join(quoted(path) for path in files if path.startswith(ENTRIES)) or "''"
    later = _LATER.format(known=known, entries=ENTRIES, added=quoted(" ".join(own.added)))
    return _FUNCTION + "".join(cases) + later


def _case(path: str, before: str, edit: Edit, restore: str) -> str:
    after = grubbyfiles.target({path: before}, Own(), edit, "").texts[path] or ""
    if after == before:
        return ""
    back = grubbyfiles.back(path, before, edit)
    entry = path.startswith(ENTRIES)
    return _CASE.format(
        path=quoted(path),
        before=quoted(before.rstrip("\n")),
        after=quoted(after.rstrip("\n")),
        restore=restore,
        other=quoted(*asking(kernel(before), back)) if entry else _edited(path, back),
    )


def _edited(path: str, back: Asked) -> str:
    """The command that does it to one of the two files, which somebody has changed since."""
    if path == KERNEL_CMDLINE:
        program = [*sed.without(back.remove), *sed.added(back.add)]
    else:
        assert path == DEFAULTS
        begin = '^(GRUB_CMDLINE_LINUX="'
        program = ['/^GRUB_CMDLINE_LINUX="/!b']
        for one in map(sed.word, back.remove):
            program += [
                f's/{begin}){one}({_BLANK}|")/\\1\\2/',
                f's/{begin}[^"]*){_BLANK}{one}({_BLANK}|")/\\1\\2/',
            ]
        program += [f'/{sed.word(one)}/!s/{begin}[^"]*)"/\\1 {sed.literal(one)}"/' for one in back.add]
    return f"sed -E -i -e {quoted(chr(10).join(program))} {path}"
