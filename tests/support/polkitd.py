# SPDX-License-Identifier: LGPL-2.1-or-later
"""The real polkitd on a private bus, with our actions and a test's rules; and someone who answers it."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.clients import DBUS, LIMIT, CallError, Client, Message, Variant, plain
from tests.support.logins import Login
from tests.support.privatebus import PrivateBus

NAME = "org.freedesktop.PolicyKit1"
AUTHORITY = "/org/freedesktop/PolicyKit1/Authority"
INTERFACE = "org.freedesktop.PolicyKit1.Authority"
LOCALES = ("de_DE.UTF-8", "ru_RU.UTF-8")
ACTIONS = Path(__file__).resolve().parents[2] / "data" / "org.nestd1.policy"

# Whoever is asked to authenticate as an administrator is asked as root, as where nobody is in group sudo.
_ADMIN = 'polkit.addAdminRule(function() { return ["unix-user:0"]; });\n'

# polkitd learns sessions from files, not from logind: from /proc/PID/cgroup (the process's session) and
# from /run/systemd (what is known of it; sd-login(3)).
_IN_A_NAMESPACE = """
mount -t tmpfs none /run
mkdir /run/systemd
mount --bind "$1/systemd" /run/systemd
for process in "$1"/cgroups/*; do
    [ -e "$process" ] || continue
    mount --bind "$process" "/proc/${process##*/}/cgroup"
