"""Fashion-MNIST within a budget of 15 minutes: accuracy on its own test file.

.venv/bin/python benchmarks/fashion_mnist.py [FOLDER]            about 16 minutes
"""

from __future__ import annotations

from measure import data_folder, machine, run, state_folder, test_score

BUDGET = "15m"


def main() -> None:
    folder = data_folder("fashion-mnist")
    with state_folder() as home:
        found = run(home, "dataset=idx", f"dataset.path={folder}", "augmentation=flip_crop", f"budget={BUDGET}")
        records = found.records()
        print(f"\nFashion-MNIST, budget={BUDGET}, seed 0, n=1\n{machine()}\n")
        print(f"wall seconds       {found.seconds:.0f}")
        print(f"promoted           {found.document['deployable']}")
        print(f"test accuracy      {found.document['metrics']['accuracy']}")
        print(f"trials completed   {sum(trial.state == 'complete' for trial in records['search'].trials)}")
        for model in (*records["export"], *records["quantize"]):
            print(f"test {model.name:<14} {test_score(model, records['version'], 'accuracy'):.4f}  {model.file.size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
