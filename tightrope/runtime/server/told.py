"""A line of the log for each answer, figures as fields: no word of prompt, answer or user."""

from __future__ import annotations

from tightrope.runtime.answer import Answer
from tightrope.runtime.server.refusal import LOG


def tell(model: str, answer: Answer) -> None:
    """Say what an answer took; a journal keeps the fields beside the sentence."""
    took, used = answer.timings, answer.usage
    LOG.info(
        "%s: %d tokens in %.0f ms, %s",
        model,
        used.completion_tokens,
        took.total_ms,
        answer.finish_reason,
        extra={
            "model": model,
            "backend": answer.backend,
            "finish_reason": answer.finish_reason,
            "deadline_met": answer.deadline_met,
            "queue_ms": round(took.queue_ms, 1),
            "ttft_ms": round(took.ttft_ms, 1),
            "total_ms": round(took.total_ms, 1),
            "prompt_tokens": used.prompt_tokens,
            "completion_tokens": used.completion_tokens,
            "visual_tokens_kept": used.visual_tokens_kept,
        },
    )
