//! A policy without a file, from the options of `wsguard run --listen A --upstream B`. The options are turned into the text
//! of a file, so options and files are compiled in the same way.

use std::fmt::Write;

use crate::config::load::{Checked, Rejected, compile};

/// The options that replace a file. Values are those of the file, without quotes.
#[derive(Clone, Debug, Default)]
pub struct QuickOptions {
    /// `listener.bind`.
    pub listen: Vec<String>,
    /// `upstream.backend.servers`.
    pub upstream: Vec<String>,
    /// `limits.per_ip`: a number, or "off".
    pub per_ip: Option<String>,
    /// `limits.connections`: a number, or "off".
    pub connections: Option<String>,
    /// `client_ip.trusted_proxies`.
    pub trust: Vec<String>,
    /// `admin.listen`: an address, or "off".
    pub admin: Option<String>,
}

/// Compiles the options. Findings show the text that the options were turned into, under the name "command line".
///
/// # Errors
/// Every mistake in the options.
pub fn quick(options: &QuickOptions) -> Result<Checked, Rejected> {
    compile(&text(options), "command line")
}

fn text(options: &QuickOptions) -> String {
    let mut text = format!("[[listener]]\nbind = {}\n", list(&options.listen));
    let limits = [("per_ip", &options.per_ip), ("connections", &options.connections)];
    if limits.iter().any(|(_, value)| value.is_some()) {
        text.push_str("\n[limits]\n");
    }
    for (key, value) in limits {
        if let Some(value) = value {
            let is_number = !value.is_empty() && value.len() <= 18 && value.bytes().all(|b| b.is_ascii_digit());
            let value = if is_number {
                value.trim_start_matches('0')
            } else {
                &quote(value)
            };
            let _ = writeln!(text, "{key} = {}", if value.is_empty() { "0" } else { value });
        }
    }
    if !options.trust.is_empty() {
        let _ = write!(text, "\n[client_ip]\ntrusted_proxies = {}\n", list(&options.trust));
    }
    if let Some(admin) = &options.admin {
        let _ = write!(text, "\n[admin]\nlisten = {}\n", quote(admin));
    }
    let _ = write!(text, "\n[upstream.backend]\nservers = {}\n", list(&options.upstream));
    text
}

fn list(values: &[String]) -> String {
    let quoted: Vec<String> = values.iter().map(|value| quote(value)).collect();
    format!("[{}]", quoted.join(", "))
}

/// A TOML basic string.
fn quote(value: &str) -> String {
    let mut quoted = String::from("\"");
    for c in value.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
