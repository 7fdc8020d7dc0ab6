# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is put on the bus, and what a call of it brings."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

State = TypeVar("State")


class Call(NamedTuple):
    """One method call, its arguments read and of the types that the XML says.

    `sender` is the caller's unique name, set by the bus; `interactive`: the caller allows that
    somebody is asked for authorization.
    """

    sender: str
    path: str
    interface: str
    member: str
    arguments: tuple[Any, ...]
    interactive: bool


Result = Sequence[Any] | Coroutine[Any, Any, Sequence[Any]]


class Handler(NamedTuple):
    """A method in two steps, with the authorization between them.

    `validate` turns the call into a request value, or raises InvalidArgs; `act` does it and gives the
    out-arguments, at once or as a coroutine. A descriptor among them (`h`) is handed over.
    `reads`: `act` has no effect but its answer, so that it is not done for who wants no reply.
    `pure`: besides, it makes its answer of the request and of nothing else, so that the answer to an equal
    request may be what it was before. There is no descriptor in it.
    """

    validate: Callable[[Call], Any]
    act: Callable[[Any, Call], Result]
    pure: bool = False
    reads: bool = False


def late(methods: Callable[[], Mapping[str, Handler]], name: str, *, reads: bool = False) -> Handler:
    """The method `name` of `methods`, which is called, and so imported, when somebody calls that."""
    return Handler(
        lambda call: methods()[name].validate(call),  # noqa: PLW0108 -- not before there is a call
        lambda request, call: methods()[name].act(request, call),  # noqa: PLW0108 -- as above
        reads=reads,
    )


class Exported(Protocol):
    """An object with one interface of the XML, and exactly that interface's members."""

    @property
    def interface(self) -> str:
        """The interface's name."""

    @property
    def methods(self) -> Mapping[str, Handler]:
        """Each method of the interface."""

    @property
    def state(self) -> object:
        """What `properties` are made of: a frozen value, which is equal only while all of them are."""

    def properties(self) -> Mapping[str, Any]:
        """Each property's value now: plain values from a snapshot. Cannot raise, cannot block."""


class Following(ABC, Generic[State]):
    """An Exported whose properties are all made of the last `state` that it was given."""

    def __init__(self, state: State) -> None:
        self.state = state

    @abstractmethod
    def properties(self) -> dict[str, Any]:
        """Each property's value, from `state`."""

    def update(self, state: State) -> dict[str, Any]:
        """Take how it is now; the properties that are now otherwise."""
        before = self.properties()
        self.state = state
        return {name: value for name, value in self.properties().items() if value != before[name]}


def no_request(_: Call) -> None:
    """`validate` for a method with nothing to validate."""
