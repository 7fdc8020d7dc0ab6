# SPDX-License-Identifier: LGPL-2.1-or-later
"""grub-mkconfig, update-grub and kernel-install as small real programs that act on a tree (support/tree.py).

They are in TREE/.kernel/bin, beside the few real tools that they and nestd's own steps use. Sources:
grub-mkconfig, 10_linux and update-grub of Debian's GRUB 2.06; 90-loaderentry.install of systemd 252.
"""

from __future__ import annotations

import shutil

from tests.support.tools import Tools
from tests.support.tree import Tree

_REAL = (
    "sh",
    "env",
    "sed",
    "cp",
    "mv",
    "rm",
    "cat",
    "cmp",
    "sync",
    "sleep",
    "chmod",
    "readlink",
    "test",
    "tail",
    "grep",
)
NEW = "6.12.0-2-amd64"
MACHINE_ID = "0123456789abcdef0123456789abcdef"

MKCONFIG = """\
#!/bin/sh
set -e
top=${0%/.kernel/bin/*}
while test $# -gt 0; do
    test "$1" = -o
    grub_cfg=$top$2
    shift 2
done
if test -f "$top/etc/default/grub"; then
    . "$top/etc/default/grub"
fi
# as the real one does it: for x in /etc/default/grub.d/*.cfg
for x in "$top"/etc/default/grub.d/*.cfg; do
    if [ -e "${x}" ]; then
        . "${x}"
    fi
done
export top GRUB_CMDLINE_LINUX GRUB_CMDLINE_LINUX_DEFAULT GRUB_DISABLE_RECOVERY GRUB_DEFAULT
exec > "$grub_cfg.new"
for i in "$top"/etc/grub.d/*; do
    if test -x "$i"; then
        echo "### BEGIN ${i#"$top"} ###"
        "$i"
        echo "### END ${i#"$top"} ###"
    fi
done
cat "$grub_cfg.new" > "$grub_cfg"
rm -f "$grub_cfg.new"
"""
UPDATE_GRUB = """\
#!/bin/sh
set -e
exec "${0%/*}/grub-mkconfig" -o /boot/grub/grub.cfg "$@"
"""
HEADER = """\
#!/bin/sh
echo "set default=\\"${GRUB_DEFAULT-0}\\""
"""
LINUX = """\
#!/bin/sh
set -e
for linux in "$top"/boot/vmlinuz-*; do
    version=${linux##*/vmlinuz-}
    echo "menuentry 'Linux $version' {"
    arguments="${GRUB_CMDLINE_LINUX} ${GRUB_CMDLINE_LINUX_DEFAULT}"
    echo "	linux	/boot/vmlinuz-$version root=/dev/vda1 ro $arguments"
    echo "}"
    if [ "x${GRUB_DISABLE_RECOVERY}" != "xtrue" ]; then
        echo "menuentry 'Linux $version (recovery mode)' {"
        echo "	linux	/boot/vmlinuz-$version root=/dev/vda1 ro single ${GRUB_CMDLINE_LINUX}"
        echo "}"
    fi
done
"""
CUSTOM = """\
#!/bin/sh
exec tail -n +3 $0
"""
KERNEL_INSTALL = """\
#!/bin/sh
# add VERSION KERNEL [INITRD...], with the layout bls and all in /efi
set -e
top=${0%/.kernel/bin/*}
test "$1" = add
version=$2 kernel=$3
shift 3
read -r machine < "$top/etc/machine-id"
token=$machine
test ! -f "$top/etc/kernel/entry-token" || read -r token < "$top/etc/kernel/entry-token"
squeezed() { tr -s " \\t\\n" ' ' < "$1"; }
if test -f "$top/etc/kernel/cmdline"; then
    options=$(squeezed "$top/etc/kernel/cmdline")
elif test -f "$top/usr/lib/kernel/cmdline"; then
    options=$(squeezed "$top/usr/lib/kernel/cmdline")
else
    options=$(tr -s " \\t\\n" '\\n' < "$top/proc/cmdline" |
        grep -ve '^BOOT_IMAGE=' -e '^initrd=' | tr '\\n' ' ')
fi
options=${options% }
case " $token $options" in
    *systemd.machine_id=*) ;;
    " $machine "*) options="$options systemd.machine_id=$machine" ;;
esac
tries=
test ! -f "$top/etc/kernel/tries" || read -r tries < "$top/etc/kernel/tries"
folder=$token/$version
mkdir -p "$top/efi/$folder" "$top/efi/loader/entries"
install -m 0644 "$kernel" "$top/efi/$folder/linux"
for initrd; do
    install -m 0644 "$initrd" "$top/efi/$folder/${initrd##*/}"
done
{
    echo "title      Debian GNU/Linux 12 (bookworm)"
    echo "version    $version"
    test "$token" != "$machine" || echo "machine-id $machine"
    echo "sort-key   debian"
    echo "options    $options"
    echo "linux      /$folder/linux"
    for initrd; do
        echo "initrd     /$folder/${initrd##*/}"
    done
} > "$top/efi/loader/entries/$token-$version${tries:++$tries}.conf"
"""


def programs(tools: Tools, **texts: str) -> None:
    """Programs by their names (`_` for `-`)."""
    for name in _REAL:
        there = tools.folder / name
        if not there.exists():
            there.symlink_to(shutil.which(name) or f"/usr/bin/{name}")
    for name, text in texts.items():
        path = tools.folder / name.replace("_", "-")
        path.write_text(text)
        path.chmod(0o755)


def grub(tree: Tree, tools: Tools, *, linux: str = LINUX) -> None:
    """A Debian with GRUB: two kernels; grub.cfg is not made yet."""
    programs(tools, grub_mkconfig=MKCONFIG, update_grub=UPDATE_GRUB)
    for name, text in (("00_header", HEADER), ("10_linux", linux), ("40_custom", CUSTOM)):
        tree.write(f"/etc/grub.d/{name}", text).path(f"/etc/grub.d/{name}").chmod(0o755)
    tree.write("/boot/grub/grubenv", "")
    for release in ("6.1.0-42-amd64", NEW):
        tree.write(f"/boot/vmlinuz-{release}", release)


def kernel_install(tree: Tree, tools: Tools) -> None:
    """A Debian with systemd-boot; no kernel is installed yet."""
    for name in ("tr", "install", "mkdir"):
        (tools.folder / name).symlink_to(shutil.which(name) or f"/usr/bin/{name}")
    programs(tools, kernel_install=KERNEL_INSTALL)
    tree.write("/etc/machine-id", MACHINE_ID + "\n").write("/etc/os-release", "ID=debian\n")
    tree.path("/etc/kernel").mkdir(parents=True, exist_ok=True)
