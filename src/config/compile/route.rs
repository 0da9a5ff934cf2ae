//! Compiles `[[route]]`.

use std::ops::Range;
use std::sync::Arc;

use crate::config::document::schema::{self, File};
use crate::config::document::table::Entry;
use crate::config::findings::{Finding, Findings, list, suggest};
use crate::config::notation::invalid::Invalid;
use crate::config::notation::paths;
use crate::config::policy::ZonePolicy;
use crate::config::routes::clients::ClientSet;
use crate::config::routes::host::HostPattern;
use crate::config::routes::origin::Origin;
use crate::config::routes::{Route, RoutePath, Routes};

use super::clients;
use super::names::Names;

pub fn compile(file: &File, zones: &[ZonePolicy], found: &mut Findings) -> Routes {
    let upstreams: Vec<&str> = file.upstream.tables.iter().map(|(name, _)| name.text).collect();
    if file.route.is_missing {
        if let Some((second, _)) = file.upstream.tables.get(1) {
            let title = "several upstreams and no [[route]] that chooses among them";
            found.mistake(
                Finding::at(second.span.clone(), title).hint(
                    "[[route]] with `hosts` or `paths`, and upstream = \"...\" in each; or leave one upstream only",
                ),
            );
        }
        return Routes::new(vec![catch_all(zones)]);
    }
    let mut names = Names::new("route");
    let routes = file.route.tables.iter().enumerate().map(|(nth, (header, route))| {
        if refuses(route, found) {
            let name = names.add(&route.name, format!("route-{}", nth + 1), header.clone(), found);
            return refusing(nth, name, route, found);
        }
        let zone = zone(&route.zone, zones, found);
        Route {
            nth,
            name: names.add(&route.name, format!("route-{}", nth + 1), header.clone(), found),
            zone,
            upstream: upstream(&route.upstream, header, &upstreams, found),
            exempt: zones.get(zone).is_some_and(|zone| zone.exempt),
            hosts: hosts(route, found),
            paths: route_paths(route, found),
            networks: networks(route, found),
            allow: allow(&route.allow, found),
            origins: origins(route, found),
            refuses: false,
        }
    });
    Routes::new(routes.collect())
}

/// The route of a file without routes: everything goes to zone `default` and the only upstream.
fn catch_all(zones: &[ZonePolicy]) -> Route {
    Route {
        nth: 0,
        name: "default".into(),
        zone: 0,
        upstream: 0,
        exempt: zones.first().is_some_and(|zone| zone.exempt),
        hosts: Vec::new(),
        paths: Vec::new(),
        networks: None,
        allow: None,
        origins: None,
        refuses: false,
    }
}

/// Whether `refuse` is written. 404 is its only value.
fn refuses(route: &schema::Route, found: &mut Findings) -> bool {
    let status: Option<u32> = route.refuse.number(&(0..=u32::MAX), found);
    if status.is_some_and(|status| status != 404) {
        let span = route.refuse.span().unwrap_or_default();
        found.mistake(Finding::at(span, "a route can refuse with 404 only").hint("refuse = 404"));
    }
    route.refuse.is_written()
}

/// A route that answers its requests with 404.
fn refusing(nth: usize, name: Arc<str>, route: &schema::Route, found: &mut Findings) -> Route {
    for entry in [&route.zone, &route.upstream, &route.allow, &route.origins] {
        if let Some(span) = entry.span() {
            let mistake = Finding::at(span, format!("a route with `refuse` can't have `{}`", entry.key));
            found.mistake(
                mistake.hint("remove one of the two; hosts, paths and networks select the requests to refuse"),
            );
        }
    }
    Route {
        nth,
        name,
        zone: 0,
        upstream: 0,
        exempt: false,
        hosts: hosts(route, found),
        paths: route_paths(route, found),
        networks: networks(route, found),
        allow: None,
        origins: None,
        refuses: true,
    }
}

fn hosts(route: &schema::Route, found: &mut Findings) -> Vec<HostPattern> {
    each(
        &route.hosts,
        "to match any host, leave `hosts` out",
        HostPattern::parse,
        found,
    )
}

fn route_paths(route: &schema::Route, found: &mut Findings) -> Vec<RoutePath> {
    let parse = |path: &str| paths::check(path).map(|()| RoutePath::new(path));
    each(&route.paths, "to match any path, leave `paths` out", parse, found)
}

fn networks(route: &schema::Route, found: &mut Findings) -> Option<ClientSet> {
    let texts = route.networks.texts("to match any client, leave `networks` out", found);
    texts.map(|texts| clients::set(&texts, found))
}

fn zone(entry: &Entry, zones: &[ZonePolicy], found: &mut Findings) -> usize {
    let Some(text) = entry.text(&list(zones.iter().map(|zone| &*zone.name)), found) else {
        return 0;
    };
    zones
        .iter()
        .position(|zone| *zone.name == *text.text)
        .unwrap_or_else(|| {
            let mistake = Finding::at(text.span, format!("there is no zone \"{}\"", text.text));
            found.mistake(mistake.maybe_hint(suggest(text.text, zones.iter().map(|zone| &*zone.name))));
            0
        })
}

fn upstream(entry: &Entry, header: &Range<usize>, upstreams: &[&str], found: &mut Findings) -> usize {
    if !entry.is_written() && upstreams.len() > 1 {
        let mistake = Finding::at(header.clone(), "a route needs `upstream` where there are several");
        let all: Vec<String> = upstreams.iter().map(|name| format!("\"{name}\"")).collect();
        found.mistake(mistake.hint(format!("upstream = one of {}", all.join(", "))));
    }
    let Some(text) = entry.text(&list(upstreams.iter().copied()), found) else {
        return 0;
    };
    upstreams.iter().position(|name| *name == text.text).unwrap_or_else(|| {
        let mistake = Finding::at(text.span, format!("there is no upstream \"{}\"", text.text));
        found.mistake(mistake.maybe_hint(suggest(text.text, upstreams.iter().copied())));
        0
    })
}

fn origins(route: &schema::Route, found: &mut Findings) -> Option<Vec<Origin>> {
    let hint = "it would refuse every browser; to allow any origin, leave `origins` out";
    route
        .origins
        .is_written()
        .then(|| each(&route.origins, hint, Origin::parse, found))
}

/// The empty list is the default: no client is refused.
fn allow(entry: &Entry, found: &mut Findings) -> Option<ClientSet> {
    let texts = entry.texts_or_none(found).filter(|texts| !texts.is_empty());
    texts.map(|texts| clients::set(&texts, found))
}

fn each<T>(entry: &Entry, empty: &str, parse: impl Fn(&str) -> Result<T, Invalid>, found: &mut Findings) -> Vec<T> {
    let mut values = Vec::new();
    for text in entry.texts(empty, found).unwrap_or_default() {
        match parse(text.text) {
            Ok(value) => values.push(value),
            Err(invalid) => found.invalid(text.span, invalid),
        }
    }
    values
}
