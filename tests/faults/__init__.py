"""Fault tests: processes that are really killed, disks that are really full, files that someone has tampered with."""
