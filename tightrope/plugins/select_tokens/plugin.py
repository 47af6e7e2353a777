"""`SelectTokens` as a plugin: one kernel ranks the candidates and writes what stays, in order."""

from __future__ import annotations

from tightrope.plugins.description import Description, Form, Step
from tightrope.plugins.select_tokens import body
from tightrope.plugins.select_tokens.cases import cases
from tightrope.plugins.select_tokens.reference import select_tokens
from tightrope.plugins.select_tokens.schema import SCHEMA

PLUGIN = Description(
    schema=SCHEMA,
    reference=select_tokens,
    cases=cases,
    forms=(Form(name="", emit=lambda op, values, _: body.body(op, *values)),),
    limits=(),
    steps=(Step(kernel="select_tokens"),),
)
