"""Drop-in replacements: the interfaces of openai-whisper and faster-whisper on the engine of stapes.

`stapes.compat.whisper` and `stapes.compat.faster_whisper` have the originals' modules, names and signatures
(openai-whisper 20250625, faster-whisper 1.2.1). They use the public interface of stapes alone.
"""
