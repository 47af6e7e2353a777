"""A plan in words: what was chosen, and why."""

from __future__ import annotations

from tightrope.point import in_words
from tightrope.runtime.plan import Plan, why


def plan_rows(plan: Plan) -> list[tuple[str, str]]:
    """Rows of a table, "planned ..." first."""
    quality = "assumed: more tokens and pixels are better"
    if plan.quality is not None:
        quality = f"{plan.quality:.3f} on {plan.task}"
    total, ttft = plan.total, plan.ttft
    return [
        ("planned", in_words(plan.point)),
        ("why", why(plan)),
        ("quality", quality),
        ("planned for", f"{plan.completion_tokens} tokens"),
        ("predicted ms", f"{total.p50_ms:.0f}, 99 of 100 within {total.p99_ms:.0f}"),
        ("first token ms", f"{ttft.p50_ms:.0f}, 99 of 100 within {ttft.p99_ms:.0f}"),
        ("of these waiting", f"{plan.waiting_ms:.0f}"),
        ("machine", f"{plan.speed:.2f} of the time it took when it was measured"),
    ]
