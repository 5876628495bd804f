"""The Linux part of the child process of `sandbox`: let the kernel refuse what the guard of the interpreter refuses.

The kernel also refuses it to native code, and to another interpreter that replaces this one. The network is in a
namespace of its own, Landlock refuses changes outside the folder, and a seccomp filter refuses other system calls. A
part that the kernel does not have is left out.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct

NEW_USER, NEW_NETWORK, NEW_IPC = 0x10000000, 0x40000000, 0x08000000
SET_DEATH_SIGNAL, SET_NO_NEW_PRIVILEGES, SET_SECCOMP = 1, 38, 22

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
"""Numbers of the system calls of Landlock, on all processors."""

WRITE_FILE, REMOVE, MAKE_FOLDER, MAKE_FILE, MAKE_OTHER = 1 << 1, 3 << 4, 1 << 7, 1 << 8, 0b11110100 << 6
RENAME, TRUNCATE = 1 << 13, 1 << 14
"""Rights of Landlock. RENAME and TRUNCATE are in its versions 2 and 3."""

SYSTEM_CALLS = {
    "x86_64": (
        *(41, 42, 49, 53),  # socket, connect, bind, socketpair
        *(57, 58),  # fork, vfork
        *(62, 200, 234, 129, 297, 424, 434, 438),  # kill, tkill, tgkill, rt_(tg)sigqueueinfo, pidfd_*
        *(101, 310, 311, 440),  # ptrace, process_vm_readv, process_vm_writev, process_madvise
        *(133, 259, 86, 265, 88, 266),  # mknod(at), link(at), symlink(at)
        *(90, 91, 268, 452, 92, 93, 94, 260, 188, 189, 190, 197, 198, 199),  # chmod, chown, xattr
        *(29, 30, 31, 64, 68, 240, 241, 319),  # shmget, shmat, shmctl, semget, msgget, mq_open, mq_unlink, memfd_create
        *(425, 321, 298, 323, 248, 249, 250),  # io_uring_setup, bpf, perf_event_open, userfaultfd, keys
        *(165, 166, 428, 429, 430, 442, 272, 308, 161, 155),  # mount and its relatives, unshare, setns, chroot
        *(160, 141, 251, 203, 144, 142, 314),  # setrlimit, setpriority, ioprio_set, sched_set*
    ),
    "aarch64": (
        *(198, 203, 200, 199),
        *(129, 130, 131, 138, 240, 424, 434, 438),
        *(117, 270, 271, 440),
        *(33, 37, 36),
        *(52, 53, 452, 54, 55, 5, 6, 7, 14, 15, 16),
        *(194, 196, 195, 190, 186, 180, 181, 279),
        *(425, 280, 241, 282, 217, 218, 219),
        *(40, 39, 428, 429, 430, 442, 97, 268, 51, 41),
        *(164, 140, 30, 122, 119, 118, 274),
    ),
}
"""Numbers of the refused system calls, per processor."""

MACHINES = {"x86_64": (0xC000003E, 56, 302), "aarch64": (0xC00000B7, 220, 261)}
"""Per processor: its number for a filter, and the numbers of clone and prlimit64."""

CLONE3, FIRST_OF_X32, CLONE_THREAD = 435, 0x40000000, 0x10000
ALLOW, REFUSE, ABSENT = 0x7FFF0000, 0x00050001, 0x00050026
"""Results of a filter. REFUSE is EPERM. ABSENT is ENOSYS: then the C library uses clone, whose flags are visible."""

LOAD, EQUAL, AT_LEAST, HAS_BITS, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
"""Instructions of a filter."""


def confine(folder: str, parent: int) -> None:
    """Limit this process: changes only in `folder`, no network, no other processes. End with `parent`."""
    library = ctypes.CDLL(None)
    library.unshare(NEW_USER | NEW_NETWORK | NEW_IPC)
    library.prctl(SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    library.prctl(SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    restrict_files(library, folder)
    filter_calls(library)


def restrict_files(library: ctypes.CDLL, folder: str) -> None:
    """Refuse changes outside the folder, and signals to other processes."""
    version = library.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return
    allowed = WRITE_FILE | REMOVE | MAKE_FOLDER | MAKE_FILE
    allowed |= (RENAME if version >= 2 else 0) | (TRUNCATE if version >= 3 else 0)
    # The attributes are the rights, from version 4 also those of the network, and from version 6 what is separate:
    # sockets without a file, and signals.
    attributes = struct.pack("QQQ", allowed | MAKE_OTHER, 0, 3)[: 24 if version >= 6 else 8]
    rules = library.syscall(CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    for path, rights in ((folder, allowed), (os.devnull, allowed & (WRITE_FILE | TRUNCATE))):
        place = os.open(path, os.O_PATH)
        library.syscall(ADD_RULE, rules, 1, struct.pack("=Qi", rights, place), 0)
        os.close(place)
    library.syscall(RESTRICT_SELF, rules, 0)
    os.close(rules)


def filter_calls(library: ctypes.CDLL) -> None:
    """Refuse system calls that a solution does not need, and processes. Threads are allowed."""
    machine = os.uname().machine
    if machine not in MACHINES:
        return
    number, clone, prlimit = MACHINES[machine]
    # (instruction, jump if true, jump if false, value)
    steps = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, number), (RETURN, 0, 0, REFUSE), (LOAD, 0, 0, 0)]
    steps += [(AT_LEAST, 0, 1, FIRST_OF_X32), (RETURN, 0, 0, REFUSE)]
    steps += [(EQUAL, 0, 1, CLONE3), (RETURN, 0, 0, ABSENT)]
    for call in SYSTEM_CALLS[machine]:
        steps += [(EQUAL, 0, 1, call), (RETURN, 0, 0, REFUSE)]
    # The first argument of clone is at byte 16: flags. The third of prlimit64 is at byte 32: new limits, or null.
    steps += [(EQUAL, 0, 4, clone), (LOAD, 0, 0, 16), (HAS_BITS, 1, 0, CLONE_THREAD), (RETURN, 0, 0, REFUSE)]
    steps += [(RETURN, 0, 0, ALLOW)]
    steps += [(EQUAL, 0, 3, prlimit), (LOAD, 0, 0, 32), (EQUAL, 1, 0, 0), (RETURN, 0, 0, REFUSE)]
    steps += [(RETURN, 0, 0, ALLOW)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = struct.pack("HP", len(steps), ctypes.addressof(code))
    library.prctl(SET_SECCOMP, 2, program, 0, 0)
