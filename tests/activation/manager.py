"""Holds two sockets, and starts the daemon whenever somebody connects and none runs: sd_listen_fds(3), sd_notify(3).

Arguments: the two sockets, then the daemon's command line.
"""
import os
import select
import socket
import sys

places, command = sys.argv[1:3], sys.argv[3:]
listening = []
for place in places:
    one = socket.socket(socket.AF_UNIX)
    one.bind(place)
    os.chmod(place, 0o600)
    one.listen(64)
    listening.append(one)
told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
told.bind("\0mossnet-manager-%d" % os.getpid())
print("listening", flush=True)
number = 0
while True:
    select.select(listening, [], [])
    number += 1
    child = os.fork()
    if child == 0:
        for at, one in enumerate([os.dup(s.fileno()) for s in listening]):
            os.dup2(one, 3 + at, inheritable=True)
        os.environ.update(
            LISTEN_PID=str(os.getpid()),
            LISTEN_FDS=str(len(listening)),
            NOTIFY_SOCKET="@mossnet-manager-%d" % os.getppid(),
        )
        os.execv(command[0], command)
    told.settimeout(0.05)
    status = None
    while status is None:
        try:
            if told.recv(4096) == b"READY=1":
                print("ready %d" % number, flush=True)
        except TimeoutError:
            pass
        done, raw = os.waitpid(child, os.WNOHANG)
        if done:
            status = os.waitstatus_to_exitcode(raw)
    print("ended %d: %d" % (number, status), flush=True)
