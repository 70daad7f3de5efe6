"""One run of a mixture: a step makes calls, each call attempts, each attempt a reply.

`layer` is a step in its place, `calls` asks, `reply` records, `gather` decides what a
step came to, and `waiting` says how long a call is waited for.
"""
