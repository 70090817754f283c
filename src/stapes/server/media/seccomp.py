"""A filter of system calls for media processes on Linux: an allow-list; every other call fails with EPERM.

Reading what is open, sending what is decoded, memory and time are allowed. Opening, connecting, starting processes or
threads, and changing limits are not. Numbers: https://github.com/torvalds/linux, unistd tables of both architectures.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from typing import Final

#: architecture -> its number in a filter, that of seccomp(2), and the numbers of the allowed calls
_X86_64: Final = {
    "read": 0, "write": 1, "close": 3, "fstat": 5, "lseek": 8, "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12,
    "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "pread64": 17, "readv": 19, "writev": 20,
    "sched_yield": 24, "mremap": 25, "madvise": 28, "getpid": 39, "sendto": 44, "recvfrom": 45, "sendmsg": 46,
    "recvmsg": 47, "shutdown": 48, "exit": 60, "gettimeofday": 96, "getrusage": 98, "sigaltstack": 131, "gettid": 186,
    "futex": 202, "clock_gettime": 228, "clock_nanosleep": 230, "exit_group": 231, "tgkill": 234, "newfstatat": 262,
    "getrandom": 318, "poll": 7, "ppoll": 271, "restart_syscall": 219, "rseq": 334,
}  # fmt: skip
_AARCH64: Final = {
    "close": 57, "lseek": 62, "read": 63, "write": 64, "readv": 65, "writev": 66, "pread64": 67, "ppoll": 73,
    "newfstatat": 79, "fstat": 80, "exit": 93, "exit_group": 94, "futex": 98, "clock_gettime": 113,
    "clock_nanosleep": 115, "restart_syscall": 128, "sched_yield": 124, "tgkill": 131, "sigaltstack": 132,
    "rt_sigaction": 134, "rt_sigprocmask": 135, "rt_sigreturn": 139, "getrusage": 165, "gettimeofday": 169,
    "getpid": 172, "gettid": 178, "sendto": 206, "recvfrom": 207, "shutdown": 210, "sendmsg": 211, "recvmsg": 212,
    "brk": 214, "munmap": 215, "mremap": 216, "mmap": 222, "mprotect": 226, "madvise": 233, "getrandom": 278,
    "rseq": 293,
}  # fmt: skip
_ARCHITECTURES: Final = {"x86_64": (0xC000003E, 317, _X86_64), "aarch64": (0xC00000B7, 277, _AARCH64)}

_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF: load a word, jump if equal, return
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM: Final = 1
_NR_OFFSET, _ARCH_OFFSET = 0, 4  # in struct seccomp_data
_PR_SET_NO_NEW_PRIVS, _SET_MODE_FILTER, _ALL_THREADS = 38, 1, 1


def program(architecture: int, allowed: list[int]) -> bytes:
    """Return the filter as BPF instructions: 16 bits code, 8 bits each of two jumps, 32 bits operand."""
    lines = [
        (_LOAD, 0, 0, _ARCH_OFFSET),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NR_OFFSET),
    ]
    for place, number in enumerate(allowed):
        lines.append((_EQUAL, len(allowed) - place, 0, number))
    lines += [(_RETURN, 0, 0, _ERROR | _EPERM), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("HBBI", *line) for line in lines)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def install() -> bool:
    """Install the filter for all threads of this process; False where this system has none."""
    known = _ARCHITECTURES.get(platform.machine())
    if not sys.platform.startswith("linux") or known is None:
        return False
    architecture, number, calls = known
    code = program(architecture, sorted(calls.values()))
    libc = ctypes.CDLL(None, use_errno=True)
    made = _Program(len(code) // 8, code)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return False
    return bool(libc.syscall(number, _SET_MODE_FILTER, _ALL_THREADS, ctypes.byref(made)) == 0)


def set_process_property(option: int, value: int) -> None:
    """Set a property of this process, by its number in prctl(2). Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
