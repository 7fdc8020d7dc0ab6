# SPDX-License-Identifier: LGPL-2.1-or-later
"""Hundreds of generated configurations: parser and solver against what the real modprobe makes of them."""

from __future__ import annotations

import random
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest

from nestd.host.root import Root
from nestd.model import DriverState, Nesting
from nestd.nesting import boot, drivers
from nestd.text import cmdline, modprobe
from tests.support import realmodprobe
from tests.support.realmodprobe import FOLDERS, RELEASE, Answer

CONFIGURATIONS = 300
DRIVER = next(driver for driver in drivers.table("6.1.0") if driver.name == "kvm_amd")
_NAMES = (
    *("a.conf", "kvm.conf", "zz-nestd.conf", "Z.conf", "10-x.conf", "kvm-amd.conf", "kvm_amd.conf", "ä.conf"),
    *(".conf", ".hidden.conf", "x.conf.bak", "y", "zzz.conf", "~.conf", "a b.conf"),
)
_COMMON = (
    *(
        "options kvm_amd nested={n}\n",
        "options kvm-amd nested={n} npt={n}\n",
        "options kvm_intel nested={n}\n",
    ),
    *(
        "\toptions\tkvm_amd\tavic={n}\n",
        "# options kvm_amd nested={n}\n",
        "options kvm_amd \\\n nested={n}\n",
    ),
    *("# more \\\noptions kvm_amd nested={n}\n", "options kvm_amd nested={n} nested={m}\n"),
    *("  # odd {n}\n", "options kvm_amd\n", "options\n", "\n", "nonsense {n}\n", "options a]b nested={n}\n"),
    *(
        "opt\\\nions kvm_amd nested={n}\n",
        'options kvm_amd y="a {n}" nested={m}\n',
        "options kvm_amd n=\\{n}\n",
    ),
    *('options kvm_amd nested="{n}"\n', "options kvm_amd_x nested={n}\n", "options  kvm-amd   nested={n}\n"),
    *("options kvm_amd z=\udcff{n} nested={m}\n", "options kvm_amd nested=\\{n}\n"),
    *("blacklist kvm-amd{n}\n", "alias my-{n}* kvm-amd\n", "install kvm-x{n} /bin/false  a-b\n"),
    *("remove kvm-x{n} /bin/true\n", "softdep kvm-x{n} pre: a-b\n", "options kvm_amd nested={n}"),
)
_RARE = (
    *("install kvm_amd /bin/false\n", "install kvm-amd /bin/true # not here\n", "install kvm* /bin/false\n"),
    *("install kvm_[ai]* /usr/bin/false\n", "install kvm_amd :\n", "install kvm exit 1\n"),
    *("install kvm_amd /sbin/modprobe --ignore-install kvm_amd nested={n} $CMDLINE_OPTS\n",) * 2,
    *(
        "install kvm_amd modprobe -i kvm-amd nested={n}; echo done\n",
        "install kvm_amd /usr/local/bin/load it\n",
    ),
    *("softdep kvm_amd pre: kvm\n", "softdep kvm-amd post: nowhere\n", "softdep kvm* kvm\n"),
    *(
        "blacklist kvm_amd\n",
        "options kvm_amd nested=Y\n",
        "options kvm_amd nested\n",
        "options kvm_amd nested=\n",
    ),
    *("options kvm_amd nested=0x{n}\n", "options kvm_amd nested=-1\n", "options kvm_amd nested={n}x\n"),
)
_CMDLINES = (
    *("ro quiet",) * 4,
    "ro kvm_amd.nested=0 kvm-intel.nested=N",
    "ro kvm-amd.nested=1",
    'kvm_amd.nested="1" "kvm_amd.x=a b" nested=1 kvm_amd.y=a.b',
    "kvm_amd.nested=1 -- kvm_amd.nested=0",
    '"kvm_amd.nested=0" x="kvm_amd.nested=1',
    'kvm_amd.nested=0 kvm_amd.nested="1',
    "modprobe.blacklist=kvm-amd,kvm_amd kvm_amd.nested.x=1 y=kvm_amd.nested=1",
)


class Case(NamedTuple):
    """One configuration, and what the real modprobe says of it."""

    root: Root
    answer: Answer


