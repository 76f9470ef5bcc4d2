"""adult within a budget of 5 minutes, MLP space, three seeds: AUC on its own test file, both files as published.

.venv/bin/python benchmarks/adult.py [FOLDER]            about 16 minutes
"""

from __future__ import annotations

from measure import data_folder, machine, run, spread, state_folder

BUDGET, SEEDS = "5m", (0, 1, 2)
COLUMNS = (
    "age,workclass,fnlwgt,education,education_num,marital_status,occupation,relationship,race,sex,"
    "capital_gain,capital_loss,hours,country,income"
)


def main() -> None:
    folder = data_folder("adult")
    words = [
        "dataset=csv", f"dataset.path={folder}/adult-train.csv.gz", f"dataset.test_path={folder}/adult-test.csv.gz", "dataset.header=false",
        f"dataset.columns=[{COLUMNS}]", "dataset.target=income", "dataset.na_values=['?']", "dataset.comment='|'",
        "metrics.objective=auc", f"budget={BUDGET}",
    ]  # fmt: skip
    found = []
    for seed in SEEDS:
        with state_folder() as home:
            done = run(home, *words, f"seed={seed}")
            found.append((done.seconds, done.document["metrics"]["auc"]["value"], done.document["deployable"]["name"]))
            print(f"seed {seed}: {found[-1]}", flush=True)
    print(f"\nadult, budget={BUDGET}, MLP space, seeds {SEEDS}\n{machine()}\n")
    print(f"test AUC       {spread([row[1] for row in found])}")
    print(f"wall seconds   {spread([row[0] for row in found], 0)}")


if __name__ == "__main__":
    main()
