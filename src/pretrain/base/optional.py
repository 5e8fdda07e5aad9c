"""Optional dependencies: imported when first needed, or named with the extra that brings them."""

import importlib
from types import ModuleType

from pretrain.base.errors import UserError


def extra(module: str, name: str) -> ModuleType:
    """The module, or a UserError that names the extra to install: `extra("PIL.Image", "media")`."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        top = module.split(".")[0]
        raise UserError(f"{top} is not installed", expected=f"pip install 'pretrain[{name}]'") from None
