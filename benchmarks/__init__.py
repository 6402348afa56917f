"""Measurements that are too slow for tests; `docs/results.md` holds what they found."""
