//! The order of services that depend on each other. Pure: services are positions, and `needs[a]` has what `a` needs.
//!
//! Nothing here calls itself: a file of a megabyte may have a chain of thousands of services.

use std::collections::BTreeSet;

/// Returns the wanted services in layers: those of a layer need only services of the layers before it. Unless `alone`,
/// also what the wanted ones need, directly or not. Within a layer, positions ascend. Services in a cycle are omitted.
pub(super) fn layers(needs: &[Vec<usize>], wanted: &[usize], alone: bool) -> Vec<Vec<usize>> {
    let mut is_wanted = vec![false; needs.len()];
    let mut next = wanted.to_vec();
    while let Some(service) = next.pop() {
        if !std::mem::replace(&mut is_wanted[service], true) && !alone {
            next.extend(&needs[service]);
        }
    }
    let mut layers: Vec<Vec<usize>> = Vec::new();
    for (service, depth) in depths(needs).into_iter().enumerate() {
        if let (Some(depth), true) = (depth, is_wanted[service]) {
            layers.resize_with(layers.len().max(depth + 1), Vec::new);
            layers[depth].push(service);
        }
    }
    layers.retain(|layer| !layer.is_empty());
    layers
}

/// Returns the places of the services that a service needs. Where one has no place, those that it needs count instead.
pub(super) fn nearest(needs: &[Vec<usize>], service: usize, place: impl Fn(usize) -> Option<usize>) -> Vec<usize> {
    let (mut found, mut seen, mut next) = (BTreeSet::new(), BTreeSet::new(), needs[service].clone());
    while let Some(needed) = next.pop() {
        match place(needed) {
            Some(place) => {
                found.insert(place);
            }
            None if seen.insert(needed) => next.extend(&needs[needed]),
            None => {}
        }
    }
    found.into_iter().collect()
}

/// Returns the length of the longest chain of services below each service; `None` in or above a cycle.
fn depths(needs: &[Vec<usize>]) -> Vec<Option<usize>> {
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); needs.len()];
    for (service, needed) in needs.iter().enumerate() {
        for needed in needed {
            users[*needed].push(service);
        }
    }
    let mut missing: Vec<usize> = needs.iter().map(Vec::len).collect();
    let mut depths = vec![0; needs.len()];
    let mut done = vec![false; needs.len()];
    let mut ready: Vec<usize> = (0..needs.len()).filter(|service| missing[*service] == 0).collect();
    while let Some(service) = ready.pop() {
        done[service] = true;
        for user in &users[service] {
            depths[*user] = depths[*user].max(depths[service] + 1);
            missing[*user] -= 1;
            if missing[*user] == 0 {
                ready.push(*user);
            }
        }
    }
    depths.into_iter().zip(done).map(|(depth, done)| done.then_some(depth)).collect()
}

/// The most cycles that are found: a large file could have as many as it has lines, each as long.
const MOST_CYCLES: usize = 20;

/// How far a service has been searched for cycles.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Visit {
    New,
    /// On the path that is being searched.
    Open,
    Done,
}

/// Returns cycles of two and more services, each once and beginning with its first service. A service that only needs
/// itself is none. After [`MOST_CYCLES`] the search ends.
pub(super) fn find_cycles(needs: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut cycles = Vec::new();
    let mut visits = vec![Visit::New; needs.len()];
    for start in 0..needs.len() {
        if visits[start] != Visit::New {
            continue;
        }
        visits[start] = Visit::Open;
        // The path from `start`, with the position of the next dependency to follow.
        let mut path = vec![(start, 0)];
        while let Some((service, followed)) = path.last_mut() {
            let service = *service;
            let Some(needed) = needs[service].get(*followed).copied() else {
                visits[service] = Visit::Done;
                path.pop();
                continue;
            };
            *followed += 1;
            match visits[needed] {
                Visit::New => {
                    visits[needed] = Visit::Open;
                    path.push((needed, 0));
                }
                Visit::Open if needed != service => {
                    let cycle = path.iter().map(|(service, _)| *service).skip_while(|service| *service != needed);
                    cycles.push(first_to_front(cycle.collect()));
                    if cycles.len() == MOST_CYCLES {
                        return cycles;
                    }
                }
                Visit::Open | Visit::Done => {}
            }
        }
    }
    cycles
}

