"""The floors of the house: who may import whom, read from the source."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FLOORS = {
    0: "errors events forms idempotency intake keys model peers pointers protocols progress release settings"
    " strict_json json_writer",
    1: "annotations current frameworks functions handle hygiene key_ring registry retry sealed sealing shadowing"
    " signature snapshot submission",
    2: "adopted attempt channel child failures flask guardian lane_client memory output request_context_task runner"
    " stores upkeep usage wire processes",
    3: "celery dispatcher engines housekeeping operation outbox portal roster streams waiters",
    4: "extension parts",
    5: "celery.pool celery.consumer celery.worker engines.celery",
}
FLOOR = {f"jobs.{name}": floor for floor, names in FLOORS.items() for name in names.split()}
FLOOR["jobs"] = 5  # the package's own front door re-exports from all floors
FLOOR["service"] = 6

MAY_IMPORT = {
    "quart": ("service", "jobs.frameworks"),
    "flask": ("jobs.frameworks", "jobs.request_context_task"),
    "celery": ("jobs.request_context_task", "jobs.celery", "jobs.adopted"),
    "kombu": ("jobs.celery",),
    "sqlite3": ("jobs.stores",),
    "aiosqlite": ("jobs.stores",),
    **dict.fromkeys(("psycopg", "psycopg_pool"), ("jobs.stores.postgres",)),
    "multiprocessing": ("jobs.engines", "jobs.child", "jobs.guardian"),
    # No HTTP client anywhere: nobody can have this service ask an address of their choice.
    **dict.fromkeys(("http.client", "urllib.request", "httpx", "requests", "aiohttp"), ()),
    "concurrent.futures.process": ("jobs.engines", "jobs.child", "jobs.guardian"),
}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {
    module_of(path): path
    for top in ("jobs", "service")
    for path in sorted((ROOT / top).rglob("*.py"))
}


@cache
def imports(name: str) -> frozenset[str]:
    """The modules that `name` imports when it runs, also within functions; not those only named in
    annotations."""
    tree = ast.parse(SOURCES[name].read_bytes())
    package = name if SOURCES[name].name == "__init__.py" else name.rpartition(".")[0]
    return frozenset(_within(tree, package))


def _within(node: ast.AST, package: str) -> Iterator[str]:
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
        children: list[ast.AST] = list(node.orelse)
    else:
        children = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        parts = package.split(".")
        base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
        origin = ".".join(filter(None, [base, node.module]))
        for alias in node.names:
            inner = f"{origin}.{alias.name}"
            yield inner if inner in SOURCES else origin
    for child in children:
        yield from _within(child, package)


def floor(module: str) -> int:
    """The floor of a module of ours, by its longest known prefix."""
    while module not in FLOOR or (module == "jobs" and module not in SOURCES):
        module = module.rpartition(".")[0]
    return FLOOR[module]


def within(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def test_every_module_has_a_floor() -> None:
    known = {name for name in FLOOR if name not in ("jobs", "service")}
    found = {".".join(name.split(".")[:2]) for name in SOURCES if within(name, "jobs")} - {"jobs"}
    assert found - known == set(), "give it a floor in this test"


@pytest.mark.parametrize("name", SOURCES)
def test_imports_point_downward(name: str) -> None:
    ours = {module for module in imports(name) if within(module, "jobs", "service")}
    upward = {module for module in ours if floor(module) > floor(name)}
    assert upward == set(), f"{name} (floor {floor(name)}) imports what stands above it"


@pytest.mark.parametrize("name", [name for name in SOURCES if within(name, "jobs")])
def test_the_engine_room_imports_nothing_of_the_service(name: str) -> None:
    assert not any(within(module, "service") for module in imports(name))


@pytest.mark.parametrize("name", SOURCES)
def test_stores_and_engines_do_not_know_each_other(name: str) -> None:
    for here, there in (("jobs.stores", "jobs.engines"), ("jobs.engines", "jobs.stores")):
        assert not (within(name, here) and any(within(m, there) for m in imports(name)))


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_dependency_is_imported_only_where_it_belongs(package: str) -> None:
    users = {name for name in SOURCES if any(within(module, package) for module in imports(name))}
    assert {name for name in users if not within(name, *MAY_IMPORT[package])} == set()
