# SPDX-License-Identifier: LGPL-2.1-or-later
"""The one door to dbus-next: its Variant, signatures and marshaller, without its `__init__`.

That `__init__` loads GLib, asyncio, urllib and more (60 ms, 24 MB), and a typing function
that Python 3.15 removes. Here a bare package stands in for it in sys.modules, with the real
search path, so that single modules load. Whoever asks the bare package for anything else (`import
dbus_next; dbus_next.Message`) gets the real `__init__` run at that moment, in the same module
object. Where the whole library was imported before, it is used as it is.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any

__all__ = ["Marshaller", "SignatureTree", "SignatureType", "Variant"]


class _Bare(ModuleType):
    """dbus_next before its `__init__` has run."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or self.__spec__ is None or self.__spec__.loader is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        self.__class__ = ModuleType  # type: ignore[assignment]  # one real __init__, not one per name
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)


def _module(name: str) -> ModuleType:
    if "dbus_next" not in sys.modules:
        spec = PathFinder.find_spec("dbus_next")
        if spec is None or spec.submodule_search_locations is None:
            raise ModuleNotFoundError("dbus-next is not installed", name="dbus_next")
        bare = _Bare("dbus_next")
        bare.__spec__ = spec
        bare.__path__ = spec.submodule_search_locations
        bare.__file__ = spec.origin
        sys.modules["dbus_next"] = bare
        # errors, message, marshaller and signature import each other in a circle: this is the way in.
        import_module("dbus_next.errors")
    return import_module(f"dbus_next.{name}")


if TYPE_CHECKING:
    from dbus_next._private.marshaller import Marshaller
    from dbus_next.signature import SignatureTree, SignatureType, Variant
else:
    Marshaller = _module("_private.marshaller").Marshaller
    SignatureTree = _module("signature").SignatureTree
    SignatureType = _module("signature").SignatureType
    Variant = _module("signature").Variant
