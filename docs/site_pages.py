"""Pages of the site that are not files in docs/: the repository's own, and the reference.

mkdocs loads this as hooks. README, CONTRIBUTING and the packages' pages become pages of the site,
and links between all of them are followed there. One to another file of the repository, which the
site does not have, keeps its words and loses its target; one that leads nowhere is a warning, and
so an error under `--strict`. For each public module there is a page made of its docstrings; a
public name without one is a warning, too.
"""

from __future__ import annotations

import importlib
import logging
import posixpath
import re
import tomllib
from pathlib import Path
from typing import Any

import griffe
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
log = logging.getLogger("mkdocs.corral")

LINK = re.compile(
    r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])+)\]\((?!https?://|#|mailto:)([^)#\s]*)(#[^)\s]*)?\)"
)
FENCED = re.compile(r"^( *```.*?^ *```)$", re.MULTILINE | re.DOTALL)


def repository_pages() -> dict[str, str]:
    """Pages outside of docs/, by their path in the repository, each with its path on the site."""
    found = {"README.md": "index.md"}
    for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"):
        found[name] = name.lower()
    for path in sorted(ROOT.glob("[ep]*/*/README.md")):
        found[path.relative_to(ROOT).as_posix()] = f"packages/{path.parent.name}.md"
    return found


PAGES = repository_pages()
ORIGIN = {site: origin for origin, site in PAGES.items()}


def public_modules() -> list[str]:
    """The modules whose names other people may import."""
    manifest = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    return list(manifest["tool"]["corral"]["public-modules"])


def reference_page(module: str, home: dict[int, str], loaded: griffe.Module) -> str:
    """The reference of a module, in Markdown.

    Args:
        module: Its name.
        home: The objects that have their place on the page of an earlier module.
        loaded: The package as griffe reads it.
    """
    entries: list[str] = []
    elsewhere: list[str] = []
    found = importlib.import_module(module)
    for name in sorted(found.__all__, key=str.lower):
        path = f"{module}.{name}"
        value = getattr(found, name)
        if (first := home.setdefault(id(value), path)) != path:
            elsewhere.append(f"- `{name}`: [`{first}`][{canonical(loaded, first)}]")
            continue
        target = canonical(loaded, path)
        document(loaded, target)
        entries.append(f"::: {target}\n    options:\n      heading: {name}\n")
    text = "\n".join([f"# `{module}`", "", found.__doc__ or "", "", *entries])
    return text + ("\n\n## Also here\n\n" + "\n".join(elsewhere) if elsewhere else "") + "\n"


def canonical(loaded: griffe.Module, path: str) -> str:
    """Where a name is defined."""
    found = loaded[path.partition(".")[2]]
    return found.final_target.path if found.is_alias else found.path


def document(loaded: griffe.Module, path: str) -> None:
    """Warn of a public object, or a member of one, that has no docstring."""
    found = loaded[path.partition(".")[2]]
    if not found.has_docstring:
        log.warning("%s has no docstring", path)
    if found.is_class:
        for name, member in found.members.items():
            if member.is_function and not name.startswith("_") and not member.has_docstring:
                log.warning("%s.%s has no docstring", path, name)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages."""
    for origin, site in PAGES.items():
        text = (ROOT / origin).read_text("utf-8")
        files.append(File.generated(config, site, content=text))
    loaded = griffe.load("corral", search_paths=[str(ROOT / "core")], resolve_aliases=True)
    home: dict[int, str] = {}
    for module in public_modules():
        page = reference_page(module, home, loaded)
        files.append(File.generated(config, f"reference/{module}.md", content=page))
    return files


def summary(module: str) -> str:
    """The first sentence or line of a module's docstring."""
    return " ".join((importlib.import_module(module).__doc__ or "").split("\n\n")[0].split())


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Make links lead to pages of the site."""
    site = page.file.src_uri
    if site == "reference/index.md":
        rows = [f"- [`{each}`]({each}.md): {summary(each)}" for each in public_modules()]
        return "\n".join([markdown, *rows])
    if site.startswith("reference/"):
        return markdown
    origin = ORIGIN.get(site, f"docs/{site}")

    def followed(link: re.Match[str]) -> str:
        words, target, anchor = link[1], link[2], link[3] or ""
        path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))
        if not (ROOT / path).exists():
            log.warning("%s: a link to %s, which does not exist", origin, target)
            return words
        reached = PAGES.get(path) or (
            path.removeprefix("docs/") if re.fullmatch(r"docs/[\w/-]+\.md", path) else None
        )
        if reached is None:
            return words
        return f"[{words}]({posixpath.relpath(reached, posixpath.dirname(site) or '.')}{anchor})"

    parts = FENCED.split(markdown)
    return "".join(
        part if number % 2 else LINK.sub(followed, part) for number, part in enumerate(parts)
    )
