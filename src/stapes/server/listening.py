"""Opens the sockets that the server listens on, with an error that says what is wrong."""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from pathlib import Path
from typing import Any, Final

from stapes.errors import OptionError
from stapes.server.config import ServerConfig

_WHY: Final = {
    errno.EADDRINUSE: "it is in use; --port takes another, 0 a free one",
    errno.EADDRNOTAVAIL: "this machine has no such address",
    errno.EACCES: "this user may not use this port; one above 1023 needs no rights",
}


def open_sockets(config: ServerConfig) -> list[socket.socket]:
    """Return bound sockets: of each address that the host's name has, or of a path. Raises OptionError."""
    if config.uds is not None:
        return [_unix_socket(Path(config.uds))]
    where = f"cannot listen on {config.host}, port {config.port}"
    try:
        found = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise OptionError(f"cannot listen on {config.host}: there is no host of that name") from error
    opened: list[socket.socket] = []
    failed: OSError | None = None
    for family, kind, protocol, _, address in dict.fromkeys(found):
        try:
            opened.append(_bound(socket.socket(family, kind, protocol), address))
        except OSError as error:  # of IPv6, say, where this machine has none
            failed = error
    if failed is not None and (not opened or failed.errno != errno.EADDRNOTAVAIL):
        for one in opened:
            one.close()
        raise OptionError(f"{where}: {_WHY.get(failed.errno or 0, failed.strerror or str(failed))}") from failed
    return opened


def _bound(one: socket.socket, address: Any) -> socket.socket:
    try:
        if os.name == "posix":
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if one.family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind(address)
        one.listen(1)  # another that listens there is noticed now
    except OSError:
        one.close()
        raise
    return one


def _unix_socket(path: Path) -> socket.socket:
    if sys.platform == "win32":
        raise OptionError("--uds needs Linux or macOS")
    if not path.parent.is_dir():
        raise OptionError(f"--uds {path}: the folder {path.parent} does not exist")
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if os.path.lexists(path):
            _remove_old(path)
        one.bind(str(path))
        path.chmod(0o666)  # its folder says who may use it
    except OSError as error:
        one.close()
        raise OptionError(f"--uds {path}: {error.strerror or error}") from error
    except OptionError:
        one.close()
        raise
    return one


def _remove_old(path: Path) -> None:
    """Remove the socket of a server that has ended. Raises OptionError for what is not one, OSError."""
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise OptionError(f"--uds {path}: a file that is no socket is there; choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        else:
            raise OptionError(f"--uds {path}: another server listens there")
