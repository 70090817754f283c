"""`python -m whisper`."""

from stapes.compat.whisper.transcribe import cli

if __name__ == "__main__":
    cli()
