"""The command `stapes`: reads flags, shows progress, writes files; all work is the engine's."""
