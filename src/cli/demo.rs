//! `wsguard demo`: runs [`crate::demo`].

use crate::config::policy::LogFormat;
use crate::demo::{self, DemoArgs};

use super::exit::Exit;
use super::stderr::fail_in;

/// Runs the demo until a signal ends it.
pub(super) fn run(args: DemoArgs) -> Exit {
    demo::run(args).map_or_else(|error| fail_in(LogFormat::Auto, &error), |()| Exit::Done)
}
