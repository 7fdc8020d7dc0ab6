# SPDX-License-Identifier: LGPL-2.1-or-later
"""nestd's own configuration, in the places in which systemd's programs have theirs (systemd.conf(5))."""

# No postponed annotations here: see nestd/model.py.

from collections.abc import Iterator
from typing import NamedTuple

from nestd import log
from nestd.host.root import Root

FILE = "/etc/nestd/nestd.conf"
# Of two files with one name, the one in the earlier folder counts: one that is empty, or a link to
# /dev/null, masks the others.
FOLDERS = tuple(f"{above}/nestd/nestd.conf.d" for above in ("/etc", "/run", "/usr/local/lib", "/usr/lib"))


class Settings(NamedTuple):
    """What nestd.conf(5) says.

    `enforce`: what was told is put back when somebody else has changed it. `loader` names the back end that
    writes the kernel command line; empty where it is to be found out. `prometheus` and `features` are the
    files that tell node_exporter and node-feature-discovery; empty where there is none.
    """

    enforce: bool = False
    loader: str = ""
    prometheus: str = ""
    features: str = ""


def read(root: Root) -> Settings:
    """FILE, then the others by their names; the later counts. What is wrong is logged, the rest counts."""
    texts = [(path, text) for path in _paths(root) if (text := _text(root, path))]
    if not texts:
        return Settings()
    from nestd.text import settings  # noqa: PLC0415 -- most machines have no such file

    found = settings.defaults()
    for path, text in texts:

        def complain(line: int, why: str, path: str = path) -> None:
            log.warning(f"{path}:{line}: {why}. The line is left out; see nestd.conf(5).")

        found |= settings.parse(text, complain)
    prometheus, features = (
        "" if found[key] == "none" else "/" + "/".join(step for step in found[key].split("/") if step)
        for key in ("PrometheusTextfile", "NodeFeatureFile")
    )
    if prometheus and prometheus == features:
        log.warning(
            f"PrometheusTextfile= and NodeFeatureFile= both name {features}, and each would replace the "
            "other: NodeFeatureFile= is left out; see nestd.conf(5)."
        )
        features = ""
    return Settings(
        enforce=found["Enforce"] != "no",
        loader="" if found["Loader"] == "auto" else found["Loader"],
        prometheus=prometheus,
        features=features,
    )


def _paths(root: Root) -> Iterator[str]:
    yield FILE
    named: dict[str, str] = {}
    for folder in FOLDERS:
        try:
            names = root.files(folder)
        except OSError as failure:
            _unreadable(folder, failure)
            continue
        for name in names:
            if name.endswith(".conf"):
                named.setdefault(name, f"{folder}/{name}")
    yield from (named[name] for name in sorted(named))


def _text(root: Root, path: str) -> str | None:
    try:
        return root.read(path)
    except OSError as failure:
        _unreadable(path, failure)
        return None


def _unreadable(path: str, failure: OSError) -> None:
    log.warning(f"{path} cannot be read, so it does not count: {failure.strerror}.")
