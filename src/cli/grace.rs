//! How long this machine waits between asking the process to stop and killing it, and whether this time is enough to drain.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::notation::units::show_duration;
use crate::config::policy::ServerPolicy;

/// The program that will stop the process, as far as this machine shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stopper {
    /// systemd, with an installed unit.
    Unit {
        /// The file that sets the time, or the unit itself if no file does.
        file: PathBuf,
        /// How long systemd waits; `Duration::MAX` means for ever.
        waits: Duration,
    },
    /// Kubernetes.
    Kubernetes,
    /// Docker, Podman or a similar runtime.
    Container,
    /// An unknown program. The unit that comes with wsguard is assumed.
    Unknown,
}

impl Stopper {
    /// Finds the stopper from the files and the environment of this machine.
    pub(crate) fn of_this_machine() -> Self {
        Self::look(Path::new("/"), env::var_os("KUBERNETES_SERVICE_HOST").is_some())
    }

    /// Whether the process runs in a container, where people rarely run `wsguard check`.
    pub(crate) fn is_container(&self) -> bool {
        matches!(self, Self::Kubernetes | Self::Container)
    }

    fn look(root: &Path, in_kubernetes: bool) -> Self {
        if in_kubernetes {
            return Self::Kubernetes;
        }
        if MARKS.iter().any(|mark| root.join(mark).exists()) {
            return Self::Container;
        }
        unit(root).unwrap_or(Self::Unknown)
    }

    /// A note for the user, if a drain may take as long as the stopper waits, or longer.
    pub(crate) fn note(&self, server: &ServerPolicy) -> Option<String> {
        let drain = server.drain_delay + server.drain_timeout;
        let (waits, who) = match self {
            Self::Unit { file, waits } => (*waits, format!("systemd ({})", file.display())),
            Self::Kubernetes => (KUBERNETES, "Kubernetes, unless the pod says otherwise,".to_owned()),
            Self::Container => (
                CONTAINER,
                "Docker or Podman, unless they are told otherwise,".to_owned(),
            ),
            Self::Unknown => (SHIPPED, "systemd by wsguard.service".to_owned()),
        };
        if drain < waits {
            return None;
        }
        let enough = (drain + SPARE).as_secs();
        let how = match self {
            Self::Unit { .. } | Self::Unknown => {
                format!("`systemctl edit wsguard`, with TimeoutStopSec={enough}s under [Service], gives it the time")
            }
            Self::Kubernetes => format!("terminationGracePeriodSeconds: {enough} gives it the time"),
            Self::Container => format!(
                "`--stop-timeout {enough}`, or stop_grace_period: {enough}s in a compose file, gives it the time"
            ),
        };
        Some(format!(
            "drain_delay and drain_timeout are {} together, and {who} kills wsguard {} after it is told to stop; {how}",
            show_duration(drain),
            show_duration(waits),
        ))
    }
}

/// The stopper of an installed unit, with the stop timeout that the unit or a drop-in sets. `None` if there is no unit, or
/// if the timeout can't be read.
fn unit(root: &Path) -> Option<Stopper> {
    let main = UNITS
        .iter()
        .map(|units| root.join(units).join(UNIT))
        .find(|file| file.exists())?;
    // If two drop-ins have the same name, the one in the earlier folder counts. Drop-ins apply in the order of their names.
    let mut files = BTreeMap::new();
    for units in UNITS.iter().rev() {
        let folder = fs::read_dir(root.join(units).join(format!("{UNIT}.d")));
        for file in folder.into_iter().flatten().flatten() {
            let path = file.path();
            if path.extension().is_some_and(|ending| ending == "conf") {
                files.insert(file.file_name(), path);
            }
        }
    }
    let mut said = (main.clone(), BY_DEFAULT);
    for file in [main].into_iter().chain(files.into_values()) {
        for value in values(&fs::read_to_string(&file).unwrap_or_default()) {
            // If the value can't be read, nothing is said about the unit.
            said = (file.clone(), timespan(value)?);
        }
    }
    let (file, waits) = said;
    let file = Path::new("/").join(file.strip_prefix(root).unwrap_or(&file));
    Some(Stopper::Unit { file, waits })
}

