"""A file that is mounted, alone or with its folder: what Docker and others do with one that the guard is given."""

import os
import pathlib
import subprocess
import tempfile
import unittest

from rig import Backend, Guard, Program, event, until


def why_not():
    """Why there can be no mounts of our own here; nothing where there can."""
    tried = subprocess.run(["unshare", "-m", "true"], capture_output=True, text=True)
    return f"mount namespaces are not permitted: {tried.stderr.strip()}" if tried.returncode else None


class Mounted(Guard):
    """wsguard in a mount namespace of its own, with `here`, a file of this machine's, mounted over its file there."""

    def __init__(self, here, file):
        self._folder = tempfile.TemporaryDirectory(prefix="wsguard-clients-")
        self.file = file
        file.write_text("nothing that may be used")
        Program.__init__(
            self, "unshare", "-m", "--propagation", "private", "sh", "-c",
            'mount --bind "$1" "$2" && exec "$3" run -c "$2"', "sh", here, file, os.environ["WSGUARD"],
        )  # fmt: skip
        self.find(lambda line: event(line, "ready"), "ready")
        self.port = int(self.find(lambda line: event(line, "listening"), "listening")["address"].rsplit(":", 1)[1])
        self.admin = self.find(lambda line: event(line, "admin"), "admin")["address"]

    def inside(self, *command):
        subprocess.run(["nsenter", "-t", str(self.pid), "-m", *map(str, command)], check=True)

    def reloads(self):
        return self.metric('wsguard_config_reloads_total{outcome="success"}')


class Mounts(unittest.TestCase):
    def setUp(self):
        if why := why_not():
            self.skipTest(why)
        folder = tempfile.TemporaryDirectory(prefix="wsguard-clients-")
        self.addCleanup(folder.cleanup)
        self.here = pathlib.Path(folder.name)
        self.backend = self.enter(Backend())
        (self.here / "given.toml").write_text(self.text(1))
        (self.here / "guard").mkdir()
        self.guard = self.enter(Mounted(self.here / "given.toml", self.here / "guard" / "wsguard.toml"))

    def enter(self, program):
        self.addCleanup(program.__exit__)
        return program.__enter__()

    def text(self, per_ip):
        return (
            f'[[listener]]\nname = "front"\nbind = ["127.0.0.1:0"]\n[limits]\nper_ip = {per_ip}\n'
            f'[upstream.backend]\nservers = ["127.0.0.1:{self.backend.port}"]\n[admin]\nlisten = "127.0.0.1:0"\n'
        )

    def test_a_file_that_is_mounted_alone_is_applied_when_it_is_written_in_place(self):
        for n in range(1, 4):
            with open(self.here / "given.toml", "r+") as file:
                file.write(self.text(n + 1))
                file.truncate()
            until(f"write {n} is applied", lambda: self.guard.reloads() == n)

    def test_a_file_or_a_folder_that_is_mounted_over_it_is_applied(self):
        (self.here / "other.toml").write_text(self.text(5))
        self.guard.inside("mount", "--bind", self.here / "other.toml", self.guard.file)
        until("what is mounted over the file is applied", lambda: self.guard.reloads() == 1, 10)
        (self.here / "other.toml").write_text(self.text(6))
        until("what is written there is applied", lambda: self.guard.reloads() == 2)
        (self.here / "folder").mkdir()
        (self.here / "folder" / "wsguard.toml").write_text(self.text(7))
        self.guard.inside("mount", "--bind", self.here / "folder", self.guard.file.parent)
        until("what is mounted over the folder is applied", lambda: self.guard.reloads() == 3, 10)
        self.guard.inside("umount", self.guard.file.parent)
        until("what was there before is applied again", lambda: self.guard.reloads() == 4, 10)


if __name__ == "__main__":
    unittest.main()
