//! The programs that are installed, and their versions.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::contender::Contender;

/// The programs that are needed.
#[derive(Debug)]
pub struct Tools {
    bench: PathBuf,
    wsguard: PathBuf,
    nginx: Option<PathBuf>,
    haproxy: Option<PathBuf>,
    pub strace: Option<PathBuf>,
}

impl Tools {
    /// Looks in the folders of PATH, and in /usr/sbin, which is not in every PATH.
    pub fn find(wsguard: &Path) -> anyhow::Result<Self> {
        anyhow::ensure!(wsguard.is_file(), "there is no {}", wsguard.display());
        Ok(Self {
            bench: std::env::current_exe()?,
            // The path is made absolute. For a name without a folder, the child would look elsewhere.
            wsguard: wsguard.canonicalize()?,
            nginx: look_for("nginx"),
            haproxy: look_for("haproxy"),
            strace: look_for("strace"),
        })
    }

    /// The program that runs as this contender.
    pub fn program(&self, contender: Contender) -> Option<&Path> {
        match contender {
            Contender::Relay => Some(&self.bench),
            Contender::Wsguard | Contender::WsguardLimits => Some(&self.wsguard),
            Contender::Nginx | Contender::NginxLarge => self.nginx.as_deref(),
            Contender::Haproxy | Contender::HaproxySplice => self.haproxy.as_deref(),
        }
    }

    /// A line for each program, including those that are left out.
    pub fn versions(&self) -> Vec<String> {
        let peer = |name: &str, path: Option<&PathBuf>, flag| match path {
            Some(path) => {
                first_line(path, flag).unwrap_or_else(|| format!("{name}, of a version that it does not tell"))
            }
            None => format!("{name} is not installed and left out"),
        };
        vec![
            peer("wsguard", Some(&self.wsguard), "--version"),
            peer("nginx", self.nginx.as_ref(), "-v"),
            peer("haproxy", self.haproxy.as_ref(), "-v"),
            match &self.strace {
                Some(path) => first_line(path, "--version").unwrap_or_else(|| "strace".to_owned()),
                None => "strace is not installed: system calls are not counted".to_owned(),
            },
        ]
    }
}

fn look_for(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// The first line of the program's output. nginx writes its version to stderr.
fn first_line(program: &Path, flag: &str) -> Option<String> {
    let output = Command::new(program).arg(flag).output().ok()?;
    let all = [output.stdout, output.stderr].concat();
    Some(String::from_utf8_lossy(&all).lines().next()?.to_owned())
}
