"""The numbers of rtnetlink(7), and the fixed parts of its messages, by the kernel's names. Pure.

Of links, addresses, neighbours, routes and rules: what both sides of a machine's network speak of, each once.
"""

import struct

from netlink.attribute import u32

# linux/rtnetlink.h. RTM_DEL* follows RTM_NEW*.
RTM_NEWLINK, RTM_GETLINK = 16, 18
RTM_NEWADDR, RTM_GETADDR = 20, 22
RTM_NEWROUTE, RTM_GETROUTE = 24, 26
RTM_NEWNEIGH, RTM_GETNEIGH = 28, 30
RTM_NEWRULE, RTM_GETRULE = 32, 34

# linux/if_link.h, linux/if.h
# family, kind of hardware, index, flags, which of the flags are meant: struct ifinfomsg
IFINFOMSG = struct.Struct("=BxHiII")
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER, IFLA_TXQLEN = 1, 3, 4, 5, 10, 13
IFLA_LINKINFO, IFLA_STATS64, IFLA_AF_SPEC, IFLA_EXT_MASK, IFLA_LINK_NETNSID = 18, 23, 26, 29, 37
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2
IFLA_INET6_CONF, IFLA_INET6_ADDR_GEN_MODE = 2, 8
IN6_ADDR_GEN_MODE_EUI64, IN6_ADDR_GEN_MODE_NONE = 0, 1
RTEXT_FILTER_SKIP_STATS = 1 << 3
IFF_UP, IFF_PROMISC, IFF_ALLMULTI = 0x1, 0x100, 0x200

# linux/if_addr.h
# family, length of the prefix, flags, scope, index of the link: struct ifaddrmsg
IFADDRMSG = struct.Struct("=BBBBI")
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_FLAGS = 1, 2, 4, 8
IFA_F_NODAD, IFA_F_DADFAILED, IFA_F_NOPREFIXROUTE = 0x02, 0x08, 0x200

# linux/neighbour.h
# family, index of the link, state, flags, type: struct ndmsg
NDMSG = struct.Struct("=BxxxiHBB")
NDA_DST, NDA_LLADDR = 1, 2
NUD_PERMANENT = 0x80
NTF_PROXY = 0x08

# linux/rtnetlink.h
# family, lengths of destination's and source's prefix, TOS, table, protocol, scope, type, flags: struct rtmsg
RTMSG = struct.Struct("=BBBBBBBBI")
# length, flags, weight less 1, index of the link: struct rtnexthop, whose own attributes are behind it
RTNEXTHOP = struct.Struct("=HBBI")
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_METRICS = 1, 4, 5, 6, 7, 8
RTA_MULTIPATH, RTA_TABLE, RTA_VIA, RTA_ENCAP = 9, 15, 18, 22
RTAX_MTU = 2
RTM_F_CLONED = 0x200
RTNH_F_ONLINK = 4
RTPROT_KERNEL, RTPROT_BOOT = 2, 3
RTN_UNICAST, RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT, RTN_THROW = 1, 6, 7, 8, 9
RT_TABLE_COMPAT, RT_TABLE_DEFAULT, RT_TABLE_MAIN, RT_TABLE_LOCAL = 252, 253, 254, 255

# linux/fib_rules.h
# family, lengths of destination's and source's prefix, TOS, table, action, flags: struct fib_rule_hdr
FIB_RULE_HDR = struct.Struct("=BBBBBxxBI")
FR_ACT_TO_TBL = 1
FIB_RULE_INVERT = 0x2
FRA_DST, FRA_SRC, FRA_IIFNAME, FRA_PRIORITY, FRA_FWMARK = 1, 2, 3, 6, 10
FRA_SUPPRESS_IFGROUP, FRA_SUPPRESS_PREFIXLEN = 13, 14
FRA_TABLE, FRA_FWMASK, FRA_OIFNAME, FRA_PAD, FRA_PROTOCOL = 15, 16, 17, 18, 21


def link(index: int = 0, *, flags: int = 0, change: int = 0, parts: bytes = b"") -> bytes:
    """The body of a message about a link: the flags to set among those to change, then attributes."""
    return IFINFOMSG.pack(0, 0, index, flags, change) + parts


# What RTM_GETLINK says to have all links, without their statistics.
ALL_LINKS = link(parts=u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS))
