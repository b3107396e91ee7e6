"""Finds problems of this machine before a run does; one module per subject.

Each check is a function that returns findings and raises nothing; `doctor.examine` runs them all.
"""
