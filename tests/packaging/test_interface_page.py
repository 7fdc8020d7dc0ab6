# SPDX-License-Identifier: LGPL-2.1-or-later
"""org.nestd1(5) is what the XML says, whole; who changes the XML runs packaging/interface-page."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

TOP = Path(__file__).parents[2]
SCRIPT, XML, PAGE = (
    TOP / each for each in ("packaging/interface-page", "data/org.nestd1.xml", "data/org.nestd1.5")
)

SMALL = """<!-- Words. -->
<node>
  <!-- a.B: what it is. -->
  <interface name="a.B">
    <!-- M: does it. It takes "one"
         or two; a line of the page, which is filled up to its width, may merely come to begin so:
         .Dd is no request; back\\slash.
         name: any, at
         most: forty. Options: cpu s (x), flags as (kept as they are, as a list), t t.
         deep b: a paragraph.
         Errors: None. -->
    <method name="M">
      <arg name="name" type="s" direction="in"/><arg name="done" type="b" direction="out"/>
    </method>
    <!-- P: a property. -->
    <property name="P" type="as" access="read">
      <annotation name="org.freedesktop.DBus.Property.EmitsChangedSignal" value="const"/>
    </property>
    COMMENT
    <signal name="S"><arg name="why" type="s"/></signal>
  </interface>
</node>
"""


def made(top: Path, xml: str) -> subprocess.CompletedProcess[str]:
    """The script in a tree of its own."""
    for folder in ("packaging", "data"):
        (top / folder).mkdir()
    (top / "packaging/interface-page").write_text(SCRIPT.read_text())
    (top / "data/org.nestd1.xml").write_text(xml)
    argv: list[str | Path] = [sys.executable, top / "packaging/interface-page"]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)


def test_the_page_is_of_this_xml() -> None:
    done = subprocess.run([SCRIPT, "--print"], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == PAGE.read_text(), "run packaging/interface-page"


def test_every_member_is_in_it() -> None:
    page = PAGE.read_text()
    chapters = dict(re.findall(r"^\.Sh (org\.nestd1\.\w+)\n(.*?)(?=^\.Sh )", page, re.M | re.S))
    for interface in ElementTree.parse(XML).iter("interface"):
        chapter = chapters.pop(interface.get("name"))
        found = re.findall(r"^\.It (?:Sy|Fn) (\w+)", chapter, re.M)
        assert sorted(found) == sorted(str(member.get("name")) for member in interface)
    assert chapters == {}


def test_what_it_makes_of_comments(tmp_path: Path) -> None:
    assert made(tmp_path, SMALL.replace("COMMENT", "<!-- S: told. -->")).stderr == ""
    page = tmp_path / "data/org.nestd1.5"
    body = page.read_text().partition(".Sh a.B\n")[2].partition(".Sh SEE ALSO")[0]
    assert body == (
        "What it is.\n"
        ".Ss Properties\n.Bl -tag -width Ds\n.It Sy P Pq Li as , const\nA property.\n.El\n"
        '.Ss Methods\n.Bl -tag -width Ds\n.It Fn M "s name" No \\(-> Fa "b done"\n'
        "Does it.\n"
        "It takes \\fBone\\fR or two; a line of the page, which is filled up to its width, may merely "
        "come to begin so:\n"
        "\\&.Dd is no request; back\\eslash.\n"
        ".Pp\nname: any, at most: forty.\n"
        "Options: \\fBcpu\\fR \\fIs\\fR (x), \\fBflags\\fR \\fIas\\fR (kept as they are, as a list), t t.\n"
        ".Pp\n\\fBdeep\\fR \\fIb\\fR: a paragraph.\n"
        ".Pp\nErrors: None.\n.El\n"
        '.Ss Signals\n.Bl -tag -width Ds\n.It Fn S "s why"\nTold.\n.El\n'
    )


@pytest.mark.parametrize(
    "comment", ["", "<!-- T: of another. -->", "<!-- S: told. --> <!-- something else -->"]
)
def test_a_member_without_its_comment_is_refused(tmp_path: Path, comment: str) -> None:
    done = made(tmp_path, SMALL.replace("COMMENT", comment))
    assert done.returncode == 1 and "S has no comment" in done.stderr
    assert not (tmp_path / "data/org.nestd1.5").exists()


def test_it_says_what_it_takes() -> None:
    done = subprocess.run([SCRIPT, "--help"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1 and "--print" in done.stderr
