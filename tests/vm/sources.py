# SPDX-License-Identifier: LGPL-2.1-or-later
"""Debian's own package sources, as this host is configured to reach them."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.vm.problem import BuildError

# The host's own release, which is also the machine's unless another one is asked for.
BOOKWORM = "bookworm"
TRIXIE = "trixie"
_DEBIAN_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_ONE_LINE = re.compile(
    r"^deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>.+)$"
)
_INST = re.compile(r"^Inst (\S+) (?:\[\S+\] )?\((\S+) ")
_KERNEL = re.compile(r"^linux-image-\d.*-cloud-amd64$")


@dataclass(frozen=True, slots=True)
class Source:
    """One suite of one archive; `signed_by` is empty where the host trusts its whole keyring."""

    uri: str
    suite: str
    signed_by: str

    @property
    def line(self) -> str:
        option = f"[signed-by={self.signed_by}] " if self.signed_by else ""
        return f"deb {option}{self.uri} {self.suite} main"


@dataclass(frozen=True, slots=True)
class Plan:
    """What apt would install into an empty system: `name=version`, sorted, and the kernel's package."""

    packages: tuple[str, ...]
    kernel: str

    def versions(self) -> str:
        return "\n".join(self.packages)


def parse_one_line(text: str) -> Iterator[Source]:
    """Read sources.list(5) in its one-line style: binary archives with the component main."""
    for raw in text.splitlines():
        match = _ONE_LINE.match(raw.split("#", 1)[0].strip())
        if match is None or "main" not in match["components"].split():
            continue
        options = dict(word.partition("=")[::2] for word in (match["options"] or "").split())
        yield Source(match["uri"], match["suite"], options.get("signed-by", ""))


def parse_deb822(text: str) -> Iterator[Source]:
    """Read sources.list(5) in its deb822 style: enabled binary archives with the component main."""
    for stanza in re.split(r"\n\s*\n", "\n".join(line for line in text.splitlines() if line[:1] != "#")):
        fields = {
            match[1].lower(): " ".join(match[2].split())
            for match in re.finditer(r"^([\w-]+):((?:.*(?:\n[ \t].*)*))", stanza, re.MULTILINE)
        }
        enabled = fields.get("enabled", "yes").lower() not in ("no", "false")
        if (
            not enabled
            or "deb" not in fields.get("types", "").split()
            or "main" not in fields.get("components", "").split()
        ):
            continue
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                # A key given inline would begin with its armour: then the host's keyring has to do.
                key = fields.get("signed-by", "")
                yield Source(uri, suite, key if key.startswith("/") else "")


def of_host(apt: Path = Path("/etc/apt"), suite: str = BOOKWORM) -> tuple[Source, ...]:
    """Return the sources of Debian's release `suite` below `apt`, third parties left out.

    Where there are none, they are those of the host's own release with the suite's name put in: a mirror has
    both. Raises BuildError if the host names none of either.
    """
    lists = [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*.list"))]
    found = [source for path in lists if path.is_file() for source in parse_one_line(path.read_text())]
    for path in sorted((apt / "sources.list.d").glob("*.sources")):
        found += parse_deb822(path.read_text())
    own = _debians(found, suite)
    if not own:
        own = [
            replace(source, suite=source.suite.replace(BOOKWORM, suite))
            for source in _debians(found, BOOKWORM)
        ]
    if not own:
        raise BuildError(
            f"no package source of Debian {suite} is configured below {apt}",
            f"Add a line such as `deb http://MIRROR/debian {BOOKWORM} main` to "
            f"{apt}/sources.list.d/nestd.list and run `apt-get update`.",
        )
    unique = dict.fromkeys(own)
    return tuple(_with_key(source) for source in unique)


def _debians(found: Sequence[Source], suite: str) -> list[Source]:
    """Those of Debian's release `suite`; none if its main part is not among them."""
    pockets = (suite, f"{suite}-updates", f"{suite}-security", f"{suite}/updates")
    suited = [
        source
        for source in found
        if source.suite.rstrip("/") in pockets
        and source.uri.startswith(("http:", "https:", "file:", "copy:"))
    ]
    # Others name their suite "bookworm" too; Debian's own is signed by Debian's key, or by no special one.
    own = [source for source in suited if not source.signed_by or "debian-archive" in source.signed_by]
    own = own or suited
    return own if any(source.suite == suite for source in own) else []


def _with_key(source: Source) -> Source:
    if source.signed_by or not _DEBIAN_KEYRING.exists():
        return source
    return Source(source.uri, source.suite, str(_DEBIAN_KEYRING))


def write_list(sources: Sequence[Source], path: Path) -> None:
    path.write_text("".join(f"{source.line}\n" for source in sources))


def apt_options(source_list: Path, lists: Path | None = None) -> list[str]:
    """Options that make the host's apt see these sources only, and an empty system.

    `lists` is where the package lists of another release than the host's are kept.
    """
    options = [
        "-o", f"Dir::Etc::SourceList={source_list}",
        "-o", "Dir::Etc::SourceParts=/dev/null",
        "-o", "Dir::State::status=/dev/null",
        "-o", "APT::Install-Recommends=0",
    ]  # fmt: skip
    if lists is not None:
        # The host's own caches of its lists are left alone; _apt may not write here.
        options += [
            "-o", f"Dir::State::Lists={lists}",
            "-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=",
            "-o", "APT::Sandbox::User=root",
        ]  # fmt: skip
    return options


def carried_settings() -> str:
    """Return the host's apt settings that say how archives are reached and checked, as apt.conf text."""
    dump = subprocess.run(["apt-config", "dump"], check=True, capture_output=True, text=True).stdout
    wanted = re.compile(r"^Acquire::(Check-|Retries|[\w-]+::(Proxy|Timeout|Verify|CaInfo))")
    return "".join(f"{line}\n" for line in dump.splitlines() if wanted.match(line))


def plan(packages: Sequence[str], source_list: Path, lists: Path | None = None) -> Plan:
    """Ask the host's apt what it would install for `packages` into an empty system (a few seconds).

    With `lists`, they are fetched anew. Raises BuildError if apt knows one of the packages not.
    """
    options = apt_options(source_list, lists)
    command = ["apt-get", "--simulate", "--quiet=2", *options, "install", *packages]
    update = ["apt-get", "--quiet=2", *(options if lists else []), "update"]
    if lists is not None:
        (lists / "partial").mkdir(parents=True, exist_ok=True)
        subprocess.run(update, check=False, capture_output=True)
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:  # perhaps nobody has fetched the lists on this host yet
        subprocess.run(update, check=False, capture_output=True)
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise BuildError(f"apt cannot install the image's packages:\n{done.stderr}", "Try `apt-get update`.")
    found = [match for match in map(_INST.match, done.stdout.splitlines()) if match]
    kernels = [match[1] for match in found if _KERNEL.match(match[1])]
    if not kernels:
        raise BuildError(f"apt named no cloud kernel among {len(found)} packages")
    return Plan(tuple(sorted(f"{match[1]}={match[2]}" for match in found)), kernels[0])


def lists_stamp(lists: Path = Path("/var/lib/apt/lists")) -> str:
    """Return a hash that changes when `apt-get update` brings something new."""
    seen = sorted(
        (path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in lists.glob("*_Packages*")
    )
    return hashlib.sha256(repr(seen).encode()).hexdigest()
