"""Exact effects without computing anything twice; `chain` says why that is possible."""
