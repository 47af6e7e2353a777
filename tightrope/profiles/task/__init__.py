"""Questions with known answers: the format of a task, loaders of other layouts, and scoring."""
