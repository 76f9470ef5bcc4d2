"""The main flow: from labelled data to a promoted ONNX model. Read this first.

    from flows.pipeline import synthesize
    decision = synthesize(["dataset=digits", "budget=3m"])
    print(decision.words)

Each call below is a Prefect task (`flows.tasks`) around one pure function of `components`; Hydra composes what they
read (`conf/pipeline.yaml`); the artifact store remembers what they returned. `athanor run` calls this.
"""

from __future__ import annotations

import functools

from components.artifacts import Decision
from flows.config import load
from flows.reporting import open_reported
from flows.tasks import Pipeline, augment, distill, evaluate, export, fuse, promote, quantize, register, search, train, validate, version


@functools.partial(Pipeline, name="synthesize")
def synthesize(overrides: list[str] | None = None) -> Decision:
    """Runs the whole pipeline under one configuration and returns the decision about its model.

    `overrides` are Hydra's words (`["dataset=csv", "dataset.path=churn.csv"]`). Raises `UsageError` for a mistake in
    them and `DataError` for data that is not fit. Called again after a kill it goes on where it was.
    """
    with open_reported(load(overrides or [])) as config:
        dataset = version(config)
        validate(dataset, config)  # stops here with reasons if the data is not fit
        policy = augment(dataset, config)
        result = search(dataset, policy, config)  # fans trials out to worker processes
        teacher = train(dataset, policy, result, config)
        fused = fuse(dataset, policy, result, teacher, config)  # the trials that lost are of use yet
        student = distill(dataset, policy, fused, config)
        exported = export(dataset, (teacher, fused, student), config)
        quantized = quantize(dataset, exported, config)
        report = evaluate(dataset, exported + quantized, config)  # what would be served, on ONNX Runtime
        registered = register(report, config)
        decision: Decision = promote(registered, config)
    return decision