/// Rotates a cycle so that its first service is in front.
fn first_to_front(mut cycle: Vec<usize>) -> Vec<usize> {
    let first = cycle.iter().enumerate().min_by_key(|(_, service)| **service).map_or(0, |(place, _)| place);
    cycle.rotate_left(first);
    cycle
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// db 0, migrate 1, api 2, worker 3, web 4, docs 5.
    fn shop() -> Vec<Vec<usize>> {
        vec![vec![], vec![0], vec![1], vec![1, 0], vec![2], vec![]]
    }

    #[test]
    fn services_come_after_what_they_need_and_as_early_as_possible() {
        let all: Vec<usize> = (0..6).collect();
        assert_eq!(layers(&shop(), &all, false), [vec![0, 5], vec![1], vec![2, 3], vec![4]]);
        assert_eq!(layers(&shop(), &[4], false), [[0], [1], [2], [4]]);
        assert_eq!(layers(&shop(), &[3, 5], false), [vec![0, 5], vec![1], vec![3]]);
        assert!(layers(&[], &[], false).is_empty());
    }

    #[test]
    fn a_service_without_a_place_stands_for_those_that_it_needs() {
        let place = |service: usize| (service == 0 || service == 5).then_some(service);
        assert_eq!(nearest(&shop(), 4, place), [0]);
        assert_eq!(nearest(&shop(), 4, Some), shop()[4]);
        assert!(nearest(&shop(), 4, |_| None).is_empty());
    }

    #[test]
    fn named_services_alone_keep_their_order() {
        assert_eq!(layers(&shop(), &[4, 0], true), [[0], [4]]);
        assert_eq!(layers(&shop(), &[5], true), [[5]]);
    }

    #[test]
    fn cycles_begin_with_their_first_service() {
        assert!(find_cycles(&shop()).is_empty());
        assert!(find_cycles(&[vec![0]]).is_empty());
        assert_eq!(find_cycles(&[vec![1], vec![0]]), [[0, 1]]);
        assert_eq!(find_cycles(&[vec![2], vec![0], vec![1]]), [[0, 2, 1]]);
        assert_eq!(find_cycles(&[vec![2], vec![3], vec![1], vec![2]]), [[1, 3, 2]].map(|_| vec![1, 3, 2]));
        assert_eq!(find_cycles(&[vec![1], vec![0], vec![3], vec![2]]), [[0, 1], [2, 3]]);
    }

    #[test]
    fn a_long_chain_is_ordered() {
        let chain: Vec<Vec<usize>> = (0..50_000_usize).map(|n| n.checked_sub(1).into_iter().collect()).collect();
        assert_eq!(layers(&chain, &[49_999], false).len(), 50_000);
        assert!(find_cycles(&chain).is_empty());
    }

    proptest! {
        #[test]
        fn every_service_has_a_layer_or_a_cycle_below_it(
            needs in proptest::collection::vec(proptest::collection::btree_set(0..8_usize, 0..4), 8)
        ) {
            // No service needs itself: that is another mistake.
            let without_self = |(service, needed): (usize, std::collections::BTreeSet<usize>)| {
                needed.into_iter().filter(|needed| *needed != service).collect::<Vec<_>>()
            };
            let needs: Vec<Vec<usize>> = needs.into_iter().enumerate().map(without_self).collect();
            let all: Vec<usize> = (0..needs.len()).collect();
            let layers = layers(&needs, &all, false);
            let layer_of = |service: usize| layers.iter().position(|layer| layer.contains(&service));
            for service in all {
                if let Some(layer) = layer_of(service) {
                    prop_assert!(needs[service].iter().all(|needed| layer_of(*needed).unwrap() < layer));
                }
            }
            let ordered = layers.iter().map(Vec::len).sum::<usize>() == needs.len();
            let cycles = find_cycles(&needs);
            prop_assert_eq!(ordered, cycles.is_empty());
            for cycle in cycles {
                let next = cycle.iter().cycle().skip(1);
                prop_assert!(cycle.iter().zip(next).all(|(service, needed)| needs[*service].contains(needed)));
            }
        }
    }
}
