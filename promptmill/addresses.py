"""Which addresses lie inside a network, so that what a caller names cannot be made to call
them. Knows no resolver: names are for whoever connects to judge."""

from __future__ import annotations

import ipaddress
import socket
from typing import Final
from urllib.parse import urlsplit

from promptmill import errors

_GLOBAL_UNICAST: Final = ipaddress.ip_network("2000::/3")  # all that IANA has given out
_ISATAP: Final = (0x00005EFE, 0x02005EFE)  # before the IPv4 address, RFC 5214
_RELAYS: Final = ipaddress.ip_network("192.88.99.0/24")  # to 6to4, RFC 7526
_DOCUMENTATION: Final = ipaddress.ip_network("3fff::/20")  # RFC 9637
_INSIDE: Final = ("localhost", "local", "internal")  # last parts of names that no one else has


def is_public(address: str) -> bool:
    """False for loopback, private, link-local, multicast, reserved; for every IPv6 form that
    carries an IPv4 address, except a mapped one that is public; and for what lies outside of
    global unicast."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(str(ip.ipv4_mapped))
        if ip.sixtofour is not None or ip.teredo is not None:
            return False
        if ip not in _GLOBAL_UNICAST or ip in _DOCUMENTATION:
            return False
        if int(ip) >> 32 & 0xFFFFFFFF in _ISATAP:
            return False
    elif ip in _RELAYS:
        return False
    return ip.is_global and not ip.is_multicast


def surely_inside(host: str) -> bool:
    """Whether `host`, as a URL has it, says by itself that it is not public: an address in
    any of the forms that resolvers read (`127.1`, `0x7f000001`), or a name like localhost."""
    name = host.strip("[]").rstrip(".").lower()
    try:
        return not is_public(name)
    except ValueError:
        pass
    try:
        return not is_public(socket.inet_ntoa(socket.inet_aton(name)))
    except (OSError, ValueError):
        return name.rpartition(".")[2] in _INSIDE


def check_webhook(url: str | None, *, any_network: bool) -> None:
    """Refuses a webhook whose URL says itself that it leads inside. What its name resolves
    to is looked at before each delivery. Raises `errors.BadRequest`."""
    host = urlsplit(url).hostname if url else None
    if host and not any_network and surely_inside(host):
        raise errors.BadRequest(
            f"webhook leads to {host}, which is not a public address: the farm calls those only "
            "with PROMPTMILL_WEBHOOK_NETWORKS=any",
            param="webhook",
        )
