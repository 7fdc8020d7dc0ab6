# SPDX-License-Identifier: LGPL-2.1-or-later
"""Message bodies: bytes to values and back (D-Bus specification, "Marshaling (Wire Format)").

Reading is for what strangers sent: every length, string and offset is checked, and the work is
bounded by `values`, from which each value takes one and each signature in a variant its length.
Writing uses dbus-next's marshaller and is for what nestd itself says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from struct import Struct
from typing import Any

from nestd.errors import Malformed
from nestd.wire.library import Marshaller, SignatureTree, SignatureType, Variant

# A request of ours has a dozen values; so many are read in about 10 ms.
VALUES = 4096
# The specification allows 32 arrays in a row, 32 structs, and 64 levels in all.
_DEPTH = 32
_ARRAY_LIMIT = 64 << 20
_FIXED = {"y": "B", "n": "h", "q": "H", "i": "i", "u": "I", "x": "q", "t": "Q", "d": "d", "h": "I", "b": "I"}
_NUMBERS = {
    (code, little): Struct(("<" if little else ">") + form)
    for code, form in _FIXED.items()
    for little in (True, False)
}
_ALIGNED_TO_8 = frozenset("xtd({")
_CONTAINERS = frozenset("av({")
_UNSENDABLE = re.compile("[\0\ud800-\udfff]")
_PATH = re.compile(r"/(?:[A-Za-z0-9_]+(?:/[A-Za-z0-9_]+)*)?")


def is_path(text: str) -> bool:
    """Whether this is a valid object path."""
    return _PATH.fullmatch(text) is not None


def signature_types(signature: str) -> list[SignatureType]:
    """The complete types of a signature; Malformed if it is none, or nests deeper than is allowed."""
    if _too_deep(signature):
        raise Malformed("a signature nests too deeply")
    try:
        types: list[SignatureType] = SignatureTree(signature).types
    except (ValueError, IndexError) as error:
        raise Malformed(f"a signature is invalid: {error}") from None
    if "{" in signature.replace("a{", "") or any(x in signature for x in ("{v", "{a", "{(")):
        raise Malformed("a signature has a dictionary entry where none can be")
    return types


def parse(signature: str, data: bytes, little: bool, *, values: int = VALUES) -> list[Any]:
    """The values of a whole body.

    Arrays and structs become lists, `a{..}` dicts (of equal keys the last one counts), `ay` bytes, and
    variants Variant. Malformed: the bytes do not follow the signature, to the last byte, or
    there are more than `values` values.
    """
    reader = Reader(data, little, values)
    result = [reader.value(each, 0) for each in signature_types(signature)]
    if reader.position != len(data):
        raise Malformed("the body is longer than its signature says")
    return result


def marshal(signature: str, values: Sequence[Any]) -> bytes:
    """The bytes of a body, little-endian.

    Tuples are taken for lists, and any Mapping for a dict. What no D-Bus string can hold (NUL, and
    undecodable bytes kept as surrogates) is replaced by U+FFFD. ValueError, TypeError: the values are
    not what the signature says.
    """
    if not signature:
        if values:
            raise ValueError("values without a signature")
        return b""
    writer: Any = _Writer
    return bytes(writer(signature, [_plain(value) for value in values]).marshall())


def variant(signature: str, value: Any) -> Variant:
    """A Variant of a plain value, tuples and mappings included."""
    return Variant(signature, _plain(value))


class Reader:
    """A cursor in the bytes of a message; each method raises Malformed."""

    __slots__ = ("_data", "_little", "_values", "position")

    def __init__(self, data: bytes, little: bool, values: int, position: int = 0) -> None:
        self._data = data
        self._little = little
        self._values = values
        self.position = position

    def align(self, to: int) -> None:
        """Skip padding, which must be NUL."""
        start, self.position = self.position, -(-self.position // to) * to
        if any(self._data[start : self.position]) or self.position > len(self._data):
            raise Malformed("padding is missing or not NUL")

    def number(self, code: str) -> Any:
        """A value of a fixed-size type."""
        form = _NUMBERS[code, self._little]
        if form.size > 1:
            self.align(form.size)
        start = self.position
        self.position += form.size
        if self.position > len(self._data):
            raise Malformed("the message ends too early")
        return form.unpack_from(self._data, start)[0]

    def text(self, length: int) -> str:
        """A string of that many bytes and the NUL behind it."""
        end = self.position + length
        raw = self._data[self.position : end + 1]
        if len(raw) != length + 1 or raw.find(0) != length:
            raise Malformed("a string has the wrong length or a NUL inside")
        self.position = end + 1
        try:
            return raw[:-1].decode()
        except UnicodeDecodeError:
            raise Malformed("a string is not UTF-8") from None

    def value(self, kind: SignatureType, depth: int) -> Any:
        """The next value, which has this type."""
        self._spend(1)
        code = kind.token
        if code in _CONTAINERS:
            return self._container(kind, depth + 1)
        if code in "so":
            text = self.text(self.number("u"))
            if code == "o" and not is_path(text):
                raise Malformed("an object path is invalid")
            return text
        if code == "g":
            return self._signature()
        number = self.number(code)
        if code != "b":
            return number
        if number > 1:
            raise Malformed("a boolean is neither 0 nor 1")
        return number == 1

    def pass_over(self, signature: str) -> None:
        """Read and forget one value of any type, as it stands in a variant."""
        self.value(self._single_type(signature), 1)

    def _single_type(self, signature: str) -> SignatureType:
        self._spend(len(signature))
        types = signature_types(signature)
        if len(types) != 1:
            raise Malformed("a variant has not exactly one type")
        return types[0]

    def _spend(self, values: int) -> None:
        self._values -= values
        if self._values < 0:
            raise Malformed("a message has too many values")

    def _signature(self) -> str:
        text = self.text(self.number("y"))
        self._spend(len(text))
        if text:
            signature_types(text)
        return text

    def _container(self, kind: SignatureType, depth: int) -> Any:
        if depth > 2 * _DEPTH:
            raise Malformed("values nest too deeply")
        code = kind.token
        if code == "a":
            return self._array(kind.children[0], depth)
        if code == "v":
            return self._variant(depth)
        self.align(8)
        return [self.value(child, depth) for child in kind.children]

    def _variant(self, depth: int) -> Variant:
        kind = self._single_type(self.text(self.number("y")))
        return Variant(kind, self.value(kind, depth))

    def _array(self, child: SignatureType, depth: int) -> Any:
        length = self.number("u")
        code = child.token
        if code in _ALIGNED_TO_8:
            self.align(8)
        end = self.position + length
        if length > _ARRAY_LIMIT or end > len(self._data):
            raise Malformed("an array is longer than its message")
        if code == "y":
            start, self.position = self.position, end
            return self._data[start:end]
        items: list[Any] = []
        while self.position < end:
            items.append(self.value(child, depth))
        if self.position != end:
            raise Malformed("an array's length does not fit its elements")
        return dict(items) if code == "{" else items


class _Writer(Marshaller):
    def write_string(self, value: str, _: Any = None) -> int:
        library: Any = super()
        return int(library.write_string(_UNSENDABLE.sub("\ufffd", value)))


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return value


def _too_deep(signature: str) -> bool:
    depth = deepest = 0
    for code in signature:
        depth += (code in "({") - (code in ")}")
        deepest = max(deepest, depth)
    return deepest > _DEPTH or "a" * (_DEPTH + 1) in signature
