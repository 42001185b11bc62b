"""Conversations from files: BaatCheet's own exports and ChatGPT's.

A file is read in a sandbox (`reading`), which checks it and puts it down as `normal` lines, one conversation after the
other; `writing` then makes each of them in a transaction of its own.
"""
