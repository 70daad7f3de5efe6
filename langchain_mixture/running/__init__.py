"""One run of a mixture: a step makes calls, a call has attempts, an attempt a reply.

`nodes` are the graph's nodes, `layer` prepares a step's attempts, `calls` makes them,
`reply` records them, `gather` decides the step's result, `waiting` has the time limits.
"""
