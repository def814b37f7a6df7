"""Clearing away what nobody needs any more: old runs, their artifacts and shared parts, what dead attempts left.

one listing of the store, what MLflow knows ─▶ inventory ─▶ plan (what goes, how large, why) ─▶ sweep

No manifest ever points to missing data: pointers go before manifests, manifests before data, commits of parts before
their files; a sweep that is killed leaves less to do for the next one.
"""
