"""Leaves by file name: the folder is the list of what exists, and a user's own module is named by its dotted path."""

import dataclasses
import importlib
import pkgutil
from types import ModuleType

from pretrain.base.errors import UserError, nearest


def names(kind: str) -> list[str]:
    """Leaves that `pretrain` ships of a kind (a package below `pretrain`, "model.families"), sorted."""
    package = importlib.import_module(f"pretrain.{kind}")
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_"))


def find(kind: str, name: str) -> ModuleType:
    """The module of a leaf: `find("model.families", "llama")`, or a dotted path to a module of the user's own.

    Raises UserError with the nearest name where there is none.
    """
    if "." in name:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise  # the module is there: what it imports is not
            raise UserError(f"no module {name} on the Python path", expected="a module or a shipped name") from None
    known = names(kind)
    if name not in known:
        raise UserError(f"no {kind} called {name!r}", expected=", ".join(known), near=nearest(name, known))
    return importlib.import_module(f"pretrain.{kind}.{name}")


def leaf(kind: str, name: str) -> type:
    """The dataclass of a leaf's options: its `Config` where it has one, else the one public dataclass of the file."""
    module = find(kind, name)
    if hasattr(module, "Config"):
        return module.Config
    own = [
        value
        for attribute, value in vars(module).items()
        if isinstance(value, type)
        and dataclasses.is_dataclass(value)
        and value.__module__ == module.__name__
        and not attribute.startswith("_")
    ]
    if len(own) != 1:
        raise UserError(f"{module.__name__} has {len(own)} public dataclasses", expected="one, the leaf's options")
    return own[0]
