"""Connecting to Ray, an existing cluster or a private one; scoring and training both use it.

`address` says which cluster is meant, `probe` whether it answers, `auth` whether a token protects
it. `connect` joins it or starts a private Ray (`local_ray`), `health` notices when it is lost, and
`signals` handles SIGTERM around Ray. `resources` and `hardware` describe the machines.
"""
