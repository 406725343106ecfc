"""Netfilter's netlink: what all its subsystems share, and the numbers of nf_tables.

Here: the four bytes that follow the netlink header, the brackets round a transaction, and the attribute numbers. Not here: what
tables, rules and sets mean (``podwire.nft``), and no socket.

A transaction of nf_tables is one datagram: BATCH_BEGIN, messages, BATCH_END, all or nothing. A message with ``ACK`` is answered by its
own acknowledgement, an error by one even without. All integers in attributes are in network order.

Sources: include/uapi/linux/netfilter/{nfnetlink,nf_tables}.h of the Linux kernel.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from podwire.wire import netlink

_GENERIC = Struct(">BBH")  # family, version, resource id

# Subsystems: the high byte of a message's type.
CTNETLINK: Final = 1
NFTABLES: Final = 10
BATCH_BEGIN: Final = 0x10
BATCH_END: Final = 0x11

FAMILIES: Final = {"inet": 1, "ip": 2, "arp": 3, "netdev": 5, "bridge": 7, "ip6": 10}
FAMILY_NAMES: Final = {number: name for name, number in FAMILIES.items()}

# Messages of nf_tables: the low byte.
NEWTABLE, GETTABLE, DELTABLE, NEWCHAIN, GETCHAIN, DELCHAIN, NEWRULE, GETRULE, DELRULE, NEWSET, GETSET, DELSET = range(12)
NEWSETELEM, GETSETELEM, DELSETELEM, NEWGEN, GETGEN = range(12, 17)


class NFTA:
    """Attribute numbers, named as in the kernel's header."""

    TABLE_NAME, TABLE_FLAGS, TABLE_USERDATA = 1, 2, 6
    CHAIN_TABLE, CHAIN_HANDLE, CHAIN_NAME, CHAIN_HOOK, CHAIN_POLICY, CHAIN_TYPE, CHAIN_USERDATA = 1, 2, 3, 4, 5, 7, 12
    HOOK_HOOKNUM, HOOK_PRIORITY, HOOK_DEV = 1, 2, 3
    RULE_TABLE, RULE_CHAIN, RULE_HANDLE, RULE_EXPRESSIONS, RULE_USERDATA = 1, 2, 3, 4, 7
    SET_TABLE, SET_NAME, SET_FLAGS, SET_KEY_TYPE, SET_KEY_LEN, SET_DATA_TYPE, SET_DATA_LEN = 1, 2, 3, 4, 5, 6, 7
    SET_POLICY, SET_DESC, SET_ID, SET_TIMEOUT, SET_GC_INTERVAL, SET_USERDATA, SET_COUNT = 8, 9, 10, 11, 12, 13, 20
    DESC_SIZE, DESC_CONCAT = 1, 2
    FIELD_LEN = 1
    LIST_ELEM = 1
    ELEMENTS_TABLE, ELEMENTS_SET, ELEMENTS_LIST, ELEMENTS_SET_ID = 1, 2, 3, 4
    ELEM_KEY, ELEM_DATA, ELEM_FLAGS, ELEM_TIMEOUT, ELEM_EXPIRATION, ELEM_USERDATA, ELEM_KEY_END = 1, 2, 3, 4, 5, 6, 10
    DATA_VALUE, DATA_VERDICT = 1, 2
    VERDICT_CODE, VERDICT_CHAIN = 1, 2
    EXPR_NAME, EXPR_DATA = 1, 2
    GEN_ID = 1
    IMMEDIATE_DREG, IMMEDIATE_DATA = 1, 2
    BITWISE_SREG, BITWISE_DREG, BITWISE_LEN, BITWISE_MASK, BITWISE_XOR, BITWISE_OP = 1, 2, 3, 4, 5, 6
    BYTEORDER_SREG, BYTEORDER_DREG, BYTEORDER_OP, BYTEORDER_LEN, BYTEORDER_SIZE = 1, 2, 3, 4, 5
    CMP_SREG, CMP_OP, CMP_DATA = 1, 2, 3
    RANGE_SREG, RANGE_OP, RANGE_FROM, RANGE_TO = 1, 2, 3, 4
    LOOKUP_SET, LOOKUP_SREG, LOOKUP_DREG, LOOKUP_SET_ID, LOOKUP_FLAGS = 1, 2, 3, 4, 5
    DYNSET_NAME, DYNSET_SET_ID, DYNSET_OP, DYNSET_SREG_KEY, DYNSET_SREG_DATA, DYNSET_TIMEOUT, DYNSET_EXPR = 1, 2, 3, 4, 5, 6, 7
    DYNSET_FLAGS, DYNSET_EXPRESSIONS = 9, 10
    PAYLOAD_DREG, PAYLOAD_BASE, PAYLOAD_OFFSET, PAYLOAD_LEN = 1, 2, 3, 4
    META_DREG, META_KEY, META_SREG = 1, 2, 3
    CT_DREG, CT_KEY, CT_DIRECTION, CT_SREG = 1, 2, 3, 4
    FIB_DREG, FIB_RESULT, FIB_FLAGS = 1, 2, 3
    NG_DREG, NG_MODULUS, NG_TYPE, NG_OFFSET = 1, 2, 3, 4
    HASH_SREG, HASH_DREG, HASH_LEN, HASH_MODULUS, HASH_SEED, HASH_OFFSET, HASH_TYPE = 1, 2, 3, 4, 5, 6, 7
    COUNTER_BYTES, COUNTER_PACKETS = 1, 2
    LIMIT_RATE, LIMIT_UNIT, LIMIT_BURST, LIMIT_TYPE, LIMIT_FLAGS = 1, 2, 3, 4, 5
    LOG_GROUP, LOG_PREFIX, LOG_SNAPLEN, LOG_QTHRESHOLD, LOG_LEVEL = 1, 2, 3, 4, 5
    NAT_TYPE, NAT_FAMILY, NAT_ADDR_MIN, NAT_ADDR_MAX, NAT_PROTO_MIN, NAT_PROTO_MAX, NAT_FLAGS = 1, 2, 3, 4, 5, 6, 7
    MASQ_FLAGS, MASQ_PROTO_MIN, MASQ_PROTO_MAX = 1, 2, 3
    REDIR_PROTO_MIN, REDIR_PROTO_MAX, REDIR_FLAGS = 1, 2, 3
    REJECT_TYPE, REJECT_CODE = 1, 2


