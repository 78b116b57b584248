"""The container's network on the host: a network namespace, what CNI makes in it, and the machine behind that.

netns.py        network namespaces: made by us, or given
survey.py       what is in one: interfaces with their addresses, routes, neighbours, as values
tap.py          a TAP beside each interface, and all frames led from one to the other
counters.py     what went over each
lookup.py       connections to localhost in the namespace, and forward.py: to the guest
names.py        /etc/hosts, /etc/hostname and /etc/resolv.conf of a container whose client brings none
attach.py       the network of the configuration, by CNI
network.py      all of that for one container, in its order
"""