done
mount --bind "$1/actions" /usr/share/polkit-1/actions
mount --bind "$1/none" /usr/share/polkit-1/rules.d
mount --bind "$1/rules" /etc/polkit-1/rules.d
[ ! -e "$1/catalogues" ] || mount --bind "$1/catalogues" /usr/share/locale
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
    `active` are processes, with their user, that it is to find in an active local session of that user:
    it reads there what systemd-logind would have written. With `catalogues`, which it finds as
    /usr/share/locale, each of LOCALES is a locale of the machine.
    """

    def __init__(
        self,
        bus: PrivateBus,
        rules: str = "",
        active: Mapping[int, int] | None = None,
        catalogues: Path | None = None,
    ) -> None:
        self._bus = bus
        self._catalogues = catalogues
        self._rules = rules
        self._active = active or {}
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
        for name in ("actions", "none", "rules", "cgroups", "systemd/seats", "systemd/sessions"):
            (self._folder / name).mkdir(parents=True)
        for name in ("users", "machines"):
            (self._folder / "systemd" / name).mkdir()
        for pid, uid in self._active.items():
            self._log_in(pid, uid)
        shutil.copy(ACTIONS, self._folder / "actions")
        (self._folder / "rules" / "10-test.rules").write_text(_ADMIN + self._rules)
        environment = dict(self._bus.environment)
        if self._catalogues is not None:
            shutil.copytree(self._catalogues, self._folder / "catalogues")
            # gettext asks only whether there is such a locale.
            for locale in LOCALES:
                shutil.copytree("/usr/lib/locale/C.utf8", self._folder / "locales" / locale)
            environment["LOCPATH"] = str(self._folder / "locales")
        for path in [self._folder, *self._folder.rglob("*")]:
            shutil.chown(path, "polkitd")
        with (self._folder / "stderr").open("wb") as errors:
            argv = ["unshare", "-m", "--propagation", "private", "sh", "-ec", _IN_A_NAMESPACE, "sh"]
            argv += [str(self._folder)]
            self._process = subprocess.Popen(argv, env=environment, stdout=errors, stderr=errors)
        deadline = time.monotonic() + LIMIT
        with Client(self._bus.address) as client:
            # An earlier one may have been killed a moment ago, and its name not be free yet.
            while not (owner := client.owner_of(NAME)) or self._pid_of(client, owner) != self.pid:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"polkitd does not start: {self.complaints()}")
                time.sleep(0.01)

    @staticmethod
    def _pid_of(client: Client, owner: str) -> int:
        how = {"destination": DBUS, "path": "/", "interface": DBUS}
        try:
            return int(client.call("GetConnectionUnixProcessID", "s", [owner], **how)[0])
        except CallError:
            return 0

    def _log_in(self, pid: int, uid: int) -> None:
        user, session = pwd.getpwuid(uid).pw_name, session_of(uid)
        scope = f"/user.slice/user-{uid}.slice/session-{session}.scope"
        (self._folder / "cgroups" / str(pid)).write_text(f"1:name=systemd:{scope}\n0::{scope}\n")
        (self._folder / "systemd/sessions" / session).write_text(
            f"UID={uid}\nUSER={user}\nACTIVE=1\nSTATE=active\nREMOTE=0\nTYPE=tty\nCLASS=user\nSEAT=seat0\n"
        )
        (self._folder / "systemd/users" / str(uid)).write_text(
            f"NAME={user}\nSTATE=active\nSESSIONS={session}\nACTIVE_SESSIONS={session}\nDISPLAY={session}\n"
        )


def session_of(uid: int) -> str:
    """The session of a user who is active."""
    return f"c{uid}"


class Agent:
    """An authentication agent for the clients of a process: it answers for the user, without a password.

    It does what polkit's setuid helper does once PAM is content (AuthenticationAgentResponse2). The
    process is this one, or that of `login`; with `in_session` the agent is one for all of the user's
    active session, as a desktop's is. It wants to be asked in the language of `locale`.
    """

    def __init__(
        self,
        bus: PrivateBus,
        uid: int,
        login: Login | None = None,
        *,
        in_session: bool = False,
        locale: str = "C.UTF-8",
    ) -> None:
        self._helper = Client(bus.address)
        self.client = login.client() if login else Client(bus.address)
        subject = ["unix-process", _process(uid, login.pid if login else os.getpid())]
        if in_session:
            subject = ["unix-session", {"session-id": Variant("s", session_of(uid))}]
        authority(self.client, "RegisterAuthenticationAgent", "(sa{sv})ss", [subject, locale, "/agent"])

    def asked(self) -> Message:
        """Wait until polkit wants somebody to authenticate; the call that is to be answered."""
        return self.client.incoming("BeginAuthentication")

    def approve(self, question: Message) -> None:
        """Say that the first identity that polkit would accept has authenticated."""
        cookie, identities = question.body[4], question.body[5]
        answer = [self.client.uid, cookie, identities[0]]
        authority(self._helper, "AuthenticationAgentResponse2", "us(sa{sv})", answer)
        self.client.send_message(Message.new_method_return(question))

    def dismiss(self, question: Message) -> None:
        """Close the dialog."""
        name = "org.freedesktop.PolicyKit1.Error.Cancelled"
        self.client.send_message(Message.new_error(question, name, "dismissed"))

    def close(self) -> None:
        """Leave the bus: polkit forgets the agent."""
        self.client.close()
        self._helper.close()

    def __enter__(self) -> Agent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def authority(client: Client, member: str, signature: str, body: list[Any]) -> list[Any]:
    """Call a method of polkit's authority as that client. CallError."""
    return client.call(member, signature, body, destination=NAME, path=AUTHORITY, interface=INTERFACE)


def forget(client: Client) -> None:
    """Have polkit forget what it keeps for the active session that the client is in."""
    subject = ["unix-session", {"session-id": Variant("s", session_of(client.uid))}]
    authority(client, "RevokeTemporaryAuthorizations", "(sa{sv})", [subject])


def question_of(message: Message) -> dict[str, Any]:
    """What the dialog would show: the action, its message with the details filled in, and the details."""
    action, text, _icon, details, _cookie, _identities = [plain(value) for value in message.body]
    return {"action": action, "message": text, "details": details}


def _process(uid: int, pid: int) -> dict[str, Variant]:
    """A process as polkit's subject; to it, a client of `uid` on a socket of ours is us, as that user."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return {
        "pid": Variant("u", pid),
        "start-time": Variant("t", int(fields[19])),
        "uid": Variant("i", uid),
    }
