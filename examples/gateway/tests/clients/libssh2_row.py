"""libssh2, which curl, libgit2 and many others use."""

import socket

from ssh2.session import Session
from ssh2.sftp import LIBSSH2_FXF_CREAT, LIBSSH2_FXF_READ, LIBSSH2_FXF_TRUNC, LIBSSH2_FXF_WRITE

from row import BIG, BIG_BYTES, HOME, HOST, KEY, LOGIN, PORT, SERVICE, cell, same, standard, unchanged, unchanged_file

PIECE = 1 << 17
session = Session()
session.handshake(socket.create_connection((HOST, PORT), 60))
session.userauth_publickey_fromfile(LOGIN, KEY)


def drain(read):
    data = bytearray()
    while True:
        size, piece = read(PIECE)
        if size <= 0:
            return bytes(data)
        data += piece


def run(command, given):
    channel = session.open_session()
    channel.execute(command)
    view = memoryview(given)
    while view:
        _, written = channel.write(bytes(view[:PIECE]))
        view = view[written:]
    channel.send_eof()
    out, err = drain(channel.read), drain(channel.read_stderr)
    channel.wait_eof()
    channel.close()
    channel.wait_closed()
    return out, err, channel.get_exit_status()


def scp():
    channel = session.scp_send64(f"{HOME}/scp-up", 0o600, len(BIG_BYTES), 0, 0)
    channel.write(BIG_BYTES)
    channel.send_eof()
    channel.wait_eof()
    channel.wait_closed()
    unchanged_file("scp-up")
    channel, info = session.scp_recv2(f"{HOME}/scp-up")
    data = bytearray()
    while len(data) < info.st_size:
        size, piece = channel.read(min(PIECE, info.st_size - len(data)))
        assert size > 0, size
        data += piece
    unchanged(bytes(data))
    channel.close()


def sftp():
    files = session.sftp_init()
    with files.open(f"{HOME}/up", LIBSSH2_FXF_CREAT | LIBSSH2_FXF_WRITE | LIBSSH2_FXF_TRUNC, 0o600) as file:
        file.write(BIG_BYTES)
    unchanged_file("up")
    with files.open(f"{HOME}/up", LIBSSH2_FXF_READ, 0) as file:
        unchanged(b"".join(piece for _, piece in file))


def direct_tcpip():
    channel = session.direct_tcpip(HOST, SERVICE)
    channel.write(b"question\n")
    channel.send_eof()
    same(drain(channel.read), b"hello\nquestion\n")
    channel.close()


standard(run)
cell("scp", scp)
cell("sftp", sftp)
cell("direct_tcpip", direct_tcpip)
session.disconnect()