def _configure(root: Root, chance: random.Random) -> None:
    for folder in FOLDERS:
        Path(root.path(folder)).mkdir(parents=True)
        for name in chance.sample(_NAMES, chance.randint(0, 3)):
            path = Path(root.path(f"{folder}/{name}"))
            what = chance.random()
            if what < 0.05:
                path.mkdir()
            elif what < 0.15:
                path.symlink_to("/dev/null")
            else:
                lines = chance.choices(_COMMON, k=chance.randint(0, 5))
                if chance.random() < 0.15:
                    lines.insert(chance.randint(0, len(lines)), chance.choice(_RARE))
                text = "".join(line.format(n=chance.randint(0, 2), m=chance.randint(0, 1)) for line in lines)
                path.write_bytes(text.encode("utf-8", "surrogateescape"))
    Path(root.path("/proc/sys/kernel")).mkdir(parents=True)
    Path(root.path("/proc/sys/kernel/osrelease")).write_text(RELEASE + "\n")
    Path(root.path("/proc/cmdline")).write_text(chance.choice(_CMDLINES) + "\n")


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    top = tmp_path_factory.mktemp("modprobe")
    realmodprobe.make_modules(top)
    roots = []
    for seed in range(CONFIGURATIONS):
        root = Root(str(top / str(seed)))
        _configure(root, random.Random(seed))
        Path(root.path("/lib")).mkdir()
        Path(root.path("/lib/modules")).symlink_to(top / "lib/modules")
        roots.append(root)
    answers = realmodprobe.ask(top, [Path(root.path("/")) for root in roots])
    return [Case(*both) for both in zip(roots, answers, strict=True)]


def _ours(root: Root) -> list[modprobe.Directive]:
    files = modprobe.search({folder: root.files(folder) for folder in modprobe.FOLDERS})
    found = [directive for file in files for directive in modprobe.parse(root.read(file) or "")]
    return [*found, *modprobe.command_line(root.read("/proc/cmdline") or "")]


def _meaning(command: str, module: str, arguments: tuple[str, ...]) -> tuple[object, ...]:
    if command == "options":
        return (module, tuple(map(cmdline.argument, arguments)))
    if command == "softdep":
        # modprobe prints of it only what follows pre: and post:.
        return (module,)
    return (module, arguments)


def test_parsed_as_modprobe_parses(cases: list[Case]) -> None:
    for case in cases:
        ours = _ours(case.root)
        printed = [words for line in case.answer.merged if len(words := line.split(" ", 2)) > 1]
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
            assert mine == real, (command, case.root.path("/"))


_INTS = {"0": False, "1": True, "2": True, "-1": True, "0x0": False, "0x1": True, "0x2": True}
_NEVER = ("/bin/false", "/bin/true", "/usr/bin/false", ":", "exit 1")


def _kernel(options: str) -> bool | None:
    """What kvm_amd of Linux 6.1 makes of its argument string: its switch; None where it does not load."""
    nested = True
    for word in shlex.split(options):
        name, equals, value = word.partition("=")
        if name == "nested":
            if not equals or value not in _INTS:
                return None
            nested = _INTS[value]
    return nested


def _oracle(answer: Answer) -> bool:
    """Whether a guest gets the extension after udev, or anybody, has loaded kvm_amd."""
    extra = again = ""
    for line in answer.loading:
        word, _, rest = line.partition(" ")
        if word == "install":
            if rest.startswith(_NEVER):
                return False
            if "ignore-install" in rest or " -i " in rest:
                # What the inner modprobe adds; libkmod puts what is configured in the place of $CMDLINE_OPTS
                # (tests/vm/test_boot.py has seen it).
                added, again, _ = rest.split(";")[0].partition("$CMDLINE_OPTS")
                extra = added.rpartition("nested=")[2].strip()
    inner = next(line for line in answer.ignoring if "kvm-amd.ko" in line)
    options = inner.partition(".ko ")[2]
    return (
        _kernel(" ".join([options, *([f"nested={extra}"] if extra else []), *([options] if again else [])]))
        is True
    )


def test_solved_as_modprobe_loads(cases: list[Case]) -> None:
    outcomes = set()
    for case in cases:
        configuration = boot.Configuration.read(case.root)
        setting = boot.solve(configuration, DRIVER, DriverState.UNLOADED)
        wanted = Nesting.ON if _oracle(case.answer) else Nesting.OFF
        assert setting.nested is wanted, (case.root.path("/"), case.answer, setting)
        outcomes.add((setting.nested, setting.source.partition(":")[0].rpartition("/")[2]))
        path, colon, number = setting.source.rpartition(":")
        if colon:
            rows = (case.root.read(path) or "").split("\n")[int(number) - 1 :]
            assert rows[0].strip().startswith(("opt", "install")), setting
    # The generator reaches what it is for.
    sources = {source for _, source in outcomes}
    assert {"kernel default", "kernel command line", "zz-nestd.conf", "ä.conf"} <= sources
    assert len(outcomes) > 12
