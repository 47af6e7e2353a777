"""OpenAI's interface over HTTP, on the engine's thread.

`serve` binds, loads and runs; `app` is the table of routes. A request goes through `gate` (may it
speak here), `body` (bytes and JSON, within limits), `ask` (fields to a prompt, images and options),
`running` (between the event loop and the engine) and `replies` (OpenAI's objects). What is refused
on the way is a `refusal`.
"""
