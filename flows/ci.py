"""The pipeline in CI: small, deterministic, and reported as Markdown beside the champion's figures.

athanor ci [key=value ...]     is   athanor run experiment=ci ...   with Markdown on standard output
"""

from __future__ import annotations

from typing import Any

from components.artifacts import JSON


def run(overrides: list[str]) -> JSON:
    """Runs `experiment=ci` under the overrides; the document holds the Markdown and whether it was promoted."""
    from components.registry.champions import find_champion
    from components.report.markdown import ci_summary
    from flows import plan, screen
    from flows.ahead import look_ahead
    from flows.config import load

    words = ["experiment=ci", *overrides]
    config = load(words)
    champion = find_champion(config.model)
    screen.use(quiet=False)
    from flows.launch import kindle

    kindle()
    look_ahead(config, plan.make(config)[0].record)
    screen.say("starting Prefect's server and the workers")
    from flows.pipeline import synthesize
    from flows.reporting import facts, finished

    decision = synthesize(words)
    done = finished[-1]
    markdown: Any = ci_summary(facts(done), done.records, champion.report if champion else None)
    return {"run": done.id, "model": decision.model, "version": decision.version, "promoted": decision.promoted, "markdown": markdown}
