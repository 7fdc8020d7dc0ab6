# SPDX-License-Identifier: LGPL-2.1-or-later
"""The parser against its table, and parser and search against the real modprobe."""

from __future__ import annotations

import os
import random
import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestd.host.root import Root
from nestd.text import cmdline, modprobe
from nestd.text.cmdline import Argument
from nestd.text.modprobe import Directive


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", []),
        ("\n \n# options a b=1\n", []),
        ("options kvm-amd nested=1 npt=0\n", [(1, "options", "kvm_amd", ("nested=1", "npt=0"))]),
        ("options kvm_amd nested=1", [(1, "options", "kvm_amd", ("nested=1",))]),
        ("\toptions\t kvm_amd \tnested=1 ", [(1, "options", "kvm_amd", ("nested=1",))]),
        (
            "\n# c\noptions kvm_amd \\\n nested=1\nblacklist a-b\n",
            [(3, "options", "kvm_amd", ("nested=1",)), (5, "blacklist", "a_b", ())],
        ),
        ("# c \\\noptions a b=1\noptions c d=1\n", [(3, "options", "c", ("d=1",))]),
        ("opt\\\nions a b=1\n", [(1, "options", "a", ("b=1",))]),
        ("options a b=\\1\n", [(1, "options", "a", ("b=1",))]),
        ("options a b=1\\", [(1, "options", "a", ("b=1",))]),
        ("options a b=1\r\n", [(1, "options", "a", ("b=1",))]),
        ('options a b="x y" c=1\n', [(1, "options", "a", ('b="x y"', "c=1"))]),
        ("alias my-* kvm-amd\n", [(1, "alias", "my_*", ("kvm_amd",))]),
        ("install a-b /bin/x  a-b; y\n", [(1, "install", "a_b", ("/bin/x", "a-b;", "y"))]),
        ("softdep a pre: b post: c\n", [(1, "softdep", "a", ("pre:", "b", "post:", "c"))]),
        ("options\noptions a\n", [(1, "options", "", ()), (2, "options", "a", ())]),
        ("  # not a comment\n", [(1, "#", "not", ("a", "comment"))]),
        ("nonsense here\n", [(1, "nonsense", "here", ())]),
        ("options a b=1\0 c=1\n", [(1, "options", "a", ("b=1",))]),
        ("options a b=\udcff\n", [(1, "options", "a", ("b=\udcff",))]),
    ],
)
def test_parse(text: str, wanted: list[tuple[int, str, str, tuple[str, ...]]]) -> None:
    assert modprobe.parse(text) == tuple(Directive(*one) for one in wanted)


@given(st.text('optins a=1\\\n#\t\0\r"\udcff'))
def test_no_text_is_an_error(text: str) -> None:
    numbers = [directive.line for directive in modprobe.parse(text)]
    assert numbers == sorted(numbers)
    assert all(1 <= number <= text.count("\n") + 1 for number in numbers)


def test_setting() -> None:
    (options,) = modprobe.parse('options kvm_intel nested=1 ept=0 nested="N" vpid')
    assert modprobe.setting(options, "nested") == Argument("nested", "N")
    assert modprobe.setting(options, "vpid") == Argument("vpid", None)
    assert modprobe.setting(options, "avic") is None
    (install,) = modprobe.parse("install kvm_intel nested=1")
    assert modprobe.setting(install, "nested") is None


def test_search_hides_by_name_and_sorts_by_name() -> None:
    names = {
        "/lib/modprobe.d": ("kvm.conf", "a.conf"),
        "/etc/modprobe.d": ("zz-nestd.conf", "kvm.conf", ".x.conf", "kvm.conf.bak", "Z.conf"),
        "/run/modprobe.d": ("a.conf",),
    }
    assert modprobe.search(names) == (
        "/etc/modprobe.d/Z.conf",
        "/run/modprobe.d/a.conf",
        "/etc/modprobe.d/kvm.conf",
        "/etc/modprobe.d/zz-nestd.conf",
    )


def test_search_sorts_odd_names_by_their_bytes() -> None:
    # As text, U+10000 is above everything; its first byte, F0, is below FF.
    names = ("\udcff.conf", "\U00010000.conf", "\ue000.conf")
    found = modprobe.search({"/etc/modprobe.d": names})
    assert [path.rpartition("/")[2] for path in found] == ["\ue000.conf", "\U00010000.conf", "\udcff.conf"]


