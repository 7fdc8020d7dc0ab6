# SPDX-License-Identifier: LGPL-2.1-or-later
"""nestd: nested virtualization as a service."""

__version__ = "0.1.0"
