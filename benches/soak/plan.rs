//! The configuration file: its present content, and possible next contents.

use crate::dice::Dice;
use crate::places::Places;

/// The content of a file. `number` is in it as the limit of a zone that no client uses, so that a scrape shows which
/// file is in force.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools)] // Each stands for a part of the file that is there or is not.
pub struct Plan {
    /// The number of the file.
    pub number: u32,
    /// Whether there is a listener `second`.
    has_second: bool,
    /// Whether there is a route, a zone and an upstream `passing`.
    has_passing: bool,
    has_spare: bool,
    has_network: bool,
    per_ip: &'static str,
    per_ip_rate: &'static str,
    connections: &'static str,
    observes: bool,
    reject_with: &'static str,
    pending_per_ip: u32,
    handshake_timeout: &'static str,
    balance: &'static str,
}

impl Plan {
    /// A file that has everything, with room for all clients.
    pub fn calm(number: u32) -> Self {
        Self {
            number,
            has_second: true,
            has_passing: true,
            has_spare: true,
            has_network: false,
            per_ip: "50",
            per_ip_rate: "off",
            connections: "5000",
            observes: false,
            reject_with: "http",
            pending_per_ip: 50,
            handshake_timeout: "3s",
            balance: "least-conn",
        }
    }

    /// The next file, with some changes. Limits may fall below the number of open connections. Most of the time there
    /// is room.
    pub fn next(&self, dice: &mut Dice) -> Self {
        let flip = |is: bool, dice: &mut Dice| is != dice.one_in(3);
        Self {
            number: self.number + 1,
            has_second: flip(self.has_second, dice),
            has_passing: flip(self.has_passing, dice),
            has_spare: flip(self.has_spare, dice),
            has_network: flip(self.has_network, dice),
            per_ip: dice.pick(&["off", "50", "50", "10", "1"]),
            per_ip_rate: dice.pick(&["off", "off", "50/s", "1/s"]),
            connections: dice.pick(&["off", "5000", "5000", "800", "20"]),
            observes: dice.one_in(6),
            reject_with: dice.pick(&["http", "http", "close", "drop"]),
            pending_per_ip: dice.pick(&[50, 50, 5, 300]),
            handshake_timeout: dice.pick(&["3s", "3s", "1s", "6s"]),
            balance: dice.pick(&["least-conn", "round-robin", "hash-ip"]),
        }
    }

    /// The file as TOML.
    pub fn text(&self, places: &Places) -> String {
        let Self {
            number,
            per_ip,
            per_ip_rate,
            connections,
            ..
        } = self;
        let Places {
            main,
            flooded,
            second,
            admin,
            steady,
            spare,
            moody,
            sleepy,
        } = places;
        let second = if self.has_second {
            format!("[[listener]]\nname = \"second\"\nbind = [\"{second}\"]\n")
        } else {
            String::new()
        };
        let passing = if self.has_passing {
            format!(
                "[zone.passing]\nper_ip = 5\n\n[upstream.passing]\nservers = [\"{spare}\"]\n\n\
                 [[route]]\nname = \"passing\"\npaths = [\"/passing\"]\nzone = \"passing\"\nupstream = \"passing\"\n"
            )
        } else {
            String::new()
        };
        let network = if self.has_network {
            "[[network]]\nname = \"crowd\"\nnetworks = [\"127.30.0.0/16\"]\nper_ip = 3\n"
        } else {
            ""
        };
        let servers = if self.has_spare {
            format!("\"{steady}\", \"{spare}\"")
        } else {
            format!("\"{steady}\"")
        };
        let mode = if self.observes { "observe" } else { "enforce" };
        let (reject_with, balance) = (self.reject_with, self.balance);
        let (pending_per_ip, handshake_timeout) = (self.pending_per_ip, self.handshake_timeout);
        format!(
            r#"# file {number}
[server]
workers = 2
drain_timeout = "4s"

[admin]
listen = "{admin}"

[[listener]]
name = "main"
bind = ["{main}"]

[[listener]]
name = "flooded"
bind = ["{flooded}"]
max_pending = 300
max_pending_per_ip = {pending_per_ip}
handshake_timeout = "{handshake_timeout}"

{second}
[limits]
mode = "{mode}"
per_ip = {per_ip}
per_ip_rate = {per_ip_rate}
connections = {connections}

[limits.timeouts]
half_close = "5s"
stalled = "5s"

{MESSAGES}
[zone.brief.timeouts]
idle = "2s"

[zone.short.timeouts]
lifetime = "3s"

[zone.flood]
mode = "enforce"
per_ip = 10
per_ip_rate = "20/s"
connections = 100
reject_with = "{reject_with}"

[zone.marker]
connections = {marker}

{network}
{ROUTES}
{passing}
[upstream.steady]
servers = [{servers}]
balance = "{balance}"

[upstream.moody]
servers = ["{moody}"]

[upstream.sleepy]
servers = ["{sleepy}"]
"#,
            marker = self.marker(),
            per_ip = quoted(per_ip),
            per_ip_rate = quoted(per_ip_rate),
            connections = quoted(connections),
        )
    }

    /// The value of `wsguard_connections_limit{zone="marker"}` while the file is in force.
    pub fn marker(&self) -> u32 {
        1000 + self.number
    }

    /// A file that must be refused, and the name of its mistake.
    pub fn broken(&self, places: &Places, dice: &mut Dice) -> (&'static str, String) {
        let mut plan = self.clone();
        plan.number += 1;
        let text = plan.text(places);
        let how = dice.pick(&[
            "syntax",
            "unknown key",
            "unknown zone",
            "empty",
            "truncated",
            "fixed key",
            "in use",
        ]);
        let broken = match how {
            "syntax" => text.replacen("[server]", "[server", 1),
            "unknown key" => text.replacen("drain_timeout", "drain_timout", 1),
            "unknown zone" => text.replacen("zone = \"brief\"", "zone = \"brie\"", 1),
            "empty" => String::new(),
            "truncated" => text[..text.len() / 2].to_owned(),
            "fixed key" => text.replacen("workers = 2", "workers = 3", 1),
            _ => text.replacen(
                "[limits]",
                &format!("[[listener]]\nbind = [\"{}\"]\n\n[limits]", places.steady),
                1,
            ),
        };
        (how, broken)
    }
}

/// All messages are policed, and none ever exceeds a limit.
const MESSAGES: &str = r#"[limits.messages]
rate = "100000/s"
per_ip_rate = "1000000/s"
bytes_rate = "1GiB/s"
max_size = "64MiB"
out_rate = "100000/s"
out_bytes_rate = "1GiB/s"
"#;

/// The value in TOML: a number without quotes, a word in quotes.
fn quoted(value: &str) -> String {
    if value.parse::<u32>().is_ok() {
        value.to_owned()
    } else {
        format!("\"{value}\"")
    }
}

/// The routes that every file has.
const ROUTES: &str = r#"[[route]]
name = "moody"
paths = ["/moody"]
upstream = "moody"

[[route]]
name = "sleepy"
paths = ["/sleepy"]
upstream = "sleepy"

[[route]]
name = "brief"
paths = ["/brief"]
zone = "brief"
upstream = "steady"

[[route]]
name = "short"
paths = ["/short"]
zone = "short"
upstream = "steady"

[[route]]
name = "flood"
paths = ["/flood"]
zone = "flood"
upstream = "steady"

[[route]]
name = "steady"
paths = ["/echo", "/push"]
upstream = "steady"
"#;
