"""Benchmarks: each row says what it promises, probes the limit in the same run, checks the bytes it times, prints losses too.

A row yields `Figure`s; `swingby bench` runs rows and reports them. Absolute figures are of one machine and day; ratios travel.
"""
