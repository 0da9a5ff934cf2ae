//! Describes in words what a reload changes.

use crate::config::policy::Policy;

/// The differences between two policies, in one line: `zone chat changed, route admin added`, or `nothing changed`.
pub(crate) fn policy_diff(before: &Policy, after: &Policy) -> String {
    let mut changes = Vec::new();
    let listeners = |policy| {
        by_name(
            policy,
            |policy| policy.listeners.iter(),
            |listener| listener.name.to_string(),
        )
    };
    diff("listener", &listeners(before), &listeners(after), &mut changes);
    let zones = |policy| by_name(policy, |policy| policy.zones.iter(), |zone| zone.name.to_string());
    diff("zone", &zones(before), &zones(after), &mut changes);
    let networks = |policy| {
        by_name(
            policy,
            |policy| policy.networks.iter(),
            |(network, _)| network.to_string(),
        )
    };
    diff("network", &networks(before), &networks(after), &mut changes);
    let routes = |policy| by_name(policy, |policy| policy.routes.iter(), |route| route.name.to_string());
    diff("route", &routes(before), &routes(after), &mut changes);
    let upstreams = |policy| {
        by_name(
            policy,
            |policy| policy.upstreams.iter(),
            |upstream| upstream.rules.name.to_string(),
        )
    };
    diff("upstream", &upstreams(before), &upstreams(after), &mut changes);
    for (what, is_same) in [
        ("server", before.server == after.server),
        ("client_ip", before.identity == after.identity),
        ("log", before.log == after.log),
    ] {
        if !is_same {
            changes.push(format!("{what} changed"));
        }
    }
    if changes.is_empty() {
        "nothing changed".to_owned()
    } else {
        changes.join(", ")
    }
}

fn by_name<'p, T: 'p, I: Iterator<Item = T>>(
    policy: &'p Policy,
    list: impl Fn(&'p Policy) -> I,
    name: impl Fn(&T) -> String,
) -> Vec<(String, T)> {
    list(policy).map(|item| (name(&item), item)).collect()
}

fn diff<T: PartialEq>(what: &str, before: &[(String, T)], after: &[(String, T)], changes: &mut Vec<String>) {
    for (name, value) in after {
        match before.iter().find(|(known, _)| known == name) {
            None => changes.push(format!("{what} {name} added")),
            Some((_, old)) if old != value => changes.push(format!("{what} {name} changed")),
            Some(_) => {}
        }
    }
    let is_gone = |name: &String| !after.iter().any(|(known, _)| known == name);
    let gone = before.iter().filter(|(name, _)| is_gone(name));
    changes.extend(gone.map(|(name, _)| format!("{what} {name} removed")));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(extra: &str) -> Policy {
        let text =
            format!("[[listener]]\nbind = [\"127.0.0.1:1\"]\n[upstream.chat]\nservers = [\"127.0.0.1:2\"]\n{extra}");
        crate::config::compile(&text, "test").expect("it compiles").policy
    }

    fn difference(before: &str, after: &str) -> String {
        policy_diff(&policy(before), &policy(after))
    }

    #[test]
    fn the_same_text_changes_nothing() {
        let text = "[zone.a]\nconnections = 5\n[[route]]\nname = \"r\"\nzone = \"a\"\n[client_ip]\ntrusted_proxies = [\"loopback\"]\n";
        assert_eq!(difference(text, text), "nothing changed");
    }

    #[test]
    fn each_part_that_is_added_removed_or_changed_is_named() {
        let before = "[zone.a]\nconnections = 5\n[zone.b]\n";
        let after = "[zone.a]\nconnections = 6\n[zone.c]\n";
        assert_eq!(
            difference(before, after),
            "zone a changed, zone c added, zone b removed"
        );
        assert_eq!(
            difference("", "[client_ip]\ntrusted_proxies = [\"10.0.0.0/8\"]\n"),
            "client_ip changed"
        );
        assert_eq!(difference("", "[log]\nlevel = \"warn\"\n"), "log changed");
        assert_eq!(difference("", "[server]\nmax_connections = 77\n"), "server changed");
        let network = |per_ip: u32| format!("[[network]]\nnetworks = [\"10.0.0.0/8\"]\nper_ip = {per_ip}\n");
        assert_eq!(difference("", &network(3)), "network 10.0.0.0/8 added");
        assert_eq!(difference(&network(3), &network(4)), "network 10.0.0.0/8 changed");
    }
}
