# Sends the frames of the anti-spoofing test, or tells which of them arrive.
#   frames.py send MY_MAC MY_V4 MY_V6    |    frames.py listen
import socket, struct, sys

VICTIM_MAC, VICTIM_V4, VICTIM_V6 = "02:42:0a:59:00:02", "10.89.0.2", "fd00:89::2"


def mac(text):
    return bytes.fromhex(text.replace(":", ""))


def v4(text):
    return socket.inet_aton(text)


def v6(text):
    return socket.inet_pton(socket.AF_INET6, text)


def udp(port):
    return struct.pack("!HHHH", port, 9, 8, 0)


def tcp(echo, head=0x0101080A):
    """A segment of an established connection, with the timestamp option first."""
    return struct.pack("!HHIIHHHHIII", 1000, 9, 1, 1, 8 << 12 | 0x10, 512, 0, 0, head, 7, echo)


def ip4(source, body, protocol=17):
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, 64, protocol, 0)
    return b"\x08\x00" + head + v4(source) + v4("255.255.255.255") + body


def ip6(source, body, following=17, hops=255):
    head = struct.pack("!IHBB", 6 << 28, len(body), following, hops)
    return b"\x86\xdd" + head + v6(source) + v6("ff02::1") + body


def arp(sender_mac, sender, operation=1):
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
    target = bytes(6) + v4(VICTIM_V4)
    return b"\x08\x06" + head + mac(sender_mac) + v4(sender) + target


def option(kind, address):
    return bytes([kind, 1]) + mac(address)


def neighbour(kind, source, target, *options):
    body = struct.pack("!BBHI", kind, 0, 0, 0xE0000000) + v6(target) + b"".join(options)
    return ip6(source, body, 58)


def error4(source, about, kind=3):
    quoted = ip4("192.0.2.1", udp(1000))[2:18] + v4(about)
    return ip4(source, struct.pack("!BBHI", kind, 3, 0, 0) + quoted + udp(1000), 1)


def error6(source, about, kind=1):
    quoted = ip6("2001:db8::1", udp(1000))[2:26] + v6(about)
    return ip6(source, struct.pack("!BBHI", kind, 4, 0, 0) + quoted + udp(1000), 58)