# What Debian's kmod is compiled to look into; /lib is /usr/lib.
_FOLDERS = ("/etc/modprobe.d", "/run/modprobe.d", "/usr/local/lib/modprobe.d", "/usr/lib/modprobe.d")
_NAMES = (
    *("a.conf", "kvm.conf", "zz-nestd.conf", "Z.conf", "10-x.conf", "kvm-amd.conf", "kvm_amd.conf", "ä.conf"),
    *(".conf", ".hidden.conf", "x.conf.bak", "y"),
)
_LINES = (
    *(
        "options kvm_amd nested={n}\n",
        "options kvm-amd nested={n} npt={n}\n",
        "options kvm_intel \\\n nested={n}\n",
    ),
    *(
        "\toptions\tkvm_amd\tavic={n}\n",
        "# options kvm_amd nested={n}\n",
        "# more \\\noptions kvm_amd nested={n}\n",
    ),
    *(
        "  # odd {n}\n",
        "options kvm_amd\n",
        "options\n",
        "opt\\\nions kvm_amd nested={n}\n",
        "\n",
        "nonsense {n}\n",
    ),
    *("options kvm_amd x=\\{n}\n", 'options kvm_amd y="a {n}"\n', "options kvm_amd nested={n}\r\n"),
    *("blacklist kvm-amd{n}\n", "alias my-{n}* kvm-amd\n", "install kvm-x{n} /bin/false  a-b\n"),
    *("remove kvm-x{n} /bin/true\n", "softdep kvm-x{n} pre: a-b\n", "options kvm_amd z=\udcff{n}\n"),
    "options kvm_amd last={n}",
)
_CMDLINES = (
    "ro quiet",
    "ro kvm_amd.nested=0 kvm-intel.nested=N",
    'kvm_amd.nested="1" "kvm_amd.x=a b" nested=1 kvm_amd.y=a.b',
    "kvm_amd.nested=1 -- kvm_amd.nested=0",
)


def _configure(root: Root, chance: random.Random) -> None:
    for folder in _FOLDERS:
        Path(root.path(folder)).mkdir(parents=True)
        for name in chance.sample(_NAMES, chance.randint(0, 6)):
            path = Path(root.path(f"{folder}/{name}"))
            what = chance.random()
            if what < 0.05:
                path.mkdir()
            elif what < 0.2:
                path.symlink_to("/dev/null")
            else:
                lines = chance.choices(_LINES, k=chance.randint(0, 6))
                text = "".join(line.format(n=chance.randint(0, 9)) for line in lines)
                path.write_bytes(text.encode("utf-8", "surrogateescape"))
    Path(root.path("/proc")).mkdir()
    Path(root.path("/proc/cmdline")).write_text(chance.choice(_CMDLINES) + "\n")


def _real(top: Path) -> list[str]:
    """What the real modprobe makes of the tree, in a mount namespace of its own."""
    script = ["set -e", "mount -t tmpfs none /run", "mount -t tmpfs none /usr/local/lib"]
    for folder in _FOLDERS:
        script.append(
            f"[ -d {folder} ] || mkdir {folder}; mount --bind {shlex.quote(str(top))}{folder} {folder}"
        )
    script.append(f"mount --bind {shlex.quote(str(top))}/proc/cmdline /proc/cmdline")
    script.append("exec modprobe -c")
    unshare = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-Urm"]
    done = subprocess.run(
        [*unshare, "sh", "-c", "\n".join(script)], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.decode("utf-8", "surrogateescape").split("\n")


def _ours(root: Root) -> list[Directive]:
    files = modprobe.search({folder: root.files(folder) for folder in modprobe.FOLDERS})
    found = [directive for file in files for directive in modprobe.parse(root.read(file) or "")]
    for argument in cmdline.parse(root.read("/proc/cmdline") or "", whole=True):
        module, _, parameter = argument.name.partition(".")
        if parameter:
            value = "" if argument.value is None else f'="{argument.value}"'
            found.append(Directive(0, "options", module.replace("-", "_"), (parameter + value,)))
    return found


def _meaning(command: str, module: str, arguments: tuple[str, ...]) -> tuple[object, ...]:
    if command == "options":
        return (module, tuple(map(cmdline.argument, arguments)))
    return (module, arguments)


@pytest.mark.parametrize("seed", range(16))
def test_as_the_real_modprobe(tmp_path: Path, seed: int) -> None:
    root = Root(str(tmp_path))
    _configure(root, random.Random(seed))
    printed = [words for line in _real(tmp_path) if len(words := line.split(" ", 2)) > 1]
    ours = _ours(root)
    for command in ("options", "blacklist", "alias", "install", "remove", "softdep"):
        real = [
            _meaning(command, words[1], cmdline.words(" ".join(words[2:])))
            for words in printed
            if words[0] == command
        ]
        mine = [
            _meaning(command, one.module, one.arguments)
            for one in ours
            # modprobe drops a line that says nothing about its module.
            if one.command == command and one.module and (one.arguments or command == "blacklist")
        ]
        assert mine == real, command
