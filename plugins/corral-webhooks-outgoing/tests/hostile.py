"""Where a stranger might point a webhook to: URLs with ports of this machine, and names with their
addresses.
"""

from __future__ import annotations

from typing import Final

LOOPBACK: Final = """
    https://127.0.0.1:{4}/  https://127.0.0.1:{4}/path?query=1#there  HTTPS://127.0.0.1:{4}/
    https://127.1:{4}/  https://127.0.1:{4}/  https://127.0.0.1.:{4}/  https://127.127.127.127:{4}/
    https://2130706433:{4}/  https://0x7f000001:{4}/  https://0X7F.0.0.1:{4}/  https://0x7f.0x0.0x0.0x1:{4}/
    https://0177.0.0.1:{4}/  https://0177.0x0.1:{4}/  https://017700000001:{4}/  https://00000177.1:{4}/
    https://0:{4}/  https://0.0.0.0:{4}/  https://0x0:{4}/  https://0.1.2.3:{4}/
    https://[::1]:{6}/  https://[0:0:0:0:0:0:0:1]:{6}/  https://[0000::0001]:{6}/  https://[::]:{6}/
"""
EMBEDDED: Final = """
    https://[::ffff:127.0.0.1]:{4}/  https://[::ffff:7f00:1]:{4}/  https://[0:0:0:0:0:ffff:7f00:0001]:{4}/
    https://[::127.0.0.1]:{4}/  https://[::ffff:0:127.0.0.1]:{4}/  https://[::ffff:169.254.169.254]/
    https://[64:ff9b::127.0.0.1]:{4}/  https://[64:ff9b::a9fe:a9fe]/  https://[64:ff9b:1::7f00:1]:{4}/
    https://[2002:7f00:1::]:{4}/  https://[2002:a9fe:a9fe::1]/  https://[2002:c0a8:101::1]/
    https://[2001:0:7f00:1::]/  https://[::ffff:8.8.8.8]/
"""
PRIVATE: Final = """
    https://10.0.0.1/  https://10.255.255.255/  https://172.16.0.1/  https://172.31.255.255/  https://192.168.0.1:8443/
    https://3232235521/  https://0xc0a80001/  https://0300.0250.1/  https://100.64.0.1/  https://100.127.255.254/
    https://192.0.2.1/  https://198.51.100.1/  https://203.0.113.1/  https://198.18.0.1/  https://192.88.99.1/
    https://224.0.0.1/  https://239.255.255.255/  https://240.0.0.1/  https://255.255.255.255/
    https://[fe80::1]/  https://[fe80::1%25lo]/  https://[fec0::1]/  https://[fc00::1]/  https://[fd12:3456::1]/
    https://[ff02::1]/  https://[2001:db8::1]/  https://[3fff::1]/  https://[100::1]/  https://[5f00::1]/
"""
METADATA: Final = """
    https://169.254.169.254/latest/meta-data/  https://2852039166/  https://0xa9fea9fe/  https://0xa9.0xfe.0xa9.0xfe/
    https://0251.0376.0251.0376/  https://169.254.43518/  https://169.254.170.2/v2/credentials  https://[fd00:ec2::254]/
    https://[fd20:ce::254]/computeMetadata/v1/  https://100.100.100.200/  https://192.0.0.192/  https://168.63.129.16/
"""
SPELLINGS: Final = r"""
    https://ada:lovelace@127.0.0.1:{4}/  https://hooks.example.org@127.0.0.1:{4}/  https://@127.0.0.1:{4}/
    https://hooks.example.org%40127.0.0.1:{4}/  https://hooks.example.org:443@127.0.0.1:{4}/
    https://127.0.0.1:{4}#@hooks.example.org/  https://127.0.0.1:{4}?@hooks.example.org/
    https://hooks.example.org\@127.0.0.1:{4}/  https://127.0.0.1:{4}\@hooks.example.org/  https:\\127.0.0.1:{4}\
    https:127.0.0.1:{4}  https:///127.0.0.1:{4}/  //127.0.0.1:{4}/  http://127.0.0.1:{4}/  file:///etc/passwd
    gopher://127.0.0.1:{4}/_  ftp://127.0.0.1:{4}/  unix:///run/docker.sock  https://127.0.0.1%00.example.org:{4}/
    https://%31%32%37.0.0.1:{4}/  https://127.0.0.1%2f.example.org:{4}/
    https://１２７.０.０.１:{4}/  https://127。0。0。1:{4}/  https://①②⑦.⓪.⓪.①:{4}/  https://ⓛocalhost:{4}/
    https://localhost:{4}/  https://LOCALHOST:{4}/  https://localhost.:{4}/  https://api.localhost:{4}/
"""  # noqa: RUF001  # that some of them look like others is the point
WITH_BLANKS: Final = (
    "https://127.0.0.1 :{4}/",
    "https://hooks.example.org\r\n@127.0.0.1:{4}/",
    "\thttps://127.0.0.1:{4}/",
)

NAMES: Final = {
    "loopback.example.org": ["127.0.0.1"],
    "loopback6.example.org": ["::1"],
    "both.example.org": ["93.184.216.34", "127.0.0.1"],
    "both6.example.org": ["2606:2800:220:1::1", "::1"],
    "last.example.org": ["93.184.216.34", "93.184.216.35", "10.0.0.1"],
    "ip6-localhost": ["::1"],
    "printer": ["192.168.1.7"],
    "database.internal": ["10.1.2.3"],
    "metadata.google.internal": ["169.254.169.254"],
    "metadata6.example.org": ["fd00:ec2::254"],
    "carrier.example.org": ["100.64.0.1"],
    "127.0.0.1.nip.example": ["127.0.0.1"],
    "zero.example.org": ["0.0.0.0"],  # nobody listens there: it is dialled, as loopback
    "mapped.example.org": ["::ffff:127.0.0.1"],
    "scoped.example.org": ["fe80::1%lo"],
    "nat64.example.org": ["64:ff9b::7f00:1"],
    "sixtofour.example.org": ["2002:7f00:1::"],
    "xn--bcher-kva.example": ["127.0.0.1"],
    "azure.example.org": ["168.63.129.16"],
}


def urls(port_4: int, port_6: int) -> list[str]:
    """All of them, those of `NAMES` included.

    Args:
        port_4: Of the listener on 127.0.0.1.
        port_6: Of the listener on ::1.
    """
    written = [*" ".join((LOOPBACK, EMBEDDED, PRIVATE, METADATA, SPELLINGS)).split(), *WITH_BLANKS]
    written += [f"https://{name}:{{4}}/" for name in NAMES]
    written += ["https://bücher.example:{4}/", "https://LoopBack.Example.ORG:{4}/"]
    return [url.replace("{4}", str(port_4)).replace("{6}", str(port_6)) for url in written]
