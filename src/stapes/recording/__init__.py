"""One recording: the seek loop, and what its windows' tokens become."""
