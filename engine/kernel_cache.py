"""Compiled functions, kept on disk from one start to the next, as far as there is a disk that works.

The cache is our own and not numba's, for three reasons. Numba keeps a file by the time of the source alone, so that a
function runs old code after one that it calls has changed in another file: here the name of a file is a digest of all
that the code is made of. Numba trusts what it reads, and ends the process where that is damaged: here a digest comes
before the content. And where nothing can be written, numba raises: here the function is compiled in memory.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba.core import compiler, serialize, types
from numba.core.dispatcher import Dispatcher

F = TypeVar("F", bound=Callable[..., Any])
R = TypeVar("R", bound=type)

_RECORDS: dict[str, Any] = {}  # numba's types of the named tuples that compiled functions take, by the tuples' names

_DIGEST_BYTES = hashlib.sha256().digest_size
_SUFFIX = ".kernel"


class CacheReport:
    """The fate of the compiled functions of this process, for the log and for `ousel-engine compile`.

    Attributes:
        loaded, compiled: how many were found on disk, and how many had to be compiled.
        folder: where the newest was found or kept; None where there is no such place.
        problem: why what was compiled can't be kept; None while it can.
        damage: why code that was kept can't be used, so that it was compiled again; None where there was none such.
        compiling: called with the name of each function before it is compiled.
    """

    def __init__(self) -> None:
        self.loaded = self.compiled = 0
        self.folder: Path | None = None
        self.problem: str | None = None
        self.damage: str | None = None
        self.compiling: Callable[[str], object] = lambda name: None

    def note(self, problem: str) -> None:
        """Keeps the first problem: the others follow from it."""
        self.problem = self.problem or problem

    def note_damage(self, damage: str) -> None:
        """Keeps the first."""
        self.damage = self.damage or damage

    def log(self, to: logging.Logger) -> None:
        """One line where the next start will have to compile again, or where this one had to."""
        if self.problem is not None:
            to.warning(
                "compiled functions are not all kept on disk, %d were compiled at this start: %s;"
                " `ousel-engine compile` tries again, NUMBA_CACHE_DIR names another folder",
                self.compiled, self.problem,
            )  # fmt: skip
        elif self.damage is not None:
            to.warning(
                "compiled functions on disk could not all be used, %d were compiled again and are kept now: %s",
                self.compiled, self.damage,
            )  # fmt: skip


report = CacheReport()


def record(*fields: str) -> Callable[[R], R]:
    """Says of what types the fields of a `NamedTuple` are, so that signatures may name it.

    Raises:
        ValueError: there are more types than fields, or fewer, or another record has the name.
    """

    def note(named: R) -> R:
        name, own = named.__name__, [_evaluated(field) for field in fields]
        if len(own) != len(named._fields):  # type: ignore[attr-defined]
            raise ValueError(f"{name} has {len(named._fields)} fields, and {len(own)} types")  # type: ignore[attr-defined]
        if name in _RECORDS and _RECORDS[name].instance_class.__module__ != named.__module__:
            raise ValueError(f"a record {name} is in {_RECORDS[name].instance_class.__module__}, too")
        alike = len({*own}) == 1
        _RECORDS[name] = types.NamedUniTuple(own[0], len(own), named) if alike else types.NamedTuple(own, named)
        return named

    return note


def compiled(
    signature: str, *, any_order: bool = False, fused: bool = False, unlocked: bool = False
) -> Callable[[F], F]:
    """Compiles for one signature when the module is imported, or loads what was compiled before.

    Args:
        signature: as numba has it, with the names of records in it.
        any_order: sums may be added up in another order than written, several terms at once. What must be the same bit
            for bit on every machine may not.
        fused: a product and the sum that it goes into may be rounded once, in the order written, where the machine can.
        unlocked: other threads of Python run meanwhile, which pays where it takes longer than they would give the
            interpreter back. Nobody may write meanwhile what it reads.
    """
    freedom = {"reassoc", "contract"} if any_order else {"contract"} if fused else False
    options: dict[str, Any] = {"error_model": "numpy", "fastmath": freedom, "nogil": unlocked}

    def compile_(kernel: F) -> F:
        function, types_ = numba.njit(**options)(kernel), _evaluated(signature)
        function._cache = KernelCache(
            cast("FunctionType", kernel), f"{types_} {_fields_of(types_)} {any_order} {fused} {unlocked}"
        )
        function.compile(types_)
        function.disable_compile()
        return cast("F", function)

    return compile_


def _evaluated(signature: str) -> Any:
    """Numba's type, or signature, of what is written."""
    return eval(signature, {"__builtins__": {}}, {**vars(types), **_RECORDS})


def _fields_of(signature: Any) -> list[tuple[str, ...]]:
    """The names of the fields of all records in a signature, in its order."""
    found: list[tuple[str, ...]] = []
    waiting = [*signature.args, signature.return_type]
    while waiting:
        one = waiting.pop()
        if isinstance(one, types.BaseNamedTuple):
            found.append(one.fields)  # type: ignore[attr-defined]
        if isinstance(one, types.BaseTuple):
            waiting.extend(one.types)  # type: ignore[attr-defined]
    return found


