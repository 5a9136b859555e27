"""No thread of the project imports a module. What its processes really do is watched in every test that starts some
(`thread_imports`)."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.processes import REPOSITORY, clean_environment

from ensemble.kinds import find_kinds

FILES = sorted(path for room in ("ray_jobs", "trainers", "ensemble") for path in (REPOSITORY / room).rglob("*.py"))


def find_thread_functions(tree: ast.Module) -> set[str]:
    """Names of functions that a file hands to a thread, a timer or a pool, and `run` of its classes of threads."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and any("Thread" in ast.unparse(base) for base in node.bases):
            names.add("run")
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        handed = [keyword.value for keyword in node.keywords if keyword.arg == "target"]
        if called.endswith(("pool.submit", "pool.map")):
            handed.append(node.args[0])
        if called.endswith("Timer"):
            handed.append(node.args[1])
        names |= {ast.unparse(part).rpartition(".")[2] for one in handed for part in ast.walk(one)}
    return names


def find_imports(path: Path) -> list[str]:
    """Imports inside functions of threads, as `line: text`."""
    tree = ast.parse(path.read_text())
    in_threads, found = find_thread_functions(tree), []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name in in_threads:
            for part in ast.walk(node):
                is_call = isinstance(part, ast.Call) and ast.unparse(part.func).endswith(
                    ("import_module", "__import__")
                )
                if is_call or isinstance(part, (ast.Import, ast.ImportFrom)):
                    found.append(f"{part.lineno}: {ast.unparse(part)}")
    return found


def test_a_thread_that_imports_is_found(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text(
        "import threading\ndef load():\n    import torch\ndef other():\n    import json\n"
        "threading.Thread(target=load, daemon=True).start()\n"
    )
    assert find_imports(path) == ["3: import torch"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_no_function_of_a_thread_imports(path):
    assert find_imports(path) == []


def test_an_import_in_a_thread_is_noted_by_the_witness(tmp_path):
    room = tmp_path / "ray_jobs"
    room.mkdir()
    script = room / "start.py"
    script.write_text(
        "import threading\ndef load():\n    import colorsys\nthread = threading.Thread(target=load, name='late')\n"
        "thread.start(); thread.join()\n"
    )
    notes = tmp_path / "notes.txt"
    environment = clean_environment(THREAD_IMPORT_NOTES=str(notes))
    subprocess.run([sys.executable, script], check=True, env=environment)
    assert notes.read_text() == f"colorsys in thread 'late', by {script}:3\n"
    assert os.environ["THREAD_IMPORT_NOTES"] != str(notes)


FIND_LATE = """
import ast, inspect, sys
from ensemble.kinds import find_kinds, load_kind
packages = {type(kind).__module__.rpartition(".")[0] for kind in find_kinds().values()}
kind = load_kind(sys.argv[1])
kind.load_modules()
others = tuple(f"{package}." for package in packages - {type(kind).__module__.rpartition(".")[0]})
for name, module in sorted(sys.modules.items()):
    if name.startswith("ensemble.") and not name.startswith(others):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            for part in ast.walk(node) if isinstance(node, ast.FunctionDef) else ():
                names = [part.module] if isinstance(part, ast.ImportFrom) else []
                names += [one.name for one in part.names] if isinstance(part, ast.Import) else []
                print(*(f"{name}.{node.name}: {one}\\n" for one in names if one not in sys.modules), end="")
"""


@pytest.mark.parametrize("kind", find_kinds())
def test_a_kind_that_has_loaded_its_modules_imports_nothing_more(kind):
    """Trials of a tuning are scored in threads."""
    done = subprocess.run([sys.executable, "-c", FIND_LATE, kind], capture_output=True, text=True, cwd=REPOSITORY)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
