"""libssh, which KDE and network tools use."""

import os

from ssh import options
from ssh.key import import_privkey_file
from ssh.session import Session

from row import BIG_BYTES, HOME, HOST, KEY, KNOWN_HOSTS, LOGIN, PORT, SERVICE, cell, same, standard, unchanged, unchanged_file

PIECE = 1 << 16
session = Session()
session.options_set(options.HOST, HOST)
session.options_set_port(PORT)
session.options_set(options.USER, LOGIN)
session.options_set(options.KNOWNHOSTS, KNOWN_HOSTS)
session.connect()
session.userauth_publickey(import_privkey_file(KEY))


def drain(channel, is_stderr=False):
    data = bytearray()
    while True:
        size, piece = channel.read(PIECE, is_stderr=is_stderr)
        if size <= 0:
            return bytes(data)
        data += piece


def run(command, given):
    channel = session.channel_new()
    channel.open_session()
    channel.request_exec(command)
    for at in range(0, len(given), PIECE):
        channel.write(given[at : at + PIECE])
    channel.send_eof()
    out, err = drain(channel), drain(channel, is_stderr=True)
    status = channel.get_exit_status()
    channel.close()
    return out, err, status


def sftp():
    files = session.sftp_new()
    files.init()
    with files.open(f"{HOME}/up", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600) as file:
        for at in range(0, len(BIG_BYTES), 1 << 15):
            file.write(BIG_BYTES[at : at + (1 << 15)])
    unchanged_file("up")
    with files.open(f"{HOME}/up", os.O_RDONLY, 0) as file:
        unchanged(b"".join(piece for size, piece in file if size > 0))


def direct_tcpip():
    channel = session.channel_new()
    channel.open_forward(HOST, SERVICE, HOST, 1)
    channel.write(b"question\n")
    channel.send_eof()
    same(drain(channel), b"hello\nquestion\n")
    channel.close()


standard(run)
cell("sftp", sftp)
cell("direct_tcpip", direct_tcpip)
session.disconnect()
