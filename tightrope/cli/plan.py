"""A plan, and what was spent, in words."""

from __future__ import annotations

from tightrope.jetson.spent import Spent
from tightrope.point import in_words
from tightrope.runtime.plan import HeatPlan, Plan, why

Rows = list[tuple[str, str]]


def plan_rows(plan: Plan) -> Rows:
    """Rows of a table, "planned ..." first."""
    quality = "assumed: more tokens and pixels are better"
    if plan.quality is not None:
        quality = f"{plan.quality:.3f} on {plan.task}"
    kept = f", {plan.cached_tokens} of the prompt kept" if plan.cached_tokens else ""
    total, ttft = plan.total, plan.ttft
    rows = [
        ("planned", in_words(plan.point)),
        ("why", why(plan)),
        ("quality", quality),
        ("planned for", f"{plan.completion_tokens} tokens{kept}"),
        ("predicted ms", f"{total.p50_ms:.0f}, 99 of 100 within {total.p99_ms:.0f}"),
        ("first token ms", f"{ttft.p50_ms:.0f}, 99 of 100 within {ttft.p99_ms:.0f}"),
        ("of these waiting", f"{plan.waiting_ms:.0f}"),
        ("machine", f"{plan.speed:.2f} of the time it took when it was measured"),
    ]
    if plan.energy_j is not None:
        rows.append(("predicted energy", f"{plan.energy_j:.2f} J"))
    return rows if plan.heat is None else [*rows, ("heat", _heat(plan.heat))]


def _heat(heat: HeatPlan) -> str:
    told = [] if heat.hottest_c is None else [f"{heat.hottest_c:.0f} °C"]
    if heat.watts is not None:
        allowed = "any" if heat.allowed_watts is None else f"{heat.allowed_watts:.1f}"
        told.append(f"{heat.watts:.1f} W in the mean, {allowed} allowed")
    told.append(f"{heat.left_out} points left out")
    if heat.price:
        told.append(f"which costs {heat.price:.3f} of quality")
    return ", ".join(told)


def spent_rows(spent: Spent) -> Rows:
    """Energy with what measured it, heat, and what held the board back."""
    told = spent.why or "not measured"
    if spent.energy_j is not None:
        token = "" if spent.token_j is None else f", {spent.token_j:.3f} J a token"
        told = f"{spent.energy_j:.2f} J{token} ({spent.source})"
    rows = [("energy", told)]
    if spent.hottest_c is not None:
        rows.append(("hottest", f"{spent.hottest_c:.1f} °C"))
    if spent.throttled:
        rows.append(("held back by", ", ".join(spent.throttled)))
    if spent.over_current:
        rows.append(("over-current", f"{spent.over_current} events"))
    return rows
