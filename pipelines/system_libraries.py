"""The system libraries that the OpenCV and MediaPipe wheels need, and the Debian packages that bring them.

Runs as a script with nothing but the standard library, before anything is installed.
"""

import ctypes
import sys

PACKAGE_OF = {
    "libGL.so.1": "libgl1",
    "libgthread-2.0.so.0": "libglib2.0-0",
    "libxcb.so.1": "libxcb1",
    "libEGL.so.1": "libegl1",
    "libGLESv2.so.2": "libgles2",
}


def missing_libraries() -> list[str]:
    """Names of the libraries that cannot be loaded."""
    missing = []
    for name in PACKAGE_OF:
        try:
            ctypes.CDLL(name)
        except OSError:
            missing.append(name)
    return missing


def complaint() -> str | None:
    """One line that says what is missing and what to install; None where nothing is."""
    missing = missing_libraries()
    if not missing:
        return None
    packages = " ".join(PACKAGE_OF[name] for name in missing)
    return f"system libraries are missing: {', '.join(missing)}; on Debian: apt-get install {packages}"


if __name__ == "__main__":
    problem = complaint()
    if problem:
        sys.exit(problem)
