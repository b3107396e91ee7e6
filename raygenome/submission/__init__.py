"""Sending a raygenome command to a Ray cluster as a job of Ray's own, and looking after it.

`command` makes of the user's words what runs there, `address` finds the cluster and sees that it
is guarded, `client` talks to its Jobs API, `send` puts these together, `status` says of a job how
far it is and how it ended.
"""
