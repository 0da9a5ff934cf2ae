//! `wsguard man`: the manual page, made from the definition of commands and options.

use std::io::{self, Write};

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, roman};

use crate::config::defaults;

use super::exit::Exit;

/// Writes one page with every command and its options.
pub(super) fn write(commands: Command, out: &mut dyn Write) -> io::Result<()> {
    let commands = commands.disable_help_subcommand(true).subcommand_value_name("command");
    let page = Man::new(commands.clone());
    // An empty page writes only the definition of the apostrophe. The title has no date, so that the same source makes the
    // same page.
    Roff::new().to_writer(out)?;
    writeln!(
        out,
        ".TH wsguard 1 \"\" \"wsguard {}\" \"User Commands\"",
        env!("CARGO_PKG_VERSION")
    )?;
    write_section(out, "NAME", |part| page.render_name_section(part))?;
    write_section(out, "SYNOPSIS", |part| page.render_synopsis_section(part))?;
    write_section(out, "DESCRIPTION", |part| page.render_description_section(part))?;
    write_section(out, "OPTIONS", |part| page.render_options_section(part))?;
    out.write_all(b".SH COMMANDS\n")?;
    for command in commands.get_subcommands().filter(|command| !command.is_hide_set()) {
        write_command(command, out)?;
    }
    out.write_all(rest().as_bytes())
}

/// A subsection for one command.
fn write_command(command: &Command, out: &mut dyn Write) -> io::Result<()> {
    let name = format!("wsguard {}", command.get_name());
    writeln!(out, ".SS \"{name}\"")?;
    let page = Man::new(command.clone().bin_name(name).disable_help_flag(true));
    out.write_all(&body(|part| page.render_synopsis_section(part))?)?;
    out.write_all(b".PP\n")?;
    out.write_all(&body(|part| page.render_description_section(part))?)?;
    out.write_all(&body(|part| page.render_options_section(part))?)?;
    let more = body(|part| page.render_extra_section(part))?;
    if !more.is_empty() {
        out.write_all(b".PP\n")?;
        out.write_all(&more)?;
    }
    Ok(())
}

fn write_section(
    out: &mut dyn Write,
    heading: &str,
    render: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    writeln!(out, ".SH {heading}")?;
    out.write_all(&body(render)?)
}

/// The body of a section: without its heading, and without the definition of the apostrophe, which the page already has.
fn body(render: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<Vec<u8>> {
    let mut section = Vec::new();
    render(&mut section)?;
    let heading = b".SH ";
    let begins = section.windows(heading.len()).position(|four| four == heading);
    // A command without options has no section of options.
    let Some(begins) = begins else { return Ok(Vec::new()) };
    let end = section[begins..].iter().position(|byte| *byte == b'\n');
    Ok(section.split_off(begins + end.map_or(0, |end| end + 1)))
}

/// The sections about all commands.
fn rest() -> String {
    let mut page = Roff::new();
    page.control("SH", ["SIGNALS"]);
    for (signal, what) in SIGNALS {
        item(&mut page, bold(*signal), what);
    }
    page.control("SH", ["EXIT STATUS"]);
    for (exit, what) in EXITS {
        item(&mut page, bold((*exit as u8).to_string()), what);
    }
    page.control("SH", ["FILES"]);
    item(&mut page, bold(defaults::FILE), FILE);
    page.control("SH", ["SEE ALSO"]);
    page.text([bold("systemctl"), roman("(1), "), bold("systemd.socket"), roman("(5)")]);
    page.to_roff()
}

fn item(page: &mut Roff, term: Inline, what: &str) {
    page.control("TP", []).text([term]).text([roman(what)]);
}

const SIGNALS: &[(&str, &str)] = &[
    (
        "HUP",
        "Reload the configuration. A file with a mistake changes nothing.",
    ),
    (
        "TERM, INT, QUIT",
        "Drain: close the listeners, and close open connections one after the other. A second one ends wsguard at once. \
         The demo ends at the first one.",
    ),
    (
        "USR1, USR2, ALRM, WINCH, IO, PROF, PWR, STKFLT, VTALRM, XCPU, XFSZ",
        "Ignored, with a line in the log: there is no log file to reopen and no program to exchange. XFSZ is never \
         logged, nor is WINCH on a terminal.",
    ),
];
const EXITS: &[(Exit, &str)] = &[
    (Exit::Done, "Done."),
    (Exit::Failed, "Failed, or ended by a second signal."),
    (Exit::Usage, "The command line is wrong."),
    (Exit::Config, "The configuration is refused, or missing."),
];
const FILE: &str = "The configuration, unless an option or the environment names another file.";

#[cfg(test)]
mod tests {
    use std::process::{Command as Process, Stdio};

    use clap::CommandFactory;

    use super::super::commands::Cli;
    use super::*;

    fn page() -> String {
        let mut page = Vec::new();
        write(Cli::command(), &mut page).expect("a vector takes everything");
        String::from_utf8(page).expect("text")
    }

    #[test]
    fn the_page_has_every_command_with_every_option_and_argument() {
        let page = page();
        let mut commands = Cli::command();
        commands.build();
        for command in commands.get_subcommands().filter(|command| !command.is_hide_set()) {
            let name = command.get_name();
            if name == "help" {
                continue;
            }
            let begins = page
                .find(&format!(".SS \"wsguard {name}\"\n"))
                .unwrap_or_else(|| panic!("{name} is not in {page}"));
            let section = &page[begins + 1..];
            let section = &section[..section.find("\n.S").unwrap_or(section.len())];
            for argument in command.get_arguments() {
                let id = argument.get_id().as_str();
                if ["help", "version"].contains(&id) {
                    continue;
                }
                let written = argument
                    .get_long()
                    .map_or(id.to_uppercase(), |long| format!("--{long}"))
                    .replace('-', "\\-");
                assert!(section.contains(&written), "{name} {written}: {section}");
                let help = argument
                    .get_help()
                    .expect("every option says what it is for")
                    .to_string();
                let help = help.replace('\\', "\\\\").replace('-', "\\-").replace('\'', "\\*(Aq");
                assert!(section.contains(&help), "{name} {written} says {help}: {section}");
            }
        }
        for (name, more) in [("run", "HUP reloads"), ("probe", "BAD: ")] {
            let command = commands.find_subcommand(name).expect("a command");
            let help = command.get_after_help().expect("more about it").to_string();
            assert!(help.contains(more) && page.contains(&help), "{help}: {page}");
        }
        for hidden in ["completions", "wsguard man"] {
            assert!(!page.contains(hidden), "{hidden} is hidden");
        }
    }

    #[test]
    fn the_programs_that_show_the_page_report_no_errors() {
        let page = page();
        for program in [
            &["groff", "-ww", "-man", "-Tutf8", "-z"][..],
            &["mandoc", "-Tlint", "-Werror"],
        ] {
            let begun = Process::new(program[0])
                .args(&program[1..])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn();
            // Not every machine has these programs.
            let Ok(mut begun) = begun else { continue };
            let mut stdin = begun.stdin.take().expect("piped");
            stdin.write_all(page.as_bytes()).expect("it reads");
            drop(stdin);
            let done = begun.wait_with_output().expect("it ends");
            let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
            assert!(done.status.success() && said.is_empty(), "{program:?}: {said}\n{page}");
        }
    }
}
