"""Jobs for long files: kept on the disk from their upload to their result, over restarts of the server."""
