# SPDX-License-Identifier: LGPL-2.1-or-later
"""What --help shows of commands that a person does not guess: whole lines to be typed."""

from __future__ import annotations

_EXAMPLES = {
    "enable": """\
  nestctl enable                     now and for the next boots
  nestctl enable --when-idle         as soon as no guest runs any more
  nestctl enable --boot --replace    from the next boot on, also against an
                                     argument on the kernel command line
""",
    "disable": """\
  nestctl disable --runtime          until the next boot
  nestctl disable --dry-run          only tell what would be done
""",
    "watch": """\
  nestctl watch                      on a terminal, to the eye
  nestctl watch --json | jq -r 'select(.event == "drift") | .cause'
  nestctl watch -H root@server       what happens on another machine
""",
    "launch": """\
  nestctl launch demo --kernel vmlinuz --initrd initrd.img \\
      --append console=ttyS0 --console
  nestctl launch demo --memory 2G --forward 2222-22 --user-data me.yaml \\
      --disk path=cloud.qcow2,format=qcow2,snapshot
""",
    "verify": """\
  nestctl verify                     exit status 0 if it does, 4 if not
  nestctl verify --cpu EPYC --cpu-feature=-avx2
""",
    "measure": """\
  nestctl measure --levels           here, and in a guest of a guest
""",
    "cpu": """\
  qemu-system-x86_64 -accel kvm $(nestctl cpu --qemu) ...
  nestctl cpu --libvirt              the element <cpu> of a domain
""",
    "stop": """\
  nestctl stop demo --timeout 0      without its power button
""",
    "console": """\
  nestctl console demo --escape ^A   where Ctrl-] is another console's
  stty rows 40 columns 132           typed in the guest: the window's size,
                                     which a serial line does not carry
""",
    "lab": """\
  nestctl lab create pair --memory 4G --vcpus 2 \\
      --disk path=cloud.qcow2,format=qcow2 --user-data node.yaml
  nestctl console pair-1
  nestctl lab remove pair
""",
}


def of(command: str) -> str:
    """The examples of a command, as the end of its help; empty for one that explains itself."""
    return f"examples:\n{_EXAMPLES[command]}" if command in _EXAMPLES else ""
