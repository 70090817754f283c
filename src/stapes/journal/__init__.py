"""Resumable state of jobs in a SQLite file. Knows no command line."""
