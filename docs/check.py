"""`python -m docs.check [FOLDER]`: what is wrong with a built site: dead links, things loaded from a network, raw formulas."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
SILENT = ("script", "style", "pre", "code", "svg", "title")
_RAW = re.compile(r"\$[^$\n]{1,300}\$|\{\{(?:exercise|question|prediction)|:\w+:`")
_FROM_CSS = re.compile(r"(?:@import\s+|url\()\s*[\"']?((?:https?:)?//[^\"')]+)")


class Page(HTMLParser):
    """What a page links to, loads, and offers as targets; and the text of it that is neither code nor formula."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self.text: list[str] = []
        self.formulas = 0
        self._open: list[tuple[str, bool]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        formula = "math" in given.get("class", "").split()
        self.formulas += formula
        if tag not in ("img", "br", "hr", "input", "link", "meta", "source", "col", "wbr"):
            self._open.append((tag, tag in SILENT or formula))
        self.ids |= {given[key] for key in ("id", "name") if key in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag in LOADED and LOADED[tag] in given and given.get("rel") not in ("canonical", "index", "search", "next", "prev"):
            self.loads.append(given[LOADED[tag]])

    def handle_endtag(self, tag: str) -> None:
        while any(tag == name for name, _ in self._open):
            if self._open.pop()[0] == tag:
                break

    def handle_data(self, data: str) -> None:
        if not any(silent for _, silent in self._open):
            self.text.append(data)


def problems(folder: Path) -> list[str]:
    """One line for each thing that is wrong with the site in a folder, its page first.

    Raises:
        FileNotFoundError: there is no site.
    """
    folder = folder.resolve()
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.html"))}
    if not pages:
        raise FileNotFoundError(f"there is no site in {folder}: run `make site` first")
    found = []
    for path, page in pages.items():
        where = path.relative_to(folder)
        found += [f"{where}: dead link {link}" for link in page.links if not alive(link, path, pages)]
        found += [f"{where}: loaded from a network: {link}" for link in page.loads if urlsplit(link).netloc]
        found += [f"{where}: is not there: {link}" for link in page.loads if not urlsplit(link).netloc and not alive(link, path, pages)]
        found += [f"{where}: not rendered: {match[0]}" for match in _RAW.finditer("".join(page.text))]
    for path in sorted(folder.rglob("*.css")):
        text = path.read_text(encoding="utf-8", errors="replace")
        found += [f"{path.relative_to(folder)}: loaded from a network: {match[1]}" for match in _FROM_CSS.finditer(text)]
    return found


def alive(link: str, path: Path, pages: dict[Path, Page]) -> bool:
    """Whether a link inside the site leads to a file, and to a target in it; links to elsewhere are not tried."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return True
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path.resolve()
    if not target.is_file():
        return False
    return not parts.fragment or target not in pages or unquote(parts.fragment) in pages[target].ids


if __name__ == "__main__":
    wrong = problems(Path(sys.argv[1] if len(sys.argv) > 1 else "site"))
    print(*wrong, sep="\n", end="\n" if wrong else "")
    print(f"{len(wrong)} problems")
    sys.exit(bool(wrong))
