"""Measures stapes beside other engines: each adapter in its own process, all on the same files in turn.

Imports nothing of stapes but in its adapter, so that every engine's own interpreter can run this package.
"""
