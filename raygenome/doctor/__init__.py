"""What may be wrong with this machine before a run finds out: one module a subject.

Each check is a function that returns findings and raises nothing; `doctor.examine` runs them all.
"""
