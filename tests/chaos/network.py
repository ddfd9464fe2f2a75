"""Several hosts on one machine, and the cable to each, which can be pulled.

A host is a set of Linux namespaces: network, processes and name are its own. It sees no process and no
abstract socket of another's, its pids begin at 1, and a cut host hears nothing: nobody tells it or the others
that a connection has ended. Who may not make namespaces gets plain processes whose servers stand behind
proxies that can fall silent: the same for what is sent, and no more; `Network.how` says which it is.
"""

import contextlib
import ctypes
import os
import selectors
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from jobs import processes

HUB = "10.77.0.1"  #: where the shared servers are, and who looks on

_LIBC = ctypes.CDLL(None, use_errno=True)

# The first process of a host: takes its name, reaps orphans, and ends with whoever has started it.
_INIT = """
import signal, socket, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_IGN)
socket.sethostname(sys.argv[1])
print("up", flush=True)
sys.stdin.read()
"""


class Host(Protocol):
    """One machine, as far as its processes can tell. `name` is what the verdict calls it; `address` is where
    its processes listen."""

    name: str
    address: str

    def popen(self, command: list[str], *, cwd: Path, **how: Any) -> "subprocess.Popen[bytes]":
        """Start a process on it, as `subprocess.Popen`."""

    def reaches(self, port: int) -> str:
        """`host:port` at which a shared server is seen from here."""

    def cut(self) -> None:
        """Pull its cable."""

    def mend(self) -> None:
        """Put it back."""


class Network(Protocol):
    """Hosts, and a place for what they share; to be closed."""

    how: str  #: in words
    address: str  #: where shared servers listen

    def host(self, name: str) -> Host:
        """One more host."""

    def inside(self) -> contextlib.AbstractContextManager[None]:
        """Meanwhile this thread, and what it starts, is where the shared servers are."""

    def free_port(self, usual: int) -> int:
        """One for a shared server."""

    def is_from(self, host: Host) -> str:
        """The SQL condition for the sessions of a host, in `pg_stat_activity`."""

    def close(self) -> None:
        """End all hosts, and all that runs on them."""


