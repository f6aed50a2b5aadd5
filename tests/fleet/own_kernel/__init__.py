"""Hosts with a kernel of their own, for what needs cgroup v2, systemd, a real reboot or a power cut."""
