"""The system calls that a sandboxed model is denied, as a classic BPF program for bubblewrap's `--seccomp`.

It is a second fence: capabilities are gone and namespaces are private already, but a process may still make a user
namespace of its own and reach kernel code that a model never needs. Denied calls fail with EPERM; `clone3`, whose
flags a filter cannot see, with ENOSYS, so that the C library falls back to `clone`.
"""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Mapping
from dataclasses import dataclass

_LOAD, _JUMP_EQUAL, _JUMP_SET, _RETURN = 0x20, 0x15, 0x45, 0x06
_NUMBER, _ARCH, _ARGUMENT_0, _ARGUMENT_1 = 0, 4, 16, 24
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000
_X32 = 0x40000000
_NEW_NAMESPACES = 0x7E020080  # CLONE_NEWTIME, NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C


@dataclass(frozen=True, slots=True)
class _Machine:
    audit_arch: int
    clone: int
    ioctl: int
    denied: Mapping[str, int]


_BOTH = {
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428, "move_mount": 429,
    "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "mount_setattr": 442,
}  # fmt: skip
_X86_64 = {
    "ptrace": 101, "syslog": 103, "pivot_root": 155, "adjtimex": 159, "chroot": 161, "acct": 163, "settimeofday": 164,
    "mount": 165, "umount2": 166, "swapon": 167, "swapoff": 168, "reboot": 169, "iopl": 172, "ioperm": 173,
    "init_module": 175, "delete_module": 176, "quotactl": 179, "clock_settime": 227, "kexec_load": 246, "add_key": 248,
    "request_key": 249, "keyctl": 250, "unshare": 272, "perf_event_open": 298, "name_to_handle_at": 303,
    "open_by_handle_at": 304, "clock_adjtime": 305, "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311,
    "kcmp": 312, "finit_module": 313, "kexec_file_load": 320, "bpf": 321, "userfaultfd": 323,
}  # fmt: skip
_AARCH64 = {
    "umount2": 39, "mount": 40, "pivot_root": 41, "chroot": 51, "quotactl": 60, "acct": 89, "unshare": 97,
    "kexec_load": 104, "init_module": 105, "delete_module": 106, "clock_settime": 112, "syslog": 116, "ptrace": 117,
    "reboot": 142, "settimeofday": 170, "adjtimex": 171, "add_key": 217, "request_key": 218, "keyctl": 219,
    "swapon": 224, "swapoff": 225, "perf_event_open": 241, "name_to_handle_at": 264, "open_by_handle_at": 265,
    "clock_adjtime": 266, "setns": 268, "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272,
    "finit_module": 273, "bpf": 280, "userfaultfd": 282, "kexec_file_load": 294,
}  # fmt: skip
_CLONE3 = 435
_MACHINES: Mapping[str, _Machine] = {
    "x86_64": _Machine(0xC000003E, 56, 16, _X86_64 | _BOTH),
    "aarch64": _Machine(0xC00000B7, 220, 29, _AARCH64 | _BOTH),
}


def program(machine: str | None = None, allowed: frozenset[str] = frozenset()) -> bytes | None:
    """The filter for a machine (this one by default), or None where we have no table for it. `allowed`: calls that it
    leaves to the kernel's own judgement.
    """
    known = _MACHINES.get(machine or platform.machine())
    return None if known is None else b"".join(_instructions(known, allowed))


def _instructions(machine: _Machine, allowed: frozenset[str]) -> list[bytes]:
    denied = [number for name, number in machine.denied.items() if name not in allowed]
    code = [
        _op(_LOAD, _ARCH), _op(_JUMP_EQUAL, machine.audit_arch, 1, 0), _fail(errno.EPERM),
        _op(_LOAD, _NUMBER), _op(_JUMP_SET, _X32, 0, 1), _fail(errno.EPERM),
        _op(_JUMP_EQUAL, _CLONE3, 0, 1), _fail(errno.ENOSYS),
    ]  # fmt: skip
    for number in denied:
        code += [_op(_JUMP_EQUAL, number, 0, 1), _fail(errno.EPERM)]
    code += [
        _op(_JUMP_EQUAL, machine.clone, 0, 4),
        _op(_LOAD, _ARGUMENT_0), _op(_JUMP_SET, _NEW_NAMESPACES, 0, 1), _fail(errno.EPERM), _op(_RETURN, _ALLOW),
        _op(_JUMP_EQUAL, machine.ioctl, 0, 4),
        _op(_LOAD, _ARGUMENT_1), _op(_JUMP_EQUAL, _TIOCSTI, 1, 0), _op(_JUMP_EQUAL, _TIOCLINUX, 0, 1),
        _fail(errno.EPERM), _op(_RETURN, _ALLOW),
    ]  # fmt: skip
    return code


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """One instruction; the two jumps count the instructions to leave out."""
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _fail(number: int) -> bytes:
    return _op(_RETURN, _FAIL | number)