def free_port() -> int:
    """One of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def network() -> Network:
    """The best that this machine allows."""
    return Namespaces() if can_have_namespaces() else Proxies()


@cache
def can_have_namespaces() -> bool:
    """Whether this user may make them, and a bridge between."""
    if sys.platform != "linux":
        return False
    command = "ip link add type bridge && ip link add type veth"
    with suppress(FileNotFoundError):
        unshare = ["unshare", *_UNSHARED, "sh", "-c", command]
        return subprocess.run(unshare, capture_output=True, check=False).returncode == 0
    return False


# --- namespaces

_UNSHARED = ("--net", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child")


class _Space:
    """The namespaces of one host, held by a first process of their own."""

    def __init__(self, name: str) -> None:
        self.name = name
        command = ["unshare", *_UNSHARED, sys.executable, "-S", "-E", "-c", _INIT, name]
        self._holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"up\n":
            raise RuntimeError(f"the host {name} did not come up")
        (self.init,) = processes.children(self._holder.pid)

    @contextmanager
    def inside(self, *kinds: str) -> Iterator[None]:
        """This thread, or for `pid` what it starts, in these of the namespaces."""
        with contextlib.ExitStack() as stack:
            for kind in kinds:
                mine = "pid_for_children" if kind == "pid" else kind
                back = os.open(f"/proc/thread-self/ns/{mine}", os.O_RDONLY | os.O_CLOEXEC)
                stack.callback(os.close, back)
                there = os.open(f"/proc/{self.init}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
                stack.callback(os.close, there)
                _setns(there)
                stack.callback(_setns, back)
            yield

    def ip(self, *command: str) -> None:
        """Run `ip` there."""
        with self.inside("net"):
            subprocess.run(["ip", *command], check=True, capture_output=True)

    def close(self) -> None:
        # The first process dies with it, and takes all others along; not before who started them has reaped them.
        self._holder.kill()
        self._holder.communicate()


def _setns(fd: int) -> None:
    if _LIBC.setns(fd, 0):
        raise OSError(ctypes.get_errno(), "setns")


class Namespaces:
    """A switch, and a host at each of its ports."""

    how = "network, process and name spaces of their own"
    address = HUB

    def __init__(self) -> None:
        self._hub = _Space("hub")
        self._hosts: list[_NamespaceHost] = []
        for command in (
            "link set lo up",
            "link add switch type bridge",
            f"addr add {HUB}/24 dev switch",
            "link set switch up",
        ):
            self._hub.ip(*command.split())

    def host(self, name: str) -> "_NamespaceHost":
        """See `Network`."""
        host = _NamespaceHost(name, self._hub, 2 + len(self._hosts))
        self._hosts.append(host)
        return host

    def inside(self) -> contextlib.AbstractContextManager[None]:
        """See `Network`."""
        return self._hub.inside("net")

    def free_port(self, usual: int) -> int:
        """See `Network`: here nobody else has one."""
        return usual

    def is_from(self, host: Host) -> str:
        """See `Network`."""
        return f"client_addr = '{host.address}'"

    def close(self) -> None:
        """See `Network`."""
        for host in self._hosts:
            host.space.close()
        self._hub.close()


class _NamespaceHost:
    def __init__(self, name: str, hub: _Space, number: int) -> None:
        self.name, self._hub, self._port = name, hub, f"port{number}"
        self.address = f"{HUB.rpartition('.')[0]}.{number}"
        self.space = _Space(name)
        peer = f"link add {self._port} type veth peer name eth0 netns {self.space.init}"
        hub.ip(*peer.split())
        hub.ip("link", "set", self._port, "master", "switch", "up")
        self.space.ip("link", "set", "lo", "up")
        self.space.ip("addr", "add", f"{self.address}/24", "dev", "eth0")
        self.space.ip("link", "set", "eth0", "up")

    def popen(self, command: list[str], *, cwd: Path, **how: Any) -> "subprocess.Popen[bytes]":
        spaces = [f"--{kind}=/proc/{self.space.init}/ns/{kind}" for kind in ("net", "uts")]
        # Last: of the mounts, /proc is another there.
        spaces.append(f"--mount=/proc/{self.space.init}/ns/mnt")
        with self.space.inside("pid"):
            return subprocess.Popen(
                ["nsenter", *spaces, "env", f"--chdir={cwd}", *command], cwd=cwd, **how
            )

    def reaches(self, port: int) -> str:
        return f"{HUB}:{port}"

    def cut(self) -> None:
        self._hub.ip("link", "set", self._port, "down")

    def mend(self) -> None:
        self._hub.ip("link", "set", self._port, "up")


# --- proxies


class Proxies:
    """All on this machine, which the hosts know, with a proxy of each host before each shared server."""

    how = "processes behind proxies, as this user may not make namespaces"
    address = "127.0.0.1"

    def __init__(self) -> None:
        self._hosts: list[_ProxyHost] = []

    def host(self, name: str) -> "_ProxyHost":
        """See `Network`."""
        host = _ProxyHost(name)
        self._hosts.append(host)
        return host

    def inside(self) -> contextlib.AbstractContextManager[None]:
        """See `Network`: it is everywhere."""
        return contextlib.nullcontext()

    def free_port(self, usual: int) -> int:
        """See `Network`."""
        return free_port()

    def is_from(self, host: "_ProxyHost") -> str:  # type: ignore[override]
        """See `Network`."""
        ports = ", ".join(map(str, [0, *host.ports()]))
        return f"client_port IN ({ports})"

    def close(self) -> None:
        """See `Network`."""
        for host in self._hosts:
            host.close()


class _ProxyHost:
    def __init__(self, name: str) -> None:
        self.name, self.address = name, "127.0.0.1"
        self._proxies: dict[int, Proxy] = {}

    def popen(self, command: list[str], *, cwd: Path, **how: Any) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(command, cwd=cwd, **how)

    def reaches(self, port: int) -> str:
        if port not in self._proxies:
            self._proxies[port] = Proxy(port)
        return f"127.0.0.1:{self._proxies[port].port}"

    def cut(self) -> None:
        for proxy in self._proxies.values():
            proxy.silent = True

    def mend(self) -> None:
        for proxy in self._proxies.values():
            proxy.silent = False

    def ports(self) -> list[int]:
        """From which its proxies have connected."""
        return [port for proxy in self._proxies.values() for port in proxy.ports()]

    def close(self) -> None:
        for proxy in self._proxies.values():
            proxy.close()


class Proxy:
    """Passes on what comes, to a port of this machine and back; while it is `silent`, nothing, and nobody is told
    of an end."""

    def __init__(self, to: int) -> None:
        self._to, self.silent, self._closing = to, False, False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._other: dict[socket.socket, socket.socket] = {}
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    def ports(self) -> list[int]:
        """From which it has connected to the server."""
        found = []
        for one in list(self._other):
            with suppress(OSError):
                if one.getpeername()[1] == self._to:
                    found.append(one.getsockname()[1])
        return found

    def close(self) -> None:
        """End, and all connections with it."""
        self._closing = True
        self._thread.join()

    def _run(self) -> None:
        while not self._closing:
            if self.silent:
                threading.Event().wait(0.02)
                continue
            for key, _ in self._selector.select(0.02):
                if self.silent:
                    break
                if key.fileobj is self._listener:
                    self._accept()
                elif isinstance(key.fileobj, socket.socket):
                    self._pass_on(key.fileobj)
        for one in [self._listener, *self._other]:
            one.close()

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        try:
            far = socket.create_connection(("127.0.0.1", self._to), timeout=5)
        except OSError:
            near.close()
            return
        for one, other in ((near, far), (far, near)):
            self._other[one] = other
            self._selector.register(one, selectors.EVENT_READ)

    def _pass_on(self, one: socket.socket) -> None:
        if one not in self._other:
            return
        try:
            said = one.recv(65_536)
            if said:
                self._other[one].sendall(said)
                return
        except OSError:
            pass
        for each in (one, self._other[one]):
            with closing(each):
                self._selector.unregister(each)
                del self._other[each]
