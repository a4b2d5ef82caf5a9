"""The command line: `python -m compresslab COMMAND`; `--help` lists the commands."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path


def _doctor(args: argparse.Namespace) -> bool:
    from compresslab.course import doctor

    return doctor.report()


def _check(args: argparse.Namespace) -> bool:
    from compresslab.course.classroom import check_notebook

    return check_notebook(args.chapter, args.notebook)


def _grade(args: argparse.Namespace) -> bool:
    from compresslab.course.grading import grade

    path = grade(args.folder, out=args.out, jobs=args.jobs, seconds=args.seconds, gigabytes=args.gigabytes)
    print(f"{path.parent.name}/{path.name}")
    return True


def _progress(args: argparse.Namespace) -> bool:
    from compresslab.course import progress

    progress.show()
    return True


def _build(args: argparse.Namespace) -> bool:
    from compresslab.course.build import build

    for number in args.chapter or _written_chapters():
        for path in build(number, execute=not args.stubs_only, force=args.force, workshop=args.workshop):
            print(f"{path.parent.name}/{path.name}", flush=True)
    return True


def _evidence(args: argparse.Namespace) -> bool:
    from compresslab.course.chapters import load_chapter
    from compresslab.course.evidence import write_evidence

    path = write_evidence(load_chapter(args.chapter).number, args.names)
    print(f"evidence/{path.name}")
    return True


def _baselines(args: argparse.Namespace) -> bool:
    from compresslab.baselines import main

    return not main(args.rest)


def _compare(args: argparse.Namespace) -> bool:
    from compresslab.compare.command import run

    return run(args)


def _kill_table(args: argparse.Namespace) -> bool:
    from compresslab.course.chapters import load_chapter
    from compresslab.course.selftest import kill_table, render

    ok = True
    for number in args.chapter or _written_chapters():
        chapter = load_chapter(number)
        with tempfile.TemporaryDirectory() as home:  # budget tasks save files in the learner's folder
            os.environ["COMPRESSLAB_HOME"] = home
            rows = kill_table(chapter)
        print(render(rows, chapter), end="\n\n", flush=True)
        ok &= all(row.ok for row in rows)
    return ok


def _written_chapters() -> list[str]:
    from compresslab.course.chapters import CHAPTERS
    from compresslab.course.source import course_root

    return [
        number for number in sorted(CHAPTERS) if list((course_root() / "solutions").glob(f"{number}_*.py"))
    ]


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    from compresslab.compare.command import add_arguments

    top = argparse.ArgumentParser(
        prog="python -m compresslab", description="A course in compressing neural networks."
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: object, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        return sub

    command("doctor", _doctor, "look at this machine and say how to repair what is wrong")
    sub = command(
        "check", _check, "run your notebook of one chapter from a fresh kernel and show what passes"
    )
    sub.add_argument("chapter", help="00, 01, ...")
    sub.add_argument("--notebook", type=Path, help="another notebook file of this chapter")
    sub = command("grade", _grade, "grade a folder of submitted notebooks, or go on where a run stopped")
    sub.add_argument("folder", type=Path, help="student/NN_name.ipynb, or notebooks side by side")
    sub.add_argument("--out", type=Path, help="where the results go (default: FOLDER-grades)")
    sub.add_argument("--jobs", type=int, default=1, help="submissions at a time (default: 1)")
    sub.add_argument("--seconds", type=float, default=600, help="for one submission (default: 600)")
    sub.add_argument("--gigabytes", type=float, default=8, help="private memory of one process, on Linux (default: 8)")
    command("progress", _progress, "show what you have done in all chapters")
    sub = command("build", _build, "rebuild solutions/*.ipynb and notebooks/*.ipynb from solutions/*.py")
    sub.add_argument("chapter", nargs="*", help="00, 01, ... (default: all)")
    sub.add_argument(
        "--force", action="store_true", help="replace notebooks that hold somebody's work (keeps a backup)"
    )
    sub.add_argument("--stubs-only", action="store_true", help="do not execute the solutions")
    sub.add_argument(
        "--workshop", action="store_true", help="write workshop/: only the workshop's exercises and the design tasks are open"
    )
    sub = command("evidence", _evidence, "recompute the shipped evidence of one chapter")
    sub.add_argument("chapter")
    sub.add_argument("names", nargs="*", help="entries (default: all)")
    sub = command("baselines", _baselines, "train and measure the shipped baselines again")
    sub.add_argument("rest", nargs=argparse.REMAINDER, help="names (default: all)")
    sub = command("compare", _compare, "measure the methods of all families on one ruler, or go on where a run stopped")
    add_arguments(sub)
    sub = command("kill-table", _kill_table, "put every known mistake through its check")
    sub.add_argument("chapter", nargs="*", help="00, 01, ... (default: all)")
    return top


def main(argv: list[str] | None = None) -> int:
    """Run one command; 0 if all is well, 1 if something is not, 130 if it was interrupted."""
    args = parser().parse_args(argv)
    try:
        return 0 if args.run(args) else 1
    except (ValueError, ImportError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
