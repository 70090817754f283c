"""Stand-in by stapes for faster-whisper: `import faster_whisper` gives `stapes.compat.faster_whisper`."""

try:
    from stapes.compat.alias import use_face
except ImportError as error:
    raise ImportError(
        "this package is a stand-in by stapes, and stapes cannot be imported here: install it for this Python too "
        "(pip install stapes; pipx inject PROGRAM stapes; uv tool install --with stapes PROGRAM)"
    ) from error

use_face(__name__)
