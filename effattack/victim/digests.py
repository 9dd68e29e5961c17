"""Digests of victims and attacks: all that decides what they do, as a short hash.

One walk goes through an object and whatever it holds: weights and settings wherever they lie
(attributes, lists, closures, globals that its functions read), and the code behind them
(:mod:`.own_code`). The hash is the same for the same things made again, in any process.
"""

from __future__ import annotations

import copyreg
import dis
import enum
import functools
import hashlib
import inspect
import random
import re
import types
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from effattack.victim.own_code import SHIPPED, is_own, origin, package


def victim_digest(victim: nn.Module) -> str:
    """Hash of all that decides what a victim does: weights, buffers, settings and source code.

    Training mode does not count, nor what torch's compiler notes down; that a module is compiled
    does.
    """
    return digest(victim)


def digest(value: object) -> str:
    """Hash of whatever decides what something does, as :func:`victim_digest` has it of victims."""
    return hash_text(_Walk().text(value))


def weights_digest(victim: nn.Module) -> str:
    """Hash of the values of all parameters and buffers, whatever the code around them looks like.

    Names, order and repetitions do not count, nor do settings that lie in no tensor.
    """
    walk = _Walk()
    held = (value for module in victim.modules() for value in _state_of(module).values())
    return hash_text("\n".join(sorted({walk.text(value) for value in held})))


def attack_digest(attack: object) -> str:
    """Hash of an attack's settings and source code; the victim has a digest of its own."""
    walk = _Walk()
    own = {key: value for key, value in vars(attack).items() if key != "victim"}
    return hash_text(walk.text(type(attack)) + walk.text(own))


