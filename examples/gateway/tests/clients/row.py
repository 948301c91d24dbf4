"""What the rows of the client matrix share that are Python libraries. They are given what row.sh tells, in the environment."""

import hashlib
import os

HOST = "127.0.0.1"
PORT = int(os.environ["PORT"])
LOGIN = os.environ["LOGIN"]
KEY = os.environ["KEY"]
KNOWN_HOSTS = os.environ["KNOWN_HOSTS"]
HOME = os.environ["HOME"]
SERVICE = int(os.environ["SERVICE"])
SUM = os.environ["SUM"]
BIG = os.environ["BIG"]
BIG_BYTES = open(BIG, "rb").read()


def cell(name, check):
    """Runs a check and tells the test how it did."""
    print(f"begin\t{name}", flush=True)
    try:
        check()
        print("passed", flush=True)
    except Exception as error:  # whatever a library may raise
        said = f"{type(error).__name__}: {error}".replace("\n", " ").replace("\t", " ")
        print(f"failed\t{said[:600]}", flush=True)


def same(found, wanted):
    if found != wanted:
        raise AssertionError(f"{found!r} instead of {wanted!r}")


def unchanged(data):
    same(hashlib.sha256(data).hexdigest(), SUM)


def unchanged_file(name):
    with open(f"{HOME}/{name}", "rb") as file:
        unchanged(file.read())


def standard(run):
    """The cells that every client has. `run(command, input)` answers standard output, standard error and exit status."""
    cell("exec", lambda: same(run("echo $BOXNAME", b"")[0], f"{LOGIN}\n".encode()))
    cell("status", lambda: same(run("exit 7", b"")[2], 7))
    cell("stderr", lambda: same(run("echo out; echo problem >&2", b"")[:2], (b"out\n", b"problem\n")))
    cell("in", lambda: same(run("sha256sum", BIG_BYTES)[0], f"{SUM}  -\n".encode()))
    cell("out", lambda: unchanged(run(f"cat '{BIG}'", b"")[0]))
