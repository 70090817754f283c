"""Decoding of uploads in child processes that can reach nothing but the upload: a fault in a decoder stays there."""
