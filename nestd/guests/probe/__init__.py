# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest of a few instructions: what an exit of it costs, and whether it runs inside a guest (Verify)."""
