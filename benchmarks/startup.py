"""How long the commands take that have little or nothing to do: the same run again, --help, a config error; DVC beside them.

.venv/bin/python benchmarks/startup.py            about 2 minutes
"""

from __future__ import annotations

import sys

from measure import ATHANOR, machine, run, seconds_of, spread, state_folder

REPEATS = 10


def main() -> None:
    with state_folder() as home:
        run(home, "experiment=ci", "search.trials=1")
        rows = {
            "athanor run, nothing to do": seconds_of([str(ATHANOR), "run", "experiment=ci", "search.trials=1"], home, REPEATS),
            "athanor --help": seconds_of([str(ATHANOR), "--help"], home, REPEATS),
            "athanor run space=convnt (a config error)": seconds_of([str(ATHANOR), "run", "space=convnt"], home, REPEATS, code=2),
            "athanor run search.trails=3 (a config error)": seconds_of([str(ATHANOR), "run", "search.trails=3"], home, REPEATS, code=2),
            "athanor status": seconds_of([str(ATHANOR), "status"], home, REPEATS),
            "dvc --version (beside it)": seconds_of([sys.executable, "-m", "dvc", "--version"], home, 3),
        }
    print(f"\nseconds from process start to exit\n{machine()}\n")
    for name, values in rows.items():
        print(f"{name:<46} {spread(values, 2)}")


if __name__ == "__main__":
    main()