def hash_text(text: str) -> str:
    """A short hash."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


LONG = 200
"""Characters of a text that is told by its hash: an object held many times stays short."""

_MACHINERY = {*vars(nn.Module()), "extra_repr"} - {"_forward_hooks", "_forward_pre_hooks"}
"""Attributes of modules that decide nothing, or are walked by their own rules."""

_NOTES_OF_TORCH = re.compile(r"torch\.(_\w+|fx|export|jit|futures|package|autograd)\b")
"""Where torch keeps graphs, guards and numbers of its own, which differ from run to run."""

_STATELESS = (
    *(types.FrameType, types.GeneratorType, types.CoroutineType, types.TracebackType),
    *(random.Random, np.random.Generator, np.random.RandomState, torch.Generator),
)
"""What is told by its class alone: it cannot be made again, or moves with every use."""


class _Walk:
    """One walk; an object met twice is gone through once."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[object, str]] = {}  # the object is held: its id stays its own
        self._inside: list[int] = []

    def text(self, value: Any) -> str:
        """The same text for the same data and code."""
        if value is None or type(value) in (bool, int, float, complex, str, bytes):
            return repr(value)
        key = id(value)
        if key in self._inside:  # it holds itself: told by how far above
            return f"^{len(self._inside) - self._inside.index(key)}"
        if key not in self._known:
            self._inside.append(key)
            try:
                found = self._of(value)
            finally:
                self._inside.pop()
            self._known[key] = value, found if len(found) <= LONG else hash_text(found)
        return self._known[key][1]

    def _of(self, value: Any) -> str:
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, np.ndarray | np.generic):
            data = self._each(value.ravel().tolist()) if value.dtype.hasobject else _sha(value)
            return f"{value.dtype}{value.shape}{data}"
        if isinstance(value, nn.Module):
            return self._module(value)
        if isinstance(value, Mapping | types.MappingProxyType):
            pairs = (f"{self.text(k)}: {self.text(v)}" for k, v in value.items())
            return f"{_name(value)}{{{', '.join(pairs)}}}{self._beside(value)}"
        if isinstance(value, set | frozenset):
            return f"{{{', '.join(sorted(map(self.text, value)))}}}"
        if isinstance(value, list | tuple | deque):
            return f"{_name(value)}({self._each(value)}){self._beside(value)}"
        if isinstance(value, enum.Enum):
            return f"{self._class(type(value))}.{value.name}"
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, types.ModuleType):
            return f"{value.__name__} {origin(value.__name__)}"
        if isinstance(value, property):
            return self._each([value.fget, value.fset])
        if inspect.isroutine(value) or isinstance(value, functools.partial):
            return self._function(value)
        return self._object(value)

    def _each(self, values: Iterable[Any]) -> str:
        return ", ".join(map(self.text, values))

    def _beside(self, value: Any) -> str:
        """Attributes of what is a container, too."""
        own = getattr(value, "__dict__", None)
        return self.text(own) if own else ""

    def _tensor(self, value: Tensor) -> str:
        if value.is_nested:
            return f"nested({self._each(value.unbind())})"
        head = f"{value.dtype}{tuple(value.shape)}"
        if value.is_meta or isinstance(value, torch._subclasses.FakeTensor):
            return f"{head}meta"
        if hasattr(value, "__tensor_flatten__"):
            names, context = value.__tensor_flatten__()
            parts = {name: getattr(value, name) for name in names}
            return f"{head}{_name(value)}{self.text(parts)}{self.text(context)}"
        if value.layout is not torch.strided:
            return f"{head}{value.layout}{_sha(_plain(value.detach().to_dense()))}"
        return f"{head}{_sha(_plain(value.detach()))}"

    def _module(self, module: nn.Module) -> str:
        """Class, settings, tensors and parts; a compiled one is what it was made from."""
        if (original := getattr(module, "_orig_mod", None)) is not None:
            return f"compiled({self.text(original)})"
        parts = [self._class(type(module)), self.text(_state_of(module))]
        if isinstance(module, torch.jit.ScriptModule | fx.GraphModule):
            parts.append(str(getattr(module, "code", "")))
        else:
            own = {k: v for k, v in vars(module).items() if k not in _MACHINERY}
            own = {k: [*v.values()] if k.endswith("hooks") else v for k, v in own.items()}
            parts.append(self.text(_settings(own, type(module))))
        for name, child in module.named_children():
            parts.append(f"{name}: {self.text(child)}")
        return f"module({' '.join(parts)})"

    def _class(self, cls: type) -> str:
        """The code of a class and its bases, and what the user's ones hold."""
        made_by = inspect.getmro(type(cls))[:-2] if is_own(type(cls).__module__) else ()
        return " < ".join(
            f"{each.__module__}.{each.__qualname__} {origin(each.__module__)} "
            f"{self.text(_class_attributes(each)) if is_own(each.__module__) else ''}"
            for each in (*cls.__mro__, *made_by)
        )

    def _function(self, function: Any) -> str:
        """Its code, and what it holds: closure, defaults, object, globals that it only reads."""
        function = getattr(function, "_torchdynamo_orig_callable", function)
        if isinstance(function, functools.partial):
            return f"partial({self._each([function.func, function.args, function.keywords])})"
        if (inner := getattr(function, "__func__", None)) is not None:
            return f"{self.text(inner)} of {self.text(getattr(function, '__self__', None))}"
        code = getattr(function, "__code__", None)
        if not isinstance(code, types.CodeType):
            inner = getattr(function, "__wrapped__", None)
            return f"{getattr(function, '__qualname__', _name(function))} {self.text(inner)}"
        module = function.__globals__.get("__name__", "")
        name = f"{module}.{function.__qualname__}"
        held = [_content(cell) for cell in function.__closure__ or ()]
        held += [function.__defaults__, function.__kwdefaults__]
        if not is_own(module):
            return f"{name} {origin(module)} {self.text(held)}"
        held.append(_globals_read(code, function.__globals__))
        typed_in = not origin(module) or not Path(code.co_filename).is_file()
        return f"{name} {origin(module)} {_bytecode(code) * typed_in} {self.text(held)}"

    def _object(self, value: Any) -> str:
        cls = type(value)
        if isinstance(value, _STATELESS) or _NOTES_OF_TORCH.match(cls.__module__):
            return _name(value)
        if isinstance(value, Path) and value.is_file():  # wherever it lies
            return f"file {hashlib.sha256(value.read_bytes()).hexdigest()}"
        if package(cls.__module__) in SHIPPED - {"effattack"} or not _attributes(value):
            return f"{_name(value)}{self.text(_reduced(value))}"
        return f"{self._class(cls)}{self.text(_settings(_attributes(value), cls))}"


def _attributes(value: object) -> dict[str, Any]:
    """All that an object holds, in slots or not."""
    slots = [name for cls in type(value).__mro__ for name in _as_tuple(vars(cls).get("__slots__"))]
    held = {slot: getattr(value, slot) for slot in slots if hasattr(value, slot)}
    return {**held, **getattr(value, "__dict__", {})}


