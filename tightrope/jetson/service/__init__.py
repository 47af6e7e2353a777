"""Tightrope as a service of systemd: the unit, and putting it in place and away again.

`config` is what a service is made of, `unit` its text, `devices` what it may open, `install` the
order in which files and systemd are changed, `systemd` who is asked to do it.
"""
