# SPDX-License-Identifier: LGPL-2.1-or-later
"""The real polkitd on a private bus, with our actions and a test's rules; and someone who answers it."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.clients import LIMIT, Client, Message, Variant, plain
from tests.support.privatebus import PrivateBus

NAME = "org.freedesktop.PolicyKit1"
AUTHORITY = "/org/freedesktop/PolicyKit1/Authority"
INTERFACE = "org.freedesktop.PolicyKit1.Authority"
ACTIONS = Path(__file__).resolve().parents[2] / "data" / "org.nestd1.policy"

# Whoever is asked to authenticate as an administrator is asked as root, as where nobody is in group sudo.
_ADMIN = 'polkit.addAdminRule(function() { return ["unix-user:0"]; });\n'

_IN_A_NAMESPACE = """
mount --bind "$1/actions" /usr/share/polkit-1/actions
mount --bind "$1/none" /usr/share/polkit-1/rules.d
mount --bind "$1/rules" /etc/polkit-1/rules.d
exec /usr/lib/polkit-1/polkitd --no-debug
"""


def allow(*actions: str, uid: int) -> str:
    """A rule that lets the user do these actions without asking."""
    user = pwd.getpwuid(uid).pw_name
    return "".join(
        "polkit.addRule(function(action, subject) {"
        f'  if (action.id == "{action}" && subject.user == "{user}") return polkit.Result.YES;'
        "});\n"
        for action in actions
    )


class Polkitd:
    """polkitd on `bus`, knowing nestd's actions and `rules` (JavaScript) only, in a `with` statement.

    Its folders are bind-mounted in a mount namespace of its own, so that the machine's are not seen.
    """

    def __init__(self, bus: PrivateBus, rules: str = "") -> None:
        self._bus = bus
        self._rules = rules
        self._folder = Path(tempfile.mkdtemp(prefix="nestd-polkit-"))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """polkitd's process."""
        assert self._process is not None
        return self._process.pid

    def complaints(self) -> str:
        """What polkitd wrote to stderr: also an exception in a rule."""
        return (self._folder / "stderr").read_text(errors="replace")

    def __enter__(self) -> Polkitd:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self._folder)

    def stop(self) -> None:
        """End polkitd; may be called twice."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(LIMIT)
            self._process = None

    def _start(self) -> None:
        for name in ("actions", "none", "rules"):
            (self._folder / name).mkdir()
        shutil.copy(ACTIONS, self._folder / "actions")
        (self._folder / "rules" / "10-test.rules").write_text(_ADMIN + self._rules)
        for path in [self._folder, *self._folder.rglob("*")]:
            shutil.chown(path, "polkitd")
        with (self._folder / "stderr").open("wb") as errors:
            argv = ["unshare", "-m", "--propagation", "private", "sh", "-ec", _IN_A_NAMESPACE, "sh"]
            argv += [str(self._folder)]
            self._process = subprocess.Popen(argv, env=self._bus.environment, stdout=errors, stderr=errors)
        deadline = time.monotonic() + LIMIT
        with Client(self._bus.address) as client:
            while not client.owner_of(NAME):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"polkitd does not start: {self.complaints()}")
                time.sleep(0.01)


class Agent:
    """An authentication agent for one client of this process: it answers for the user, without a password.

    It does what polkit's setuid helper does once PAM is content (AuthenticationAgentResponse2).
    """

    def __init__(self, bus: PrivateBus, uid: int) -> None:
        self.client = Client(bus.address)
        self._subject = ["unix-process", _this_process(uid)]
        self._ask("RegisterAuthenticationAgent", "(sa{sv})ss", [self._subject, "C.UTF-8", "/agent"])

    def asked(self) -> Message:
        """Wait until polkit wants somebody to authenticate; the call that is to be answered."""
        return self.client.incoming("BeginAuthentication")

    def approve(self, question: Message) -> None:
        """Say that the first identity that polkit would accept has authenticated."""
        cookie, identities = question.body[4], question.body[5]
        self._ask("AuthenticationAgentResponse2", "us(sa{sv})", [0, cookie, identities[0]])
        self.client.send_message(Message.new_method_return(question))

    def dismiss(self, question: Message) -> None:
        """Close the dialog."""
        name = "org.freedesktop.PolicyKit1.Error.Cancelled"
        self.client.send_message(Message.new_error(question, name, "dismissed"))

    def close(self) -> None:
        """Leave the bus: polkit forgets the agent."""
        self.client.close()

    def __enter__(self) -> Agent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, member: str, signature: str, body: list[Any]) -> None:
        self.client.call(member, signature, body, destination=NAME, path=AUTHORITY, interface=INTERFACE)


def question_of(message: Message) -> dict[str, Any]:
    """What the dialog would show: the action, its message with the details filled in, and the details."""
    action, text, _icon, details, _cookie, _identities = [plain(value) for value in message.body]
    return {"action": action, "message": text, "details": details}


def _this_process(uid: int) -> dict[str, Variant]:
    """This process as polkit's subject; a client of `uid` on a socket of ours looks like that."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return {
        "pid": Variant("u", os.getpid()),
        "start-time": Variant("t", int(fields[19])),
        "uid": Variant("i", uid),
    }
