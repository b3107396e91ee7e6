"""Running a raygenome command as a job on a Ray cluster, through Ray Jobs.

`command` turns what the user typed into the command that runs there, `client` talks to the Jobs API
of a cluster that `protection` has checked, and `status` reports the progress and the end of a job.
"""
