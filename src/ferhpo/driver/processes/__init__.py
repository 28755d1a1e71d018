"""Watch the processes that a sweep depends on: Ray's head while it runs, and Ray's own processes after a kill."""
