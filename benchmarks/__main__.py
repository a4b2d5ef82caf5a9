"""Run all benchmarks one after the other: `python -m benchmarks`, or `make bench`.

Nothing here is a test: times differ from machine to machine and from hour to hour. Every line is a ratio of things that
were run in turn in the same minute.
"""

import importlib
import pkgutil
import sys

import benchmarks

for name in sys.argv[1:] or sorted(module.name for module in pkgutil.iter_modules(benchmarks.__path__)):
    if name != "__main__":
        module = importlib.import_module(f"benchmarks.{name}")
        print(f"\n== {name}: {module.__doc__.splitlines()[0]}", flush=True)
        sys.argv = [name]
        module.main()
