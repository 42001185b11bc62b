"""Turn into a program that can't outlive the process that asked for it.

Run by path (`python -I -S launch.py ORDER PROGRAM ARGUMENT…`), so it may import the standard library only.
ORDER is JSON, see `baatcheet.platform.embedded.process.spawn`:

    parent       pid of the asker; if that is not our parent any more, it has died already
    death_signal the signal that the program gets when the asker dies (prctl(2), PR_SET_PDEATHSIG)
    report       descriptor of a pipe: gets a sentence when the program can't start, and closes when it runs
    hold         a file that stays locked (flock) while the program or any child of it lives; may be null
    user         [uid, gid] to become first, null: stay who we are
    keep_access  as that user, still pass folders that only root may pass (CAP_DAC_OVERRIDE, capabilities(7))
"""

import ctypes
import fcntl
import json
import os
import signal
import sys
from typing import NoReturn

PR_SET_PDEATHSIG = 1
PR_SET_SECUREBITS = 28
PR_CAP_AMBIENT = 47
SECBIT_NO_SETUID_FIXUP = 1 << 2
PR_CAP_AMBIENT_RAISE = 2
CAP_DAC_OVERRIDE = 1
CAPABILITY_VERSION_3 = 0x20080522
NOT_STARTED = 125


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapabilityData(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def _checked(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def _become(libc: ctypes.CDLL, uid: int, gid: int, *, keep_access: bool) -> None:
    if keep_access:
        # Capabilities then outlive the change of user, and access(2), which initdb asks about its own programs,
        # counts them in.
        _checked(libc.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0), "SECBIT_NO_SETUID_FIXUP")
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if keep_access:
        bit = 1 << CAP_DAC_OVERRIDE
        header = _CapabilityHeader(CAPABILITY_VERSION_3, 0)
        data = (_CapabilityData * 2)(_CapabilityData(bit, bit, bit), _CapabilityData(0, 0, 0))
        _checked(libc.capset(ctypes.byref(header), data), "capset")
        _checked(
            libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE, 0, 0),
            "keeping CAP_DAC_OVERRIDE",
        )


def main() -> NoReturn:
    order = json.loads(sys.argv[1])
    command = sys.argv[2:]
    report: int = order["report"]
    os.set_inheritable(report, False)
    try:
        if order["hold"] is not None:
            held = os.open(order["hold"], os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.set_inheritable(held, True)
        libc = ctypes.CDLL(None, use_errno=True)
        if order["user"] is not None:
            uid, gid = order["user"]
            _become(libc, uid, gid, keep_access=order["keep_access"])
        if sys.platform == "linux":
            # Last, since the kernel clears it when the user changes.
            _checked(libc.prctl(PR_SET_PDEATHSIG, order["death_signal"], 0, 0, 0), "PR_SET_PDEATHSIG")
        if os.getppid() != order["parent"]:
            raise ProcessLookupError("the process that asked for it has ended")
        # Python ignores these two; what is ignored stays ignored across exec.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execv(command[0], command)  # noqa: S606 - no shell is the point
    except OSError as error:
        os.write(report, f"{command[0]} could not be started: {error}".encode())
        sys.exit(NOT_STARTED)


if __name__ == "__main__":
    main()