def _state_of(module: nn.Module) -> dict[str, Any]:
    """Tensors of the module itself, and what packed layers put into its state."""
    own = {**module._parameters, **module._buffers}
    return own | {k: v for k, v in _own_state(module).items() if k not in own}


def _own_state(module: nn.Module) -> dict[str, Any]:
    """What the module alone adds to a state dictionary."""
    own: dict[str, Any] = {}
    module._save_to_state_dict(own, "", keep_vars=True)
    return own


def _settings(attributes: Mapping[str, Any], cls: type) -> dict[str, Any]:
    """Attributes without what was computed from the others and kept, and what the class says is no
    part of what it does (``decides_nothing``)."""
    idle = getattr(cls, "decides_nothing", ())
    return {
        key: value
        for key, value in attributes.items()
        if key not in idle
        and not isinstance(inspect.getattr_static(cls, key, None), functools.cached_property)
    }


def _class_attributes(cls: type) -> dict[str, Any]:
    """What a class holds; of the names that Python keeps for itself, methods alone."""
    return {
        key: value
        for key, value in vars(cls).items()
        if inspect.isroutine(value) or not (key.startswith("__") or key == "_abc_impl")
    }


def _globals_read(code: types.CodeType, known: Mapping[str, Any]) -> dict[str, Any]:
    """What a function reads of its module and of the user's other ones; not what it writes."""
    names, written = set[str](), set[str]()
    for each in _codes(code):
        names.update(each.co_names)
        written.update(_written(each))
    return _read(names - written, known, ())


def _read(names: set[str], known: Mapping[str, Any], modules: tuple[str, ...]) -> dict[str, Any]:
    """The values of names, and what the same code may read through the user's own modules."""
    found: dict[str, Any] = {}
    for name in sorted(names & set(known)):
        value = known[name]
        if not isinstance(value, types.ModuleType):
            found[name] = value
        elif is_own(value.__name__) and value.__name__ not in modules:
            through = _read(names, vars(value), (*modules, value.__name__))
            found[name] = origin(value.__name__), through
    return found


def _written(code: types.CodeType) -> set[str]:
    return {i.argval for i in dis.get_instructions(code) if i.opname == "STORE_GLOBAL"}


def _codes(code: types.CodeType) -> list[types.CodeType]:
    """A function's code, and that of the functions inside it."""
    inner = [each for each in code.co_consts if isinstance(each, types.CodeType)]
    return [code, *(deep for each in inner for deep in _codes(each))]


def _bytecode(code: types.CodeType) -> str:
    """Of a function whose source is in no file: typed into a notebook, or made by ``exec``."""
    parts = [
        (each.co_code, [c for c in each.co_consts if not isinstance(c, types.CodeType)])
        for each in _codes(code)
    ]
    return hash_text(repr([(data, list(map(_constant, constants))) for data, constants in parts]))


def _constant(value: Any) -> str:
    return repr(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not bound yet
        return None


def _reduced(value: Any) -> Any:
    """What an object of Python's own, such as a pattern or a date, is copied from."""
    try:
        reduced = copyreg.dispatch_table.get(type(value))
        found = reduced(value) if reduced else value.__reduce_ex__(2)
    except Exception:  # it cannot be copied: a lock, a file
        return None
    return found if isinstance(found, str) else found[1:3]


def _as_tuple(slots: Any) -> tuple[str, ...]:
    named = (slots,) if isinstance(slots, str) else tuple(slots or ())
    return tuple(name for name in named if name not in ("__dict__", "__weakref__"))


def _name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _plain(tensor: Tensor) -> np.ndarray[Any, Any]:
    """The bytes of a tensor, unpacked where a class of its own packs them."""
    plain = tensor.dequantize() if type(tensor) not in (Tensor, nn.Parameter) else tensor
    plain = tensor.to_dense() if plain.is_mkldnn else plain
    plain = plain.dequantize() if plain.is_quantized else plain
    plain = plain.cpu().resolve_conj().resolve_neg().contiguous()
    flat: np.ndarray[Any, Any] = plain.flatten().view(torch.uint8).numpy()
    return flat


def _sha(array: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
