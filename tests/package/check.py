#!/usr/bin/env python3
"""Looks into the .deb and at what `cargo install` installed: check.py DEB PROGRAM. `.ci/run package` makes both.

The package is unpacked and, by root, installed into a folder of its own; nothing is changed outside of it."""

import gzip
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import unittest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
MANIFEST = tomllib.loads((REPOSITORY / "Cargo.toml").read_text())
VERSION = MANIFEST["package"]["version"]
CONFIG = "etc/wsguard/wsguard.toml"
# Which files there are, with the source that each is a copy of, where it is one.
FILES = {
    "usr/bin/wsguard": None,
    CONFIG: "conf/installed.toml",
    "usr/lib/systemd/system/wsguard.service": "systemd/wsguard.service",
    "usr/lib/systemd/system/wsguard.socket": "systemd/wsguard.socket",
    "usr/lib/sysusers.d/wsguard.conf": "systemd/deb/wsguard.sysusers",
    "usr/share/bash-completion/completions/wsguard": None,
    "usr/share/doc/wsguard/LICENSE-APACHE": "LICENSE-APACHE",
    "usr/share/doc/wsguard/LICENSE-MIT": "LICENSE-MIT",
    "usr/share/doc/wsguard/README.md": "README.md",
    "usr/share/doc/wsguard/copyright": None,
    "usr/share/fish/vendor_completions.d/wsguard.fish": None,
    "usr/share/man/man1/wsguard.1.gz": None,
    "usr/share/zsh/vendor-completions/_wsguard": None,
}
for file in REPOSITORY.glob("conf/**/*"):
    if file.is_file():
        FILES[f"usr/share/doc/wsguard/{file.relative_to(REPOSITORY)}"] = str(file.relative_to(REPOSITORY))


def said(*command, **options):
    """What a command writes to its output, if it ends well."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{command} ended with {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout


class Deb(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.root = pathlib.Path(cls.folder.name) / "root"
        said("dpkg-deb", "--extract", DEB, cls.root)

    def test_it_has_its_files_and_no_others(self):
        files = {str(file.relative_to(self.root)) for file in self.root.rglob("*") if not file.is_dir()}
        self.assertEqual(files, FILES.keys())
        for file, source in FILES.items():
            if source:
                self.assertEqual((self.root / file).read_bytes(), (REPOSITORY / source).read_bytes(), file)
            mode = 0o755 if file == "usr/bin/wsguard" else 0o644
            self.assertEqual((self.root / file).stat().st_mode & 0o7777, mode, file)
        for line in said("dpkg-deb", "--contents", DEB).splitlines():
            self.assertIn(line.split()[1], ("0/0", "root/root"), line)

    def test_what_its_documents_link_to_in_the_package_is_there(self):
        folder = self.root / "usr/share/doc/wsguard"
        documents = [folder / "README.md", *folder.glob("conf/**/*.md")]
        links = set()
        for document in documents:
            for link in re.findall(r"\]\(([^)#:]+)", document.read_text()):
                target = pathlib.Path(os.path.normpath(document.parent / link))
                if target.is_relative_to(folder / "conf") or target == folder / "README.md":
                    links.add(target)
        self.assertGreater(len(links), 8, links)
        self.assertEqual([link for link in links if not link.exists()], [])
        # Of files beside them, and in the file that is installed.
        self.assertTrue((folder / "conf/minimal.toml").exists())
        self.assertIn("/usr/share/doc/wsguard/conf/", (self.root / CONFIG).read_text())

    def test_the_file_that_an_administrator_changes_is_kept(self):
        self.assertEqual(said("dpkg-deb", "--info", DEB, "conffiles").split(), [f"/{CONFIG}"])

    def test_the_program_takes_the_installed_file_without_a_word(self):
        program = self.root / "usr/bin/wsguard"
        self.assertTrue(said(program, "--version").startswith(f"wsguard {VERSION} (features: "))
        said(program, "check", self.root / CONFIG, "--deny-warnings")

    def test_the_units_name_files_that_it_brings(self):
        unit = (self.root / "usr/lib/systemd/system/wsguard.service").read_text()
        commands = [line.split("=", 1)[1].split() for line in unit.splitlines() if line.startswith("Exec")]
        named = {word for command in commands for word in command if "wsguard" in word and word.startswith("/")}
        self.assertEqual(named, {"/usr/bin/wsguard", f"/{CONFIG}"})

    def test_its_page_and_completions_are_those_of_the_program(self):
        program = self.root / "usr/bin/wsguard"
        page = gzip.decompress((self.root / "usr/share/man/man1/wsguard.1.gz").read_bytes()).decode()
        self.assertEqual(page, said(program, "man"))
        for shell, file in (
            ("bash", "usr/share/bash-completion/completions/wsguard"),
            ("zsh", "usr/share/zsh/vendor-completions/_wsguard"),
            ("fish", "usr/share/fish/vendor_completions.d/wsguard.fish"),
        ):
            self.assertEqual((self.root / file).read_text(), said(program, "completions", shell))
            if shutil.which(shell):
                said(shell, "-n", self.root / file)

    @unittest.skipUnless(shutil.which("fish"), "fish is not here")
    def test_fish_completes(self):
        script = self.root / "usr/share/fish/vendor_completions.d/wsguard.fish"
        for line, wanted in (("wsguard ch", "check"), ("wsguard run --per", "--per-ip")):
            completed = said("fish", "--no-config", "-c", f"source {script}; complete -C '{line}'")
            self.assertEqual([line.split("\t")[0] for line in completed.splitlines()], [wanted])

    @unittest.skipIf(os.geteuid(), "only root installs")
    @unittest.skipUnless(shutil.which("systemd-sysusers"), "systemd-sysusers is not here")
    def test_dpkg_installs_it_makes_the_user_and_keeps_the_file_until_it_is_purged(self):
        root = pathlib.Path(self.folder.name) / "system"
        for folder in ("etc", "var/lib/dpkg/info", "var/lib/dpkg/updates"):
            (root / folder).mkdir(parents=True)
        (root / "var/lib/dpkg/status").touch()
        # What it depends on is this machine's.
        dpkg = ["dpkg", f"--root={root}", f"--log={root}/log", "--force-script-chrootless", "--force-depends"]
        said(*dpkg, "--install", DEB)
        self.assertIn("\nwsguard:x:", "\n" + (root / "etc/passwd").read_text())
        self.assertEqual(said("dpkg-query", f"--root={root}", "-Wf${Status}", "wsguard"), "install ok installed")
        wanted = [file for file in root.rglob("*") if file.parent.name.endswith(".wants")]
        self.assertEqual(wanted, [], "nothing is enabled")
        with (root / CONFIG).open("a") as file:
            file.write("# mine\n")
        said(*dpkg, "--remove", "wsguard")
        self.assertFalse((root / "usr/bin/wsguard").exists())
        self.assertTrue((root / CONFIG).read_text().endswith("# mine\n"))
        said(*dpkg, "--purge", "wsguard")
        self.assertFalse((root / CONFIG).exists())


class Installed(unittest.TestCase):
    def test_cargo_install_makes_a_program_that_runs(self):
        self.assertTrue(said(PROGRAM, "--version").startswith(f"wsguard {VERSION} (features: "))
        said(PROGRAM, "check", REPOSITORY / "conf/minimal.toml", "--deny-warnings")


if __name__ == "__main__":
    DEB, PROGRAM = sys.argv[1:]
    unittest.main(argv=sys.argv[:1], verbosity=2)
