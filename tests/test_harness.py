# SPDX-License-Identifier: LGPL-2.1-or-later
"""The harness itself: each kind of thing left behind, and each kind of skip, fails a real session."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[1]

LEAKS = {
    "task": """
        import asyncio
        kept = []
        async def main():
            kept.append(asyncio.create_task(asyncio.sleep(3600), name="forgotten"))
        def test_it(): asyncio.run(main())
        """,
    "process": """
        import subprocess
        kept = []
        def test_it(): kept.append(subprocess.Popen(["sleep", "3600"]))
        """,
    "orphan": """
        import subprocess
        def test_it(): subprocess.run(["sh", "-c", "sleep 3600 >/dev/null 2>&1 &"], check=True)
        """,
    "zombie": """
        import os
        def test_it():
            if not os.fork(): os._exit(0)
        """,
    "descriptor": """
        import os
        def test_it(): os.open("/dev/null", os.O_RDONLY)
        """,
    "thread": """
        import threading
        def test_it(): threading.Thread(target=threading.Event().wait, daemon=True).start()
        """,
}
SAID = {"task": "forgotten", "orphan": "process", "zombie": "not reaped"}

# On nestd's own loop, which tests/support/loop.py watches.
OWN = {
    "task": """
        from nestd import tasks
        from tests.support import loop
        async def main():
            async def forgotten(): await tasks.sleep(3600)
            tasks.create_task(forgotten())
        def test_it(): loop.run(main())
        """,
    "callback": """
        from nestd.loop import running
        from tests.support import loop
        async def main(): running().call_soon(int, "forgotten")
        def test_it(): loop.run(main())
        """,
}

CLEAN = """
import asyncio, os, pytest, subprocess, threading
from nestd import tasks
from tests.support import loop
@pytest.fixture(scope="module")
def sleeper():
    with subprocess.Popen(["sleep", "3600"]) as process:
        yield process
        process.kill()
async def main():
    task = asyncio.create_task(asyncio.sleep(3600))
    task.cancel()                      # not awaited, but on its way out
    process = await asyncio.create_subprocess_exec("true")
    await process.wait()
    await asyncio.to_thread(os.getpid)
async def own():
    tasks.create_task(tasks.sleep(3600)).cancel()
    await tasks.to_thread(os.getpid)
def test_it(sleeper, tmp_path): asyncio.run(main()); loop.run(own())
"""

SKIPS = {
    "skip": "import pytest\ndef test_it(): pytest.skip('no luck')",
    "skip in a fixture": (
        "import pytest\n@pytest.fixture\ndef f(): pytest.skip('no luck')\ndef test_it(f): assert True"
    ),
    "module": "import pytest\npytest.skip('no luck', allow_module_level=True)",
    "xfail": "import pytest\n@pytest.mark.xfail(reason='no luck')\ndef test_it(): assert False",
    "xpass": "import pytest\n@pytest.mark.xfail(reason='no luck')\ndef test_it(): assert True",
}


def session(folder: Path, sources: dict[str, str], allowed: str = "") -> subprocess.CompletedProcess[str]:
    """Run pytest over the sources, beside a test that passes, with the project's own conftest.py."""
    for number, source in enumerate(sources.values()):
        (folder / f"test_{number}.py").write_text(textwrap.dedent(source))
    (folder / "test_other.py").write_text("def test_passes(): assert True")
    (folder / "conftest.py").write_text((TOP / "tests/conftest.py").read_text())
    (folder / "allowed-skips.txt").write_text(allowed)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", "--rootdir", folder, folder],
        cwd=TOP, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def test_what_is_left_behind_fails_the_test_alone(tmp_path: Path) -> None:
    done = session(tmp_path, LEAKS)
    assert done.returncode == 1, done.stdout
    assert f"{len(LEAKS) + 1} passed, {len(LEAKS)} errors" in done.stdout
    found = re.findall("^left behind: (.*)$", done.stdout, re.MULTILINE)
    assert len(found) == len(LEAKS), done.stdout
    for kind, words in zip(LEAKS, found, strict=True):
        assert SAID.get(kind, kind) in words


def test_what_is_left_behind_on_nestds_own_loop_fails_the_test(tmp_path: Path) -> None:
    done = session(tmp_path, OWN)
    assert done.returncode == 1, done.stdout
    assert f"{len(OWN)} failed, 1 passed" in done.stdout
    assert len(re.findall("^E +AssertionError: .*", done.stdout, re.MULTILINE)) == len(OWN)
    assert "left behind: <Task main.<locals>.forgotten" in done.stdout
    assert "invalid literal for int() with base 10: 'forgotten'" in done.stdout


def test_what_is_tidy_passes(tmp_path: Path) -> None:
    done = session(tmp_path, {"clean": CLEAN})
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("kind", SKIPS)
def test_a_skip_that_is_not_listed_fails_the_session(tmp_path: Path, kind: str) -> None:
    done = session(tmp_path, {kind: SKIPS[kind]}, "no.* idea | another reason than the one given\n")
    assert done.returncode == 1, done.stdout
    assert "no luck" in done.stdout


def test_skips_that_are_listed_pass(tmp_path: Path) -> None:
    done = session(tmp_path, SKIPS, "# comment\n(xfail: )?no l.ck | proves the list\n")
    assert done.returncode == 0, done.stdout


def test_a_list_without_explanation_is_refused(tmp_path: Path) -> None:
    done = session(tmp_path, {}, "no luck\n")
    assert done.returncode == 4
    assert "no explanation" in done.stderr
