"""What the tests need and a machine has not, made once, before the first of them starts and with its progress to be seen."""

from __future__ import annotations

from contextlib import suppress

from tests.fleet.own_kernel.linux import linux
from tests.fleet.own_kernel.root_image import root_image
from tests.kube import binary
from tests.machine import MissingOnMachine


def main() -> None:
    for make in (control_plane_programs, linux, root_image):
        with suppress(MissingOnMachine):  # the tests that need it say what is missing
            make()


def control_plane_programs() -> None:
    """Raises MissingOnMachine."""
    for name in ("kubectl", "etcd", "kube-apiserver", "kube-controller-manager"):
        binary(name)


if __name__ == "__main__":
    main()