class SetFlag:
    """Bits of SET_FLAGS."""

    ANONYMOUS, CONSTANT, INTERVAL, MAP, TIMEOUT, EVAL, CONCAT = 0x1, 0x2, 0x4, 0x8, 0x10, 0x20, 0x80


TABLE_DORMANT: Final = 1
ELEM_INTERVAL_END: Final = 1
ELEM_CATCHALL: Final = 2
DATA_TYPE_VERDICT: Final = 0xFFFFFF00


def generic(family: int, resource: int = 0) -> bytes:
    """The four bytes before the attributes of every message."""
    return _GENERIC.pack(family, 0, resource)


def message(subsystem: int, kind: int, flags: int, sequence: int, family: int, *parts: bytes) -> bytes:
    """One message of a subsystem: header, family, attributes that are padded already."""
    return netlink.message(subsystem << 8 | kind, flags, sequence, generic(family) + b"".join(parts))


_OF_NFTABLES: Final = generic(0, NFTABLES)
_BRACKET: Final = Struct(netlink.HEADER.format + "4s").pack  # round every transaction
_BRACKET_SIZE: Final = netlink.HEADER.size + len(_OF_NFTABLES)


def begin(sequence: int) -> bytes:
    """Open a transaction of nf_tables."""
    return _BRACKET(_BRACKET_SIZE, BATCH_BEGIN, netlink.REQUEST, sequence, 0, _OF_NFTABLES)


def end(sequence: int) -> bytes:
    """Close a transaction: only now does the kernel carry it out."""
    return _BRACKET(_BRACKET_SIZE, BATCH_END, netlink.REQUEST, sequence, 0, _OF_NFTABLES)


def family(payload: bytes) -> int:
    """The family of a message's payload; its attributes begin four bytes in."""
    return payload[0]
