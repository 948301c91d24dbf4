"""Paramiko. It also says what no other client here says: requests and channels that nobody knows."""

import socket
import threading

import paramiko
from paramiko.common import MSG_CHANNEL_FAILURE, MSG_CHANNEL_OPEN_FAILURE, cMSG_CHANNEL_REQUEST

from row import BIG, HOME, HOST, KEY, KNOWN_HOSTS, LOGIN, PORT, SERVICE, cell, same, standard, unchanged_file

agreed = []  # key exchanges, as they are chosen


class Transport(paramiko.Transport):
    def _parse_kex_init(self, message):
        super()._parse_kex_init(message)
        agreed.append(self.kex_engine.name)


client = paramiko.SSHClient()
client.load_host_keys(KNOWN_HOSTS)
client.connect(HOST, PORT, LOGIN, key_filename=KEY, allow_agent=False, look_for_keys=False, transport_factory=Transport)
transport = client.get_transport()


def run(command, given):
    stdin, stdout, stderr = client.exec_command(command, timeout=60)

    def feed():
        stdin.write(given)
        stdin.channel.shutdown_write()

    feeding = threading.Thread(target=feed)
    feeding.start()
    out, err = stdout.read(), stderr.read()
    feeding.join()
    return out, err, stdout.channel.recv_exit_status()


def talk(channel):
    channel.settimeout(20)
    channel.sendall(b"question\n")
    channel.shutdown(socket.SHUT_WR)
    same(channel.makefile("rb").read(), b"hello\nquestion\n")
    channel.close()


def sftp():
    with client.open_sftp() as files:
        files.put(BIG, f"{HOME}/up")
        files.get(f"{HOME}/up", f"{HOME}/down")
    unchanged_file("up")
    unchanged_file("down")


def direct_tcpip():
    for _ in range(3):
        talk(transport.open_channel("direct-tcpip", (HOST, SERVICE), (HOST, 1)))


def reverse():
    arrived = []
    came = threading.Event()

    def handler(channel, *_):
        arrived.append(channel)
        came.set()

    port = transport.request_port_forward(HOST, 0, handler)
    with socket.create_connection((HOST, port), 20) as box_side:
        assert came.wait(20), "no channel came"
        arrived[0].sendall(b"from the user")
        same(box_side.recv(13), b"from the user")
        arrived[0].close()
    transport.cancel_port_forward(HOST, port)
    with socket.socket() as again:
        assert again.connect_ex((HOST, port)) != 0, "the box still listens"


def unknown_global_request():
    same(transport.global_request("what@example.org", wait=True), None)
    same(transport.global_request("keepalive@openssh.com", wait=True), None)


def unknown_channel_type():
    """It is refused as unknown. russh 0.65 then refuses it once more, as forbidden; nothing here can keep it from that."""
    codes = []
    parse = transport._parse_channel_open_failure

    def note(message):
        told = paramiko.Message(message.asbytes())
        told.get_int()  # which channel
        codes.append(told.get_int())
        parse(message)

    handlers = transport._handler_table
    transport._handler_table = {**handlers, MSG_CHANNEL_OPEN_FAILURE: note}
    try:
        transport.open_channel("what@example.org", timeout=20)
    except paramiko.ChannelException:
        pass
    else:
        raise AssertionError("it was opened")
    # By the time that this is answered, all answers to what was asked before have come.
    transport.global_request("keepalive@openssh.com", wait=True)
    transport._handler_table = handlers
    same(codes, [3, 1])


def unknown_channel_request():
    """It is answered with a failure, and the command that follows works."""
    channel = transport.open_session()
    message = paramiko.Message()
    message.add_byte(cMSG_CHANNEL_REQUEST)
    message.add_int(channel.remote_chanid)
    message.add_string("what@example.org")
    message.add_boolean(True)
    # Paramiko closes a channel of which a request failed, so its own handler is put aside.
    failed, handlers = threading.Event(), transport._channel_handler_table
    transport._channel_handler_table = {**handlers, MSG_CHANNEL_FAILURE: lambda *_: failed.set()}
    transport._send_user_message(message)
    assert failed.wait(20), "no answer"
    transport._channel_handler_table = handlers
    channel.exec_command("exit 5")
    same(channel.recv_exit_status(), 5)


def post_quantum():
    same(agreed, ["mlkem768x25519-sha256"])


def strict_kex():
    same(transport.agreed_on_strict_kex, True)


standard(run)
cell("sftp", sftp)
cell("direct_tcpip", direct_tcpip)
cell("reverse", reverse)
cell("unknown_global_request", unknown_global_request)
cell("unknown_channel_type", unknown_channel_type)
cell("unknown_channel_request", unknown_channel_request)
cell("post_quantum", post_quantum)
cell("strict_kex", strict_kex)
client.close()
