"""Drawn scenes and questions about them: a task whose right answers are known."""
