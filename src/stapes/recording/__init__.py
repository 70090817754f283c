"""One recording: the seek loop, and what its windows' tokens become.

`__all__` names the pure rules that programs with a loop of their own use too (`stapes.compat`).
"""

from stapes.recording.segments import Piece
from stapes.recording.words.timing import place_words

__all__ = ["Piece", "place_words"]
