//! Warnings about settings that are valid but probably not intended. Only a policy without mistakes is checked.

mod messages;
mod places;
mod routes;
mod trust;
mod zones;

use crate::config::document::schema::File;
use crate::config::findings::Findings;
use crate::config::policy::Policy;

/// Adds every warning.
pub fn check(file: &File, policy: &Policy, found: &mut Findings) {
    trust::check(file, policy, found);
    routes::check(file, policy, found);
    zones::check(file, policy, found);
    messages::check(file, policy, found);
}
