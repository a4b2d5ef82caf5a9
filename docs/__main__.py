"""`python -m docs [FOLDER] [--chapters 00 05] [--packages core lowrank]`: build the site (default: `site/`), every warning an error, and check it."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from docs.check import problems
from docs.methods import PACKAGES, ROOT
from docs.pages import executed, write_pages


def build(folder: Path, chapters: list[str], packages: list[str]) -> int:
    """Write the pages, run Sphinx and check what it made.

    Args:
        folder: where the site goes; replaced as a whole, and only if everything went well.
        chapters: numbers of the chapters to build.
        packages: of the library, to document.
    Returns:
        how many things are wrong; each was printed.
    Raises:
        FileExistsError: the folder holds something else than a site.
    """
    refuse(folder)
    from sphinx.cmd.build import build_main

    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        write_pages(work / "pages", chapters, packages)
        made = work / "html"
        if build_main(["-q", "-W", "--keep-going", "-c", str(ROOT / "docs"), "-d", str(work / "trees"), str(work / "pages"), str(made)]):
            return 1
        found = problems(made)
        print(*found, sep="\n", end="\n" if found else "")
        if not found:
            (made / ".buildinfo").unlink(missing_ok=True)
            replace(folder, made)
    return len(found)


def replace(folder: Path, made: Path) -> None:
    """Put a finished site in the place of the last one.

    Raises:
        FileExistsError: as `refuse`.
    """
    refuse(folder)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(made, folder)


def refuse(folder: Path) -> None:
    """Refuse to replace what is no site.

    Raises:
        FileExistsError: the folder holds something else than a site.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / "searchindex.js").exists():
        raise FileExistsError(f"{folder} holds something that is no site; name an empty folder or a new one")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m docs", description="Build the course as a site.")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "site")
    parser.add_argument("--chapters", nargs="+", default=list(executed()), metavar="NN", choices=executed())
    parser.add_argument("--packages", nargs="+", default=list(PACKAGES), metavar="NAME", choices=PACKAGES)
    args = parser.parse_args()
    try:
        wrong = build(args.folder, args.chapters, args.packages)
    except FileExistsError as error:
        parser.error(str(error))
    if wrong:
        print(f"{wrong} things are wrong; no site was written" if wrong > 1 else "no site was written", file=sys.stderr)
        return 1
    pages = len([*args.folder.rglob("*.html")])
    print(f"{pages} pages with {len(args.chapters)} chapters: open {args.folder / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
