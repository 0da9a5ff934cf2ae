//! `wsguard completions SHELL`: the completion script of a shell, made from the definition of commands and options.

use std::io::{self, Write};

use clap::{Args, Command};
use clap_complete::{Shell, generate};

/// `completions SHELL`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The shell
    shell: Shell,
}

/// Writes the shell's script for these commands.
pub(super) fn write(commands: &mut Command, options: &Options, out: &mut dyn Write) -> io::Result<()> {
    let name = commands.get_name().to_owned();
    let mut script = Vec::new();
    generate(options.shell, commands, name, &mut script);
    out.write_all(&script)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command as Process;

    use clap::{CommandFactory, ValueEnum};

    use super::super::commands::Cli;
    use super::*;

    #[test]
    fn every_command_and_option_is_completed_in_every_shell() {
        let mut commands = Cli::command();
        commands.build();
        for shell in Shell::value_variants() {
            let script = script(*shell);
            for command in commands.get_subcommands() {
                assert!(script.contains(command.get_name()), "{} in {shell}", command.get_name());
                for long in command.get_arguments().filter_map(clap::Arg::get_long) {
                    // fish writes long options without the hyphens.
                    assert!(script.contains(long), "{} --{long} in {shell}", command.get_name());
                }
            }
        }
    }

    #[test]
    fn bash_completes_commands_options_and_files() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("some.toml"), "").expect("a file");
        fs::write(dir.path().join("wsguard.bash"), script(Shell::Bash)).expect("a file");
        for (line, wanted) in [
            ("wsguard ch", &["check"][..]),
            ("wsguard check --d", &["--deny-warnings"]),
            ("wsguard run --per", &["--per-ip"]),
            ("wsguard run -c so", &["some.toml"]),
            ("wsguard check -c so", &["some.toml"]),
            ("wsguard probe --i", &["--i-own-this"]),
        ] {
            let words: Vec<_> = line.split(' ').collect();
            // Like readline, this calls the function with the last word and the word before it.
            let ask = format!(
                ". ./wsguard.bash; COMP_WORDS=({line}); COMP_CWORD={}; _wsguard wsguard '{}' '{}'; \
                 printf '%s\\n' \"${{COMPREPLY[@]}}\"",
                words.len() - 1,
                words[words.len() - 1],
                words[words.len() - 2],
            );
            // Not every machine has bash.
            let Ok(done) = Process::new("bash")
                .args(["--norc", "-c", &ask])
                .current_dir(dir.path())
                .output()
            else {
                return;
            };
            let replies = String::from_utf8_lossy(&done.stdout).into_owned();
            assert_eq!(
                replies.lines().collect::<Vec<_>>(),
                wanted,
                "{line}: {}",
                String::from_utf8_lossy(&done.stderr)
            );
        }
    }

    fn script(shell: Shell) -> String {
        let mut script = Vec::new();
        write(&mut Cli::command(), &Options { shell }, &mut script).expect("a vector takes everything");
        String::from_utf8(script).expect("text")
    }
}
