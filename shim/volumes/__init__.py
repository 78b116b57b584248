"""Directories and files of the host in a container, by virtiofs (docs/decisions/0026).

expected.py   whether a bundle's container will want any, for the machine is started before Create
program.py    which virtiofsd there is, and what it is told
launcher.py   from a fork to virtiofsd: its mount namespace, with nothing in it but what it serves
daemon.py     the daemon of one machine, from its start to its end
share.py      the volumes of one container: opened once, served by a daemon for each machine it is tried in
"""
