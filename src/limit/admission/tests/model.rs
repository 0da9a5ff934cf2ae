//! Compares admission with a list of open connections, one operation after the other, under changing rules.

use super::*;
use crate::limit::bucket::Bucket;

#[derive(Clone, Copy, Debug)]
enum Act {
    Admit { zone: usize, client: u8 },
    Drop(usize),
    PerIp(Option<u32>),
    Connections(Option<u32>),
    Ceiling(usize, Option<u32>),
    Process(Option<u32>),
    ClientRate(Option<(u32, u32)>),
    ZoneRate(Option<(u32, u32)>),
    Observe(bool),
    Sweep,
}

fn act() -> impl Strategy<Value = Act> {
    let limit = || prop::option::of(0u32..6);
    // They are so similar that no bucket is forgiven a debt when one replaces another.
    let some_rate = || prop::option::of((3u32..6, 1u32..4));
    prop_oneof![
        12 => (0usize..2, 0u8..4).prop_map(|(zone, client)| Act::Admit { zone, client }),
        6 => any::<usize>().prop_map(Act::Drop),
        1 => limit().prop_map(Act::PerIp),
        1 => limit().prop_map(Act::Connections),
        1 => (0usize..2, limit()).prop_map(|(zone, limit)| Act::Ceiling(zone, limit)),
        1 => limit().prop_map(Act::Process),
        1 => some_rate().prop_map(Act::ClientRate),
        1 => some_rate().prop_map(Act::ZoneRate),
        1 => any::<bool>().prop_map(Act::Observe),
        1 => Just(Act::Sweep),
    ]
}

/// The expected state, without a table: the open connections and the plain buckets.
#[derive(Default)]
struct Model {
    open: Vec<(usize, u8)>,
    clients: [[Bucket; 4]; 2],
    zones: [Bucket; 2],
}

impl Model {
    fn count(&self, is: impl Fn(&(usize, u8)) -> bool) -> u32 {
        u32::try_from(self.open.iter().filter(|open| is(open)).count()).unwrap()
    }

    /// The expected outcome: the limit that refuses, or an admission with the limit that was observed.
    fn admit(&mut self, rig: &Rig, zone: usize, client: u8, now: Moment) -> Result<Option<Limit>, Limit> {
        let (mine, zoned) = (
            self.count(|open| *open == (zone, client)),
            self.count(|open| open.0 == zone),
        );
        let ceiling = rig.zones[zone].budget.limit().unwrap_or(u32::MAX);
        let budget = ceiling.min(rig.rules.connections.unwrap_or(u32::MAX));
        let meters = [rig.client.rate, rig.rules.rate].map(|rate| rate.map(Meter::from));
        let buckets = [&mut self.clients[zone][usize::from(client)], &mut self.zones[zone]];
        let lacks = |which: usize| meters[which].is_some_and(|meter| !buckets[which].has_token(meter, now));
        let process_is_full = rig.process().limit().is_some_and(|limit| rig.process().used() >= limit);
        // Each limit, whether it refuses, and whether it does so under observe too.
        let limits = [
            (
                Limit::PerIp,
                rig.client.per_ip.is_some_and(|limit| mine >= limit),
                false,
            ),
            (Limit::ZoneFull, zoned >= budget, zone == 1 && zoned >= ceiling),
            (Limit::ProcessFull, zone == 0 && process_is_full, true),
            (Limit::PerIpRate, lacks(0), false),
            (Limit::ZoneRate, lacks(1), false),
        ];
        let stands = |is_hard: bool| is_hard || !rig.rules.observe;
        if let Some((limit, ..)) = limits.iter().find(|(_, says_no, is_hard)| *says_no && stands(*is_hard)) {
            return Err(*limit);
        }
        for (bucket, meter) in buckets.into_iter().zip(meters) {
            if let Some(meter) = meter {
                bucket.take(meter, now);
            }
        }
        self.open.push((zone, client));
        Ok(limits.iter().find(|(_, says_no, _)| *says_no).map(|(limit, ..)| *limit))
    }

    fn check(&self, rig: &Rig) -> Result<(), TestCaseError> {
        for (zone, counts) in rig.zones.iter().enumerate() {
            prop_assert_eq!(counts.budget.used(), self.count(|open| open.0 == zone));
        }
        prop_assert_eq!(rig.process().used(), self.count(|open| open.0 == 0));
        prop_assert_eq!(rig.admission.open_in_table(), self.open.len() as u64);
        let clients = (0..2u32).flat_map(|zone| (0..4).map(move |client| (zone, client)));
        let mut expected: Vec<(u32, ClientKey, u32)> = clients
            .map(|(zone, client)| (zone, key(client), self.count(|open| *open == (zone as usize, client))))
            .filter(|(.., open)| *open > 0)
            .collect();
        expected.sort_unstable_by_key(|(zone, key, open)| (std::cmp::Reverse(*open), *zone, *key));
        prop_assert_eq!(rig.admission.top(9), expected);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn admission_agrees_with_a_list_of_open_connections(acts in prop::collection::vec((act(), 0u64..300), 1..120)) {
        let (mut rig, mut model, mut permits, mut ms) = (Rig::new(), Model::default(), Vec::new(), 0);
        let of = |to: Option<(u32, u32)>| to.map(|(tokens, burst)| rate(tokens, 1000, burst));
        for (act, wait) in acts {
            ms += wait;
            let now = rig.start + Duration::from_millis(ms);
            match act {
                Act::Admit { zone, client } => {
                    let expected = model.admit(&rig, zone, client, Moment::since(rig.admission.epoch, now));
                    let got = rig.admission.admit(rig.request(zone, client), now);
                    let observed = |granted: &Granted| granted.observed.map(|full| full.limit);
                    prop_assert_eq!(got.as_ref().map(observed).map_err(|full| full.limit), expected);
                    permits.extend(got.ok());
                }
                Act::Drop(_) if permits.is_empty() => {}
                Act::Drop(which) => {
                    let which = which % permits.len();
                    drop(permits.swap_remove(which));
                    model.open.swap_remove(which);
                }
                Act::PerIp(limit) => rig.client.per_ip = limit,
                Act::Connections(limit) => rig.rules.connections = limit,
                Act::Ceiling(zone, limit) => rig.zones[zone].budget.set_limit(limit),
                Act::Process(limit) => rig.process().set_limit(limit),
                Act::ClientRate(to) => rig.client.rate = of(to),
                Act::ZoneRate(to) => rig.rules.rate = of(to),
                Act::Observe(to) => rig.rules.observe = to,
                Act::Sweep => rig.admission.sweep(now),
            }
            model.check(&rig)?;
        }
        drop(permits);
        rig.assert_empty();
    }
}
