"""Functions as tasks: whether a child process can import one, under what name, and whether two are one."""

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType
from typing import Any

from .errors import ConfigurationError


def module_name(fn: Callable[..., Any]) -> str:
    """The name under which a child imports the module of `fn`."""
    return importable_name(fn.__module__)


def importable_name(module: str) -> str:
    """The name under which a child imports a module: for a script, its file's."""
    if module != "__main__":
        return module
    main = sys.modules["__main__"]
    if main.__spec__ is not None:
        return main.__spec__.name
    return Path(main.__file__).stem if main.__file__ else "__main__"


def place(fn: Callable[..., Any]) -> str:
    """Where `fn` is defined, as file:line."""
    code = inspect.unwrap(fn).__code__
    return f"{code.co_filename}:{code.co_firstlineno}"


def refuse_unimportable(fn: Any) -> None:
    """A child finds a task by importing its module, so it must be a function of one."""
    why = None
    if not inspect.isfunction(fn):
        why = "is no function"
    elif fn.__name__ == "<lambda>":
        why = "is a lambda: write it as a function with def"
    elif "<locals>" in fn.__qualname__:
        why = (
            "is defined inside another function, where a child process, which imports modules, would not"
            " find it: move it to its module's top level (a decorator under @task needs functools.wraps)"
        )
    elif "." in fn.__qualname__:
        why = "is a method: write it as a function at its module's top level"
    elif inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        why = "is a generator; a task returns its result"
    if why:
        raise ConfigurationError(
            f"{getattr(fn, '__qualname__', repr(fn))} cannot be a task: it {why}"
        )


def same_function(known: Callable[..., Any], new: Callable[..., Any]) -> bool:
    """Whether `new` is `known`, imported again, perhaps after an edit that moved it."""
    old_code, code = inspect.unwrap(known).__code__, inspect.unwrap(new).__code__
    if (old_code.co_filename, known.__qualname__) != (code.co_filename, new.__qualname__):
        return False
    return old_code.co_firstlineno == code.co_firstlineno or _definitions(code) < 2


def _definitions(code: CodeType) -> int:
    """How many functions of that name the file defines now."""
    import ast  # half a megabyte in every process, for what almost none needs

    try:
        tree = ast.parse(Path(code.co_filename).read_bytes())
    except (OSError, SyntaxError):
        return 0
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return sum(isinstance(node, kinds) and node.name == code.co_name for node in ast.walk(tree))
