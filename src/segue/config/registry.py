"""Registries: what can be chosen by a name, and where a new choice is added."""

from collections.abc import Callable
from importlib import import_module
from typing import Generic, TypeVar

from segue.errors import ConfigError

Choice = TypeVar("Choice")
Registered = TypeVar("Registered")


class Registry(Generic[Choice]):
    """Choices of one kind by name; those that come with segue are there at the first look-up.

    A choice is registered when its module is imported:

        @ENCODERS.register("mine")
        class MyEncoder: ...
    """

    def __init__(self, kind: str, home: str) -> None:
        """An empty registry.

        Args:
            kind: What is chosen, for messages: "encoder".
            home: The package that registers segue's own choices when it is imported. It stands
                below the registry's room and is known to it by name alone.
        """
        self.kind = kind
        self._home = home
        self._choices: dict[str, Choice] = {}

    def register(self, name: str) -> Callable[[Registered], Registered]:
        """A decorator that makes its class or object the choice of that name.

        A class that is defined again, as in a notebook, takes the place of its former self.

        Raises:
            ConfigError: Another choice has that name.
        """

        def add(choice: Registered) -> Registered:
            import_module(self._home)
            taken = self._choices.get(name)
            if taken is not None and _full_name(taken) != _full_name(choice):
                raise ConfigError(
                    f"the {self.kind} {name!r} exists already ({_full_name(taken)}); "
                    "register yours under another name"
                )
            self._choices[name] = choice  # type: ignore[assignment]
            return choice

        return add

    def __getitem__(self, name: str) -> Choice:
        """The choice of that name.

        Raises:
            ConfigError: There is none.
        """
        import_module(self._home)
        if name not in self._choices:
            raise ConfigError(
                f"{self.kind} must be one of {', '.join(self._choices)}, got {name!r}"
            )
        return self._choices[name]

    def names(self) -> list[str]:
        """The names of all choices, segue's own first."""
        import_module(self._home)
        return list(self._choices)


def _full_name(choice: object) -> str:
    """Module and name of a class or function; of another object, what it says of itself."""
    name = getattr(choice, "__qualname__", None)
    return f"{choice.__module__}.{name}" if name else repr(choice)