class KernelCache:
    """The machine code of one function; what numba asks of the cache of a dispatcher.

    Args:
        made_of: what else than the function's own text decides what the code is.
    """

    def __init__(self, kernel: FunctionType, made_of: str) -> None:
        self._name = f"{kernel.__module__}.{kernel.__qualname__}"
        self._source = Path(kernel.__code__.co_filename)
        self._digest = hashlib.sha256(f"{made_of} {digest_of(kernel)}".encode()).hexdigest()
        self.cache_path = ""  # numba shows it in statistics

    def load_overload(self, signature: object, target_context: Any) -> object | None:
        """The code for this machine; None where there is none that can be used."""
        target_context.refresh()
        name = self._file_name(target_context.codegen())
        for folder in folders(self._source):
            try:
                content = (folder / name).read_bytes()
                found, payload = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
                if hashlib.sha256(payload).digest() != found:
                    raise ValueError("it is damaged")
                code = compiler.CompileResult._rebuild(target_context, *pickle.loads(payload))
            except FileNotFoundError:
                continue
            except Exception as error:  # of any kind: whatever lies there, it can be compiled anew
                report.note_damage(f"{folder / name} can't be used: {error}")
                continue
            report.loaded += 1
            report.folder = folder
            return code
        report.compiling(self._name)
        return None

    def save_overload(self, signature: object, code: Any) -> None:
        """Keeps the code in the first folder that takes it."""
        report.compiled += 1
        payload = serialize.dumps(code._reduce())
        content = hashlib.sha256(payload).digest() + payload
        name = self._file_name(code.codegen)
        failed = "there is no folder for them"
        for folder in folders(self._source):
            try:
                _write(folder / name, content)
            except OSError as error:
                failed = f"{folder / name} can't be written: {error.strerror or error}"
                continue
            report.folder = folder
            self._clear(folder, name)
            return
        report.note(failed)

    def enable(self) -> None:
        """It is always."""

    def disable(self) -> None:
        """Numba never asks for it."""

    def flush(self) -> None:
        """Numba asks for it before it compiles anew, which no function here does."""

    def _file_name(self, codegen: Any) -> str:
        machine = (codegen.magic_tuple(), platform.python_implementation(), sys.hexversion)
        versions = (numba.__version__, version("llvmlite"))
        suffix = hashlib.sha256(repr((self._digest, versions)).encode()).hexdigest()[:24]
        return f"{self._name}-{hashlib.sha256(repr(machine).encode()).hexdigest()[:8]}-{suffix}{_SUFFIX}"

    def _clear(self, folder: Path, name: str) -> None:
        """Deletes what an older version of the function has left for the same machine."""
        stem = name.rpartition("-")[0]
        for path in folder.glob(f"{stem}-*{_SUFFIX}"):
            if path.name != name:
                with suppress(OSError):
                    path.unlink()


def folders(source: Path) -> Iterator[Path]:
    """Where the code of a source file may lie, the first choice first."""
    named = os.environ.get("NUMBA_CACHE_DIR")
    if named:
        yield Path(named)
        return
    yield source.parent / "__pycache__"
    cache = os.environ.get("XDG_CACHE_HOME")
    with suppress(RuntimeError):  # there is no home
        yield (Path(cache) if cache else Path.home() / ".cache") / "ousel"


def digest_of(kernel: FunctionType) -> str:
    """All that a function's code is made of: its own text, the constants it names, and the functions it calls."""
    digest = hashlib.sha256()
    _add(digest, kernel, set())
    return digest.hexdigest()


def _add(digest: hashlib._Hash, kernel: FunctionType, seen: set[FunctionType]) -> None:
    if kernel in seen:
        return
    seen.add(kernel)
    cells = [cell.cell_contents for cell in kernel.__closure__ or ()]
    digest.update(_text((kernel.__qualname__, kernel.__defaults__)).encode())
    for value in [*_code(digest, kernel.__code__, kernel.__globals__), *cells]:
        if isinstance(value, Dispatcher):
            digest.update(_text(value.targetoptions).encode())
            value = value.py_func
        value = getattr(value, "_defn", value)  # numba's `intrinsic` keeps there what it was made of
        if isinstance(value, FunctionType):
            if value.__module__.startswith("numba.") or value.__module__.startswith("numpy."):
                digest.update(value.__qualname__.encode())  # their versions are told apart elsewhere
            else:
                _add(digest, value, seen)
        elif isinstance(value, ModuleType):
            digest.update(value.__name__.encode())
        elif isinstance(value, type) and value.__name__ in _RECORDS:
            digest.update(_text((value.__qualname__, *value._fields)).encode())  # type: ignore[attr-defined]
        else:
            digest.update(_text(value).encode())


def _text(value: object) -> str:
    """A value as text that is the same in every process: sets have no order, and objects have no lasting address."""
    if isinstance(value, set | frozenset):
        return f"{{{sorted(map(_text, value))}}}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, dict):
        return f"{{{sorted((_text(key), _text(one)) for key, one in value.items())}}}"
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{value.shape}{hashlib.sha256(value.tobytes()).hexdigest()}"
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | np.generic):
        return f"{type(value).__name__} {value!r}"
    if isinstance(value, type) and issubclass(value, Enum):
        return f"{value.__qualname__} {[(member.name, member.value) for member in value]}"
    # A function or class of a library, whose version is told apart elsewhere.
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"


def _code(digest: hashlib._Hash, code: CodeType, names: dict[str, Any]) -> list[Any]:
    """Adds the text of a function; returns the values of the global names in it."""
    digest.update(code.co_code)
    digest.update(repr((code.co_names, code.co_varnames, code.co_freevars)).encode())
    found = [names[name] for name in code.co_names if name in names]
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found += _code(digest, constant, names)
        else:
            digest.update(_text(constant).encode())
    return found


def _write(path: Path, content: bytes) -> None:
    """The file is there whole or not at all, whoever writes it at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
