"""Raw data to a released foundation model, in one recipe: the public names, each fetched on first use (PEP 562)."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

PUBLIC = {
    "UserError": "pretrain.base.errors:UserError",
    "load_recipe": "pretrain.recipe.read:load",
    "execute": "pretrain.run.stages:execute",
    "load_model": "pretrain.run.open:open_model",
    "trace_step": "pretrain.trace.trace:trace_step",
    "trace_document": "pretrain.trace.trace:trace_document",
}
__all__ = ["UserError", "__version__", "execute", "load_model", "load_recipe", "trace_document", "trace_step"]


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module 'pretrain' has no attribute {name!r}")
    module, _, attribute = PUBLIC[name].partition(":")
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return __all__
