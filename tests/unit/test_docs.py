"""The documents: generated pages are up to date, links lead somewhere, and the README stays short."""

from __future__ import annotations

import importlib.util
import re

import pytest
from support.processes import REPOSITORY

FOLDERS = (".", "docs", "benchmarks", "ray_jobs/deploy")
DOCUMENTS = sorted(path for folder in FOLDERS for path in (REPOSITORY / folder).glob("*.md"))
LINK = re.compile(r"\]\(([^)\s]+)\)")


def load_generator():
    spec = importlib.util.spec_from_file_location("generate", REPOSITORY / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def find_anchors(text):
    """GitHub's anchors of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", ["metrics.md", "run-folder.md"])
def test_a_generated_page_is_up_to_date(page):
    written = load_generator().PAGES[page]()
    assert (REPOSITORY / "docs" / page).read_text() == written, "run `make docs`"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_link_leads_to_a_file_and_a_heading(path):
    for target in LINK.findall(path.read_text()):
        if target.startswith(("https://", "http://")):
            continue
        name, _, anchor = target.partition("#")
        linked = (path.parent / name).resolve() if name else path
        assert linked.exists(), target
        assert not anchor or anchor in find_anchors(linked.read_text()), target


def test_every_page_of_docs_is_reached_from_the_readme():
    reached, waiting = set(), [REPOSITORY / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        names = {target.partition("#")[0] for target in LINK.findall(page.read_text()) if "://" not in target}
        waiting += [(page.parent / name).resolve() for name in names if name]
    assert set((REPOSITORY / "docs").glob("*.md")) <= reached


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_documents_name_only_files_that_exist(path):
    text = path.read_text()
    for name in re.findall(r"(?:ray_jobs|trainers|ensemble|tests|benchmarks)/[\w/]+\.(?:py|json|sh|yaml)", text):
        assert (REPOSITORY / name).exists(), name


def test_the_readme_is_short():
    readme = (REPOSITORY / "README.md").read_text()
    assert len(readme.encode()) <= 8000
    assert not [line for line in readme.splitlines() if len(LINK.sub("]", line)) > 120]
