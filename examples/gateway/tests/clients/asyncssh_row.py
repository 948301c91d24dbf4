"""AsyncSSH, all over one connection."""

import asyncio

import asyncssh

from row import BIG, HOME, HOST, KEY, KNOWN_HOSTS, LOGIN, PORT, SERVICE, cell, same, standard, unchanged_file

loop = asyncio.new_event_loop()


def wait(work):
    return loop.run_until_complete(asyncio.wait_for(work, 60))


connection = wait(
    asyncssh.connect(
        HOST, PORT, username=LOGIN, client_keys=[KEY], known_hosts=KNOWN_HOSTS, agent_path=None, config=None
    )
)


async def run(command, given):
    done = await connection.run(command, input=given, encoding=None)
    return done.stdout, done.stderr, done.exit_status


async def ten_at_once():
    done = await asyncio.gather(*(run(f"echo {number}; exit {number}", b"") for number in range(10)))
    same([(out, status) for out, _, status in done], [(f"{number}\n".encode(), number) for number in range(10)])


async def exit_signal():
    done = await connection.run("kill -TERM $$")
    same(done.exit_signal and done.exit_signal[0], "TERM")


async def terminal():
    process = await connection.create_process("stty size", term_type="xterm", term_size=(90, 33))
    same((await process.wait()).stdout, "33 90\r\n")


async def sftp():
    async with connection.start_sftp_client() as files:
        await files.put(BIG, f"{HOME}/up")
        await files.get(f"{HOME}/up", f"{HOME}/down")
    unchanged_file("up")
    unchanged_file("down")


async def scp():
    await asyncssh.scp(BIG, (connection, f"{HOME}/scp-up"))
    await asyncssh.scp((connection, f"{HOME}/scp-up"), f"{HOME}/scp-down")
    unchanged_file("scp-up")
    unchanged_file("scp-down")


async def talk(reader, writer):
    writer.write(b"question\n")
    writer.write_eof()
    same(await reader.read(), b"hello\nquestion\n")
    writer.close()


async def local_forward():
    listener = await connection.forward_local_port(HOST, 0, HOST, SERVICE)
    for _ in range(3):
        await talk(*await asyncio.open_connection(HOST, listener.get_port()))
    listener.close()


async def remote_forward():
    listener = await connection.forward_remote_port(HOST, 0, HOST, SERVICE)
    await talk(*await asyncio.open_connection(HOST, listener.get_port()))
    listener.close()
    await listener.wait_closed()


standard(lambda command, given: wait(run(command, given)))
for check in (ten_at_once, exit_signal, terminal, sftp, scp, local_forward, remote_forward):
    cell(check.__name__, lambda: wait(check()))
connection.close()
wait(connection.wait_closed())
