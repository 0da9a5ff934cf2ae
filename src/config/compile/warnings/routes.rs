//! Warnings about requests that no route takes, and about routes that take no request.

use crate::config::document::schema::File;
use crate::config::findings::{Finding, Findings};
use crate::config::policy::Policy;
use crate::config::routes::{Route, RoutePath};

use super::super::shadowed;

/// Adds every warning about routes.
pub fn check(file: &File, policy: &Policy, found: &mut Findings) {
    let routes: Vec<&Route> = policy.routes.iter().collect();
    if let Some((header, _)) = file
        .route
        .tables
        .first()
        .filter(|_| routes.iter().all(|route| route.refuses))
    {
        found.warn(
            Finding::at(header.clone(), "every route refuses: no client gets in").hint("a [[route]] without `refuse`"),
        );
    }
    let mut last_header = None;
    for (nth, ((header, written), route)) in file.route.tables.iter().zip(&routes).enumerate() {
        if shadowed::is_shadowed(route, &routes[..nth]) {
            found.warn(
                Finding::at(header.clone(), format!("route \"{}\" can't be reached", route.name))
                    .hint("earlier routes take all of its requests; the first match wins"),
            );
        } else if route.exempt && !route.paths.is_empty() && !route.paths.iter().any(RoutePath::is_plain) {
            found.warn(
                Finding::at(
                    written.paths.span().unwrap_or_default(),
                    format!("route \"{}\" can't be reached", route.name),
                )
                .hint("only a plain path leads into an exempt zone: one without `%`, `;`, `\\`, `//` and dot segments"),
            );
        }
        if route.exempt && route.networks.is_none() && route.allow.is_none() {
            found.warn(
                Finding::at(
                    written.zone.span().unwrap_or(header.clone()),
                    "an exempt zone is open to everyone",
                )
                .hint("no per-client limit applies there; restrict the route: networks = [\"198.51.100.0/24\"]"),
            );
        }
        last_header = Some(header);
    }
    if let Some(header) = last_header.filter(|_| !routes.iter().any(|route| route.is_unconditional())) {
        found.warn(
            Finding::at(header.clone(), "requests that match no route get 404").hint(
                "add a last [[route]] without hosts, paths and networks to take them; where 404 is intended, give it \
                 `refuse = 404`",
            ),
        );
    }
}