/// The values of the stop timeout in the lines of a unit (systemd.service(5)).
fn values(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let (key, value) = line.split_once('=')?;
        ["TimeoutStopSec", "TimeoutSec"]
            .contains(&key.trim())
            .then_some(value.trim())
    })
}

/// Reads a time such as `5min 20s`, `40` or `infinity` (systemd.time(7)); `None` for any other text.
fn timespan(text: &str) -> Option<Duration> {
    match text {
        "" => return Some(BY_DEFAULT),
        "infinity" | "0" => return Some(Duration::MAX),
        _ => {}
    }
    let mut sum = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let unit_at = rest.find(|byte: char| !byte.is_ascii_digit()).unwrap_or(rest.len());
        let (number, behind) = rest.split_at(unit_at);
        let behind = behind.trim_start();
        let next = behind
            .find(|byte: char| !byte.is_ascii_alphabetic())
            .unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(next);
        let number: u64 = number.parse().ok()?;
        let seconds = match unit {
            "ms" | "msec" => {
                sum += Duration::from_millis(number);
                0
            }
            "" | "s" | "sec" | "second" | "seconds" => number,
            "m" | "min" | "minute" | "minutes" => number.checked_mul(60)?,
            "h" | "hr" | "hour" | "hours" => number.checked_mul(3600)?,
            _ => return None,
        };
        sum = sum.checked_add(Duration::from_secs(seconds))?;
        rest = behind.trim_start();
    }
    Some(sum)
}

