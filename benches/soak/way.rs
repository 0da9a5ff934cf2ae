//! The ways in which a file comes to the path that the guard reads.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use tokio::time::sleep;

/// How a file comes to the path that the guard reads.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// Written over the old file.
    InPlace,
    /// Written over the old file, with a pause in the middle.
    Slowly,
    /// Written beside the old file and renamed.
    Rename,
    /// Written elsewhere, and a link to it renamed into place.
    Link,
    /// Renamed, and then HUP is sent to the guard.
    Hup,
}

impl Way {
    pub const ALL: [Self; 5] = [Self::InPlace, Self::Slowly, Self::Rename, Self::Link, Self::Hup];

    /// Puts `text` at `path`.
    pub async fn put(self, text: &str, path: &Path) -> io::Result<()> {
        match self {
            Self::InPlace => fs::write(path, text),
            Self::Slowly => {
                let mut file = fs::File::create(path)?;
                let (first, second) = text.split_at(text.len() / 2);
                file.write_all(first.as_bytes())?;
                sleep(Duration::from_millis(400)).await;
                file.write_all(second.as_bytes())
            }
            Self::Rename | Self::Hup => {
                let beside = path.with_extension("new");
                fs::write(&beside, text)?;
                fs::rename(&beside, path)
            }
            Self::Link => {
                // The link never leads to the file that the path leads to now.
                let first = path.with_extension("first");
                let leads_to = fs::read_link(path).ok();
                let target = if leads_to.as_ref() == Some(&first) {
                    path.with_extension("second")
                } else {
                    first
                };
                let link = path.with_extension("link");
                fs::write(&target, text)?;
                symlink(&target, &link)?;
                fs::rename(&link, path)
            }
        }
    }
}
