"""One window: the rules, the search, and when to try again."""