/// Files that exist only in containers of Docker and Podman.
const MARKS: [&str; 2] = [".dockerenv", "run/.containerenv"];
const UNIT: &str = "wsguard.service";
/// The folders of units (systemd.unit(5)). An earlier folder overrides a later one.
const UNITS: [&str; 5] = [
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];
/// systemd's default of `DefaultTimeoutStopSec`.
const BY_DEFAULT: Duration = Duration::from_secs(90);
const CONTAINER: Duration = Duration::from_secs(10);
const KUBERNETES: Duration = Duration::from_secs(30);
/// `TimeoutStopSec` of systemd/wsguard.service.
const SHIPPED: Duration = Duration::from_secs(40);
/// Extra time for closing listeners and writing the log.
const SPARE: Duration = Duration::from_secs(10);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn server(keys: &str) -> ServerPolicy {
        let text = format!(
            "[server]\n{keys}\n[[listener]]\nbind = [\"127.0.0.1:0\"]\n[upstream.a]\nservers = [\"127.0.0.1:1\"]\n"
        );
        crate::config::compile(&text, "test").unwrap().policy.server
    }

    fn unit(waits: Option<u64>) -> Stopper {
        Stopper::Unit {
            file: "/lib/wsguard.service".into(),
            waits: waits.map_or(Duration::MAX, Duration::from_secs),
        }
    }

    #[test]
    fn a_drain_longer_than_the_stopper_waits_is_noted_with_both_times_and_a_way_out() {
        let note = |stopper: Stopper, keys: &str| stopper.note(&server(keys)).unwrap();
        assert_eq!(
            note(unit(Some(40)), "drain_timeout = \"2m\""),
            "drain_delay and drain_timeout are 2m together, and systemd (/lib/wsguard.service) kills wsguard 40s after it is \
             told to stop; `systemctl edit wsguard`, with TimeoutStopSec=130s under [Service], gives it the time"
        );
        assert_eq!(
            note(Stopper::Unknown, "drain_timeout = \"2m\""),
            "drain_delay and drain_timeout are 2m together, and systemd by wsguard.service kills wsguard 40s after it is \
             told to stop; `systemctl edit wsguard`, with TimeoutStopSec=130s under [Service], gives it the time"
        );
        assert_eq!(
            note(Stopper::Container, ""),
            "drain_delay and drain_timeout are 25s together, and Docker or Podman, unless they are told otherwise, kills \
             wsguard 10s after it is told to stop; `--stop-timeout 35`, or stop_grace_period: 35s in a compose file, gives \
             it the time"
        );
        assert_eq!(
            note(Stopper::Kubernetes, "drain_delay = \"10s\""),
            "drain_delay and drain_timeout are 35s together, and Kubernetes, unless the pod says otherwise, kills wsguard \
             30s after it is told to stop; terminationGracePeriodSeconds: 45 gives it the time"
        );
    }

    #[test]
    fn a_drain_that_fits_is_not_noted() {
        for (stopper, keys) in [
            (unit(Some(40)), ""),
            (unit(Some(41)), "drain_timeout = \"40s\""),
            (unit(None), "drain_timeout = \"1h\""),
            (Stopper::Unknown, ""),
            (Stopper::Kubernetes, ""),
            (Stopper::Container, "drain_timeout = \"8s\""),
        ] {
            assert_eq!(stopper.note(&server(keys)), None, "{stopper:?} {keys}");
        }
        assert!(
            unit(Some(40)).note(&server("drain_timeout = \"40s\"")).is_some(),
            "not a second more"
        );
    }

    #[test]
    fn a_unit_is_read_with_its_drop_ins() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let look = || Stopper::look(root.path(), false);
        let waits = |file: &str, seconds: u64| Stopper::Unit {
            file: file.into(),
            waits: Duration::from_secs(seconds),
        };
        assert_eq!(look(), Stopper::Unknown);
        put(
            "usr/lib/systemd/system/wsguard.service",
            include_str!("../../systemd/wsguard.service"),
        );
        assert_eq!(
            look(),
            waits("/usr/lib/systemd/system/wsguard.service", SHIPPED.as_secs())
        );
        put(
            "etc/systemd/system/wsguard.service.d/override.conf",
            "[Service]\n# TimeoutStopSec=1s\nTimeoutStopSec=2min 10s\n",
        );
        assert_eq!(
            look(),
            waits("/etc/systemd/system/wsguard.service.d/override.conf", 130)
        );
        // The last drop-in by name counts. Of two with the same name, the one in /etc counts.
        put(
            "run/systemd/system/wsguard.service.d/50.conf",
            "[Service]\nTimeoutSec=5\n",
        );
        put(
            "run/systemd/system/wsguard.service.d/override.conf",
            "[Service]\nTimeoutStopSec=7\n",
        );
        put(
            "run/systemd/system/wsguard.service.d/zz",
            "[Service]\nTimeoutStopSec=7\n",
        );
        assert_eq!(
            look(),
            waits("/etc/systemd/system/wsguard.service.d/override.conf", 130)
        );
        put(
            "etc/systemd/system/wsguard.service.d/override.conf",
            "[Service]\nTimeoutStopSec=infinity\n",
        );
        assert!(matches!(
            look(),
            Stopper::Unit {
                waits: Duration::MAX,
                ..
            }
        ));
        put(
            "etc/systemd/system/wsguard.service",
            "[Service]\nExecStart=/usr/bin/wsguard run\n",
        );
        put("etc/systemd/system/wsguard.service.d/override.conf", "");
        assert_eq!(look(), waits("/run/systemd/system/wsguard.service.d/50.conf", 5));
        put(
            "etc/systemd/system/wsguard.service.d/override.conf",
            "[Service]\nTimeoutStopSec=soon\n",
        );
        assert_eq!(look(), Stopper::Unknown);

        put("run/.containerenv", "");
        assert_eq!(look(), Stopper::Container);
        assert_eq!(Stopper::look(root.path(), true), Stopper::Kubernetes);
    }

    #[test]
    fn a_timespan_is_read_as_systemd_reads_it() {
        let milliseconds = |text| timespan(text).map(|waits| waits.as_millis());
        for (text, expected) in [
            ("40", Some(40_000)),
            ("40s", Some(40_000)),
            ("1min 30s", Some(90_000)),
            ("2 minutes", Some(120_000)),
            ("1h1m1s", Some(3_661_000)),
            ("500ms", Some(500)),
            ("", Some(90_000)),
            ("infinity", Some(Duration::MAX.as_millis())),
            ("0", Some(Duration::MAX.as_millis())),
            ("soon", None),
            ("5 fortnights", None),
            ("99999999999999999999s", None),
        ] {
            assert_eq!(milliseconds(text), expected, "{text:?}");
        }
    }
}
