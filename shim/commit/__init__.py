"""`qemubox commit`: what a container has written becomes an image, through containerd's own stores.

command.py    the command line, and what a signal does
commit.py     the order of it all: check, lease, pause, layer, resume, image
source.py     where a snapshot's changes are: an upper directory, or two snapshots for containerd to compare
tree.py       reads an upper directory, never through a link
layer.py      its tar: whiteouts, hard links, attributes, times to the nanosecond
packing.py    that tar as pieces of a blob, with its two digests
base.py       the image that the container was made from, as the content store has it
document.py   pure: configuration and manifest of the new image
change.py     pure: `--change`, instructions of a Dockerfile
reference.py  pure: names of images
"""
