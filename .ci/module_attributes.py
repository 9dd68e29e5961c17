"""A plugin of mypy: what ``nn.Module.__getattr__`` looks up is Any.

torch types it as ``Tensor | Module``, which holds for no attribute: each is one of both.
https://mypy.readthedocs.io/en/stable/extending_mypy.html
"""

from __future__ import annotations

from collections.abc import Callable

from mypy.plugin import AttributeContext, Plugin
from mypy.types import AnyType, Type, TypeOfAny, UnionType, get_proper_type

MODULE = "torch.nn.modules.module.Module."


class ModuleAttributes(Plugin):
    """Declared attributes keep their types."""

    def get_attribute_hook(self, fullname: str) -> Callable[[AttributeContext], Type] | None:
        return looked_up if fullname.startswith(MODULE) else None


def looked_up(context: AttributeContext) -> Type:
    """Any in place of ``Tensor | Module``."""
    found = context.default_attr_type
    if isinstance(get_proper_type(found), UnionType) and {"Tensor", "Module"} <= names(found):
        return AnyType(TypeOfAny.special_form)
    return found


def names(kind: Type) -> set[str]:
    """Of the classes in a union."""
    proper = get_proper_type(kind)
    items = proper.items if isinstance(proper, UnionType) else [proper]
    return {str(item).rpartition(".")[2] for item in items}


def plugin(version: str) -> type[Plugin]:
    """What mypy asks for."""
    return ModuleAttributes
