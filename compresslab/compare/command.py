"""The command `python -m compresslab compare`: run, resume and time the comparison, from a terminal.

    python -m compresslab compare --list                            what there is to run, and what is done
    python -m compresslab compare --networks lenet300 --seeds 1     a part of it
    python -m compresslab compare --time                            run what is left, then the clock
    python -m compresslab compare --scheduler tcp://10.0.0.1:8786   on a cluster

Stop it whenever you like: the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compresslab.compare.jobs import Job, Methods

FOLDER = Path("comparison")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of this command."""
    add = parser.add_argument
    add("--networks", nargs="+", metavar="NAME", help="networks to compress (default: all)")
    add("--methods", nargs="+", metavar="NAME", help="methods or whole families (default: all)")
    add("--seeds", type=int, default=3, metavar="N", help="seeds 0 to N-1 (default: 3)")
    add("--results", type=Path, default=FOLDER, metavar="FOLDER", help=f"to keep them in (default: {FOLDER})")
    add("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: all cores)")
    add("--scheduler", metavar="ADDRESS", help="run on a Dask cluster, such as tcp://10.0.0.1:8786")
    add("--time", action="store_true", help="then time every network beside its original; keep the machine quiet")
    add("--public", action="store_true", help="measure public networks of torchvision instead")
    add("--weights", action="store_true", help="with --public: download the trained weights first")
    add("--images", type=Path, metavar="FOLDER", help="with --weights: ImageNet's images, a folder per class")
    add("--list", action="store_true", help="list methods and jobs, and run nothing")


def run(args: argparse.Namespace) -> bool:
    """Run the command; whether every job came through.

    Raises:
        ValueError: an unknown network, method or family, or a number out of range.
        ImportError: a scheduler without Dask.
    """
    if (args.weights or args.images) and not args.public:
        raise ValueError("--weights and --images belong to --public: the others ship trained")
    if args.public:
        return _public(args)
    from compresslab.compare.jobs import plan
    from compresslab.compare.methods import METHODS, NETWORKS

    networks = choose("network", args.networks, NETWORKS)
    methods = choose_methods(args.methods, METHODS)
    jobs = plan(networks, methods, args.seeds)
    if args.list:
        print(listing(jobs, methods, args.results))
        return True
    return _compare(args, jobs)


def _compare(args: argparse.Namespace, jobs: Sequence[Job]) -> bool:
    from compresslab.compare.results import format_summary, succeeded, summarize
    from compresslab.compare.runner import RESULTS, compare, time_results

    rows = compare(jobs, args.results, n_jobs=args.jobs, scheduler=args.scheduler)
    if args.time:
        timed = {row["key"]: row for row in time_results(args.results)}
        rows = [timed[row["key"]] for row in rows]
    print(format_summary(summarize(rows)))
    print(f"{len(succeeded(rows))} of {len(rows)} jobs are in {args.results / RESULTS}")
    return len(succeeded(rows)) == len(rows)


def _public(args: argparse.Namespace) -> bool:
    from compresslab.compare.public import NETWORKS, public_table

    path = args.results / ("public-weights.jsonl" if args.weights else "public.jsonl")
    networks = choose("network", args.networks, NETWORKS)
    rows = public_table(path, networks=networks, weights=args.weights, images=args.images)
    print(f"{len(rows)} rows are in {path}")
    return True


def choose(what: str, asked: Sequence[str] | None, known: Iterable[str]) -> list[str]:
    """The names that were asked for, once each; all where none were.

    Raises:
        ValueError: a name that is not known.
    Example:
        >>> choose("network", ["lenet5", "lenet5"], ["lenet300", "lenet5"])
        ['lenet5']
        >>> choose("network", ["alexnet"], ["lenet300", "lenet5"])
        Traceback (most recent call last):
        ValueError: there is no network 'alexnet'; choose from lenet300, lenet5
    """
    known = list(known)
    for name in asked or ():
        if name not in known:
            raise ValueError(f"there is no {what} {name!r}; choose from {', '.join(known)}")
    return list(dict.fromkeys(asked or known))


def choose_methods(asked: Sequence[str] | None, methods: Methods) -> Methods:
    """The methods of these names and of these families, in their usual order; "dense" alone asks for none.

    Raises:
        ValueError: a name that is no method and no family.
    """
    from compresslab.compare.jobs import DENSE

    families = dict.fromkeys(method.family for method in methods.values())
    chosen = choose("method or family", asked, [DENSE, *families, *methods])
    return {name: method for name, method in methods.items() if name in chosen or method.family in chosen}


def listing(jobs: Sequence[Job], methods: Methods, folder: Path) -> str:
    """What there is to run: the methods with their settings, then the jobs that are done and left."""
    from compresslab.compare.results import read_results, succeeded
    from compresslab.compare.runner import RESULTS

    done = {row["key"] for row in succeeded(read_results(folder / RESULTS))}
    ready = sum(job.key in done for job in jobs)
    width = max(map(len, methods), default=0)
    lines = [f"{name:{width}}  {method.family:13}  {', '.join(method.settings):12}  {method.text}"
             for name, method in methods.items()]  # fmt: skip
    networks = ", ".join(dict.fromkeys(job.network for job in jobs))
    lines.append(f"on {networks}: {len(jobs)} jobs, {ready} done, {len(jobs) - ready} left in {folder}")
    return "\n".join(lines)
