# SPDX-License-Identifier: LGPL-2.1-or-later
"""What polkit's dialog asks where the action's own words (data/org.nestd1.policy) cannot say it.

polkit translates the whole sentence, in the language of whoever is asked (polkit(8), polkit.gettext_domain;
data/po); a verb that is put into another sentence as a detail would stay English. $(guest) is a detail.
"""

from types import MappingProxyType

_DOMAIN = "nestd"


def _(text: str) -> str:
    """Marks a text for xgettext (packaging/translate)."""
    return text


CANCELS = _("Authentication is required to cancel the change of nested virtualization that waits.")
REVERTS = _(
    "Authentication is required to take back, from the next boot on, what was set for nested virtualization."
)
CREATES = _(
    'Authentication is required to create the lab "$(lab)" and start its virtual machines ($(nodes)), '
    "which may themselves run virtual machines."
)
CREATES_RAW = _(
    'Authentication is required to create the lab "$(lab)" and start its virtual machines ($(nodes)) '
    "with arguments for QEMU that nobody has checked."
)
# By the method.
PROBES = MappingProxyType(
    {
        "Verify": _(
            "Authentication is required to start a virtual machine that tells whether nested virtualization "
            "works here, and then ends."
        ),
        "MeasureExit": _("Authentication is required to measure what virtualization costs on this machine."),
        "CheckCpu": _(
            "Authentication is required to start a virtual machine that tells which CPU it got, and ends."
        ),
    }
)
# By the method: the detail verb, which polkit's rules can look at, and the question.
GUESTS = MappingProxyType(
    {
        "Stop": (
            "stop",
            _('Authentication is required to stop "$(guest)", another user\'s virtual machine.'),
        ),
        "Kill": (
            "kill",
            _('Authentication is required to kill "$(guest)", another user\'s virtual machine.'),
        ),
        "OpenConsole": (
            "open the console of",
            _(
                'Authentication is required to use the console of "$(guest)", '
                "another user's virtual machine."
            ),
        ),
        "GetConsoleLog": (
            "read the console of",
            _(
                'Authentication is required to read the console of "$(guest)", '
                "another user's virtual machine."
            ),
        ),
    }
)
# The same of labs.
LABS = MappingProxyType(
    {
        "Start": (
            "start",
            _('Authentication is required to start the virtual machines of "$(lab)", another user\'s lab.'),
        ),
        "Stop": (
            "stop",
            _('Authentication is required to stop the virtual machines of "$(lab)", another user\'s lab.'),
        ),
        "Remove": (
            "remove",
            _('Authentication is required to remove "$(lab)", another user\'s lab, with its disks.'),
        ),
    }
)


def details(question: str, **others: str) -> dict[str, str]:
    """The details of a check whose dialog asks this."""
    return {**others, "polkit.message": question, "polkit.gettext_domain": _DOMAIN}


def about_guest(member: str, guest: str) -> dict[str, str]:
    """The details of a check whether somebody may call that method of somebody else's guest."""
    verb, question = GUESTS[member]
    return details(question, guest=guest, verb=verb)


def about_lab(member: str, lab: str) -> dict[str, str]:
    """The details of a check whether somebody may call that method of somebody else's lab."""
    verb, question = LABS[member]
    return details(question, lab=lab, verb=verb)