def frames(me, my4, my6, link_local):
    """Name, which begins with "ok" where the frame must arrive; source MAC; what follows it."""
    other = VICTIM_MAC
    yield "ok-ip4", me, ip4(my4, udp(1000))
    yield "ok-ip6", me, ip6(my6, udp(1000))
    yield "ok-link-local", me, ip6("fe80::1234", udp(1000))
    yield "ok-echo", me, ip6("fe80::1234", struct.pack("!BBHI", 128, 0, 0, 0), 58)
    yield "ok-echo4", me, ip4(my4, struct.pack("!BBHI", 8, 0, 0, 0), 1)
    yield "ok-error", me, error4(my4, my4)
    yield "ok-error6", me, error6(my6, my6)
    yield "error", me, error4(my4, VICTIM_V4)
    yield "error-exceeded", me, error4(my4, VICTIM_V4, 11)
    yield "error-source", me, error4(VICTIM_V4, my4)
    yield "error-short", me, ip4(my4, struct.pack("!BBHI", 3, 3, 0, 0), 1)
    yield "error6", me, error6(my6, VICTIM_V6)
    yield "error6-link-local", me, error6(link_local, VICTIM_V6)
    yield "error6-too-big", me, error6(my6, VICTIM_V6, 2)
    yield "ok-arp", me, arp(me, my4)
    yield "ok-arp-reply", me, arp(me, my4, 2)
    yield "ok-arp-probe", me, arp(me, "0.0.0.0")
    yield "ok-solicit", me, neighbour(135, my6, VICTIM_V6, option(1, me))
    yield "ok-solicit-bare", me, neighbour(135, my6, VICTIM_V6)
    yield "ok-solicit-link-local", me, neighbour(135, link_local, VICTIM_V6, option(1, me))
    yield "ok-duplicate-detection", me, neighbour(135, "::", my6)
    yield "ok-advertise", me, neighbour(136, my6, my6, option(2, me))
    yield "ok-advertise-link-local", me, neighbour(136, link_local, link_local, option(2, me))
    yield "ok-tcp", me, ip4(my4, tcp(0x6D6F72FF), 6)
    yield "ok-tcp-next", me, ip4(my4, tcp(0x6D6F7304), 6)
    yield "ok-tcp6", me, ip6(my6, tcp(0x6D6F72FF), 6)
    yield "ok-tcp-other-option", me, ip4(my4, tcp(0x6D6F7300, 0x01010502), 6)
    yield "ok-tcp-bare", me, ip4(my4, tcp(0)[:20], 6)
    yield "ok-framed-udp", me, ip4(my4, tcp(0x6D6F7300))
    yield "framed", me, ip4(my4, tcp(0x6D6F7300), 6)
    yield "framed-worker", me, ip4(my4, tcp(0x6D6F7303), 6)
    yield "framed6", me, ip6(my6, tcp(0x6D6F7302), 6)
    yield "mac", other, ip4(my4, udp(1000))
    yield "mac-ip6", other, ip6(my6, udp(1000))
    yield "ip4", me, ip4(VICTIM_V4, udp(1000))
    yield "ip4-gateway", me, ip4("10.89.0.1", udp(1000))
    yield "ip4-none", me, ip4("0.0.0.0", udp(1000))
    yield "ip4-far", me, ip4("192.0.2.1", udp(1000))
    yield "ip6", me, ip6(VICTIM_V6, udp(1000))
    yield "ip6-far", me, ip6("2001:db8::1", udp(1000))
    yield "ip6-none", me, ip6("::", udp(1000))
    yield "both", other, ip4(VICTIM_V4, udp(1000))
    yield "arp-ip", me, arp(me, VICTIM_V4)
    yield "arp-gateway", me, arp(me, "10.89.0.1", 2)
    yield "arp-mac", me, arp(other, my4)
    yield "arp-probe-mac", me, arp(other, "0.0.0.0")
    yield "arp-frame-mac", other, arp(me, my4)
    yield "solicit-source", me, neighbour(135, VICTIM_V6, my6, option(1, me))
    yield "solicit-option", me, neighbour(135, my6, VICTIM_V6, option(1, other))
    yield "solicit-two-options", me, neighbour(135, my6, VICTIM_V6, option(1, me), option(1, other))
    yield "solicit-link-local", me, neighbour(135, "fe80::1", VICTIM_V6, option(1, me))
    yield "duplicate-detection", me, neighbour(135, "::", VICTIM_V6)
    yield "advertise-target", me, neighbour(136, my6, VICTIM_V6, option(2, me))
    yield "advertise-gateway", me, neighbour(136, my6, "fd00:89::1", option(2, me))
    yield "advertise-option", me, neighbour(136, my6, my6, option(2, other))
    yield "advertise-bare", me, neighbour(136, my6, VICTIM_V6)
    yield "advertise-link-local", me, neighbour(136, link_local, "fe80::1", option(2, me))
    yield "router-advertisement", me, ip6(link_local, struct.pack("!BBHIII", 134, 0, 0, 0, 0, 0), 58)
    yield "redirect", me, neighbour(137, link_local, VICTIM_V6)
    yield "hop-by-hop-advertisement", me, ip6(
        link_local, bytes([58, 0, 1, 4, 0, 0, 0, 0]) + struct.pack("!BBHIII", 134, 0, 0, 0, 0, 0), 0
    )
    yield "dhcp", me, ip4(my4, udp(67))
    yield "dhcp6", me, ip6(my6, udp(547))
    yield "dhcp6-link-local", me, ip6(link_local, udp(547))
    yield "vlan", me, b"\x81\x00\x00\x05" + ip4(my4, udp(1000))
    yield "double-vlan", me, b"\x88\xa8\x00\x05\x81\x00\x00\x06" + ip4(my4, udp(1000))
    yield "vlan-arp", me, b"\x81\x00\x00\x05" + arp(me, my4)
    yield "other-type", me, b"\x88\xb5" + bytes(50)
    yield "stp", me, b"\x00\x26\x42\x42\x03" + bytes(35)
    yield "ok-last", me, ip4(my4, udp(1000))


def send(me, my4, my6):
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    wire.bind(("eth0", 0))
    first, rest = mac(me)[:3], mac(me)[3:]
    interface_id = bytes([first[0] ^ 2]) + first[1:] + b"\xff\xfe" + rest
    link_local = socket.inet_ntop(socket.AF_INET6, v6("fe80::")[:8] + interface_id)
    for name, source, rest in frames(me, my4, my6, link_local):
        wire.send(b"\xff" * 6 + mac(source) + rest + b"\0" * 24 + b"<" + name.encode() + b">")


def listen():
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(3))
    wire.bind(("eth0", 3))
    wire.settimeout(20)
    print("ready", flush=True)
    name = ""
    while name != "ok-last":
        frame = wire.recv(2048)
        if frame.endswith(b">"):
            name = frame[frame.rindex(b"<") + 1 : -1].decode()
            print(name, flush=True)


send(*sys.argv[2:]) if sys.argv[1] == "send" else listen()
