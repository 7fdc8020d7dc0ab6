# SPDX-License-Identifier: LGPL-2.1-or-later
"""What nestctl prints of labs: pure, values from the bus in, text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .style import PLAIN, Style
from .table import Values, columns, table, text, visible


def labs(rows: Sequence[Values], style: Style = PLAIN) -> str:
    """The table of labs, each with `owner-name`."""
    if not rows:
        return "No labs.\n"
    rows_of: list[tuple[str, ...]] = [("NAME", "STATE", "OWNER", "SUBNET", "NODES")]
    for row in rows:
        nodes = _nodes(row)
        running = sum(bool(node["guest"]) for node in nodes)
        cells = (text(row, key) for key in ("name", "state", "owner-name", "subnet"))
        rows_of.append((*cells, f"{running} of {len(nodes)} run"))
    return columns(rows_of, style)


def lab(values: Values, created: str, style: Style = PLAIN) -> str:
    """Everything about one lab; `created` is its time as a person reads it."""
    state = text(values, "state")
    rows = [
        ("Name", style.bold(text(values, "name"))),
        ("State", style.good(state) if state == "running" else style.warn(state)),
        ("Owner", f"{text(values, 'owner-name')} (uid {text(values, 'owner')})"),
        ("Subnet", text(values, "subnet")),
        ("Created", created),
    ]
    nodes = [("NODE", "STATE", "ADDRESS", "MAC")]
    for node in _nodes(values):
        name, address, mac = (visible(node[key]) for key in ("name", "address", "mac"))
        nodes.append((name, "running" if node["guest"] else "off", address, mac))
    return f"{table(rows, style)}\n{columns(nodes, style)}"


def _nodes(values: Values) -> list[Mapping[str, str]]:
    found = values.get("nodes")
    return found if isinstance(found, list) else []
