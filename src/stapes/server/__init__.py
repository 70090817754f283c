"""The HTTP server: OpenAI's audio API over one engine, with bounds on everything that a client can ask for.

`stapes serve` runs it. Uses the public API of stapes, and the extra `stapes[server]`; nothing else imports it.
"""
